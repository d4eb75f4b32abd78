"""How sure the figures are: rows drawn with replacement, and the difference of two runs on the same draws.

Intervals are percentiles (Efron and Tibshirani 1993). A comparison's p-value is two-sided: the share of resamples whose
difference is at least as far from the one observed as that is from 0 (Berg-Kirkpatrick et al. 2012), counted with the
sample itself so that it is never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from ner_batch.evaluate.count import CORRECT, EXACT, GOLD, PARTIAL, PREDICTED, TYPE, CountHistogram

CHUNK_CELLS = 4_000_000
"""Drawn numbers held at once: 32 MB."""

Figures = dict[str, np.ndarray]
"""``strict/micro/f1`` and so on, of the shape of the counts before their last two axes."""


def members(groups: Mapping[str, tuple[str, ...]], types: Sequence[str]) -> dict[str, list[int]]:
    """Indices of the types in each group."""
    return {
        name: [i for i, type_ in enumerate(types) if any(fnmatchcase(type_, pattern) for pattern in patterns)]
        for name, patterns in groups.items()
    }


def sums(counts: np.ndarray, types: Sequence[str], groups: Mapping[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """Correct, predicted and gold entities by figure (``strict/micro``), of counts (..., len(types) + 1, 3)."""
    by_type, schemes = counts[..., :-1, :], counts[..., -1, :]
    all_types = by_type.sum(-2)
    values = {"strict/micro": all_types}
    values |= {f"strict/type/{type_}": by_type[..., i, :] for i, type_ in enumerate(types)}
    for name, indices in members(groups, types).items():
        values[f"strict/group/{name}"] = by_type[..., indices, :].sum(-2)
    for scheme, slot, weight in (("exact", EXACT, 1), ("partial", PARTIAL, 2), ("type", TYPE, 1)):
        correct = schemes[..., slot, None] / weight
        values[f"{scheme}/micro"] = np.concatenate([correct, all_types[..., PREDICTED:]], -1)
    return values


def figures(counts: np.ndarray, types: Sequence[str], groups: Mapping[str, tuple[str, ...]]) -> Figures:
    """Precision, recall and F1 of all :func:`sums`, and ``strict/macro``.

    That is the mean over types that are in gold or predicted (as in seqeval); a resample may lack some.
    """
    by_type, by_name = counts[..., :-1, :], sums(counts, types, groups)
    present = by_type[..., PREDICTED] + by_type[..., GOLD] > 0
    values = _precision_recall_f1("strict/micro", by_name.pop("strict/micro"))
    for name, of_types in _precision_recall_f1("strict/macro", by_type).items():
        values[name] = ratio((of_types * present).sum(-1), present.sum(-1))
    for name, summed in by_name.items():
        values |= _precision_recall_f1(name, summed)
    return values


def _precision_recall_f1(name: str, counts: np.ndarray) -> Figures:
    correct, predicted, gold = (counts[..., slot] for slot in (CORRECT, PREDICTED, GOLD))
    return {
        f"{name}/precision": ratio(correct, predicted),
        f"{name}/recall": ratio(correct, gold),
        f"{name}/f1": ratio(2 * correct, predicted + gold),
    }


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part / whole``, 0 where there is nothing, as in :mod:`ner_batch.evaluate.metrics`."""
    zeros = np.zeros(np.broadcast(part, whole).shape)
    quotient: np.ndarray = np.divide(part, whole, out=zeros, where=np.asarray(whole) > 0)
    return quotient


def draw(histogram: CountHistogram, groups: Mapping[str, tuple[str, ...]], count: int, seed: int) -> list[Figures]:
    """The figures of each run over ``count`` resamples of rows; draw i is of the same rows in all runs."""
    counts, rows = histogram.arrays()
    flat = counts.reshape(len(counts), -1).astype(float)
    rng, shares = np.random.default_rng(seed), rows / rows.sum()
    step = max(1, CHUNK_CELLS // len(counts))
    chunks = []
    for start in range(0, count, step):
        draws = rng.multinomial(rows.sum(), shares, size=min(step, count - start))
        totals = (draws @ flat).reshape(len(draws), *histogram.shape)
        chunks.append([figures(totals[:, run], histogram.types, groups) for run in range(histogram.runs)])
    return [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*chunks, strict=True)
    ]


def interval(draws: np.ndarray, level: float) -> tuple[float, float]:
    """The middle ``level`` of some draws."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(
    this: float, other: float, this_draws: np.ndarray, other_draws: np.ndarray, level: float
) -> dict[str, object]:
    """Is this better than the other? Difference (this - other), interval, shares of resamples, p-value."""
    difference, differences = this - other, this_draws - other_draws
    extreme = int((np.abs(differences - difference) >= abs(difference) - 1e-12).sum())
    return {
        "this": this,
        "other": other,
        "difference": difference,
        "interval": list(interval(differences, level)),
        "this_better": float((differences > 0).mean()),
        "other_better": float((differences < 0).mean()),
        "p": (extreme + 1) / (len(differences) + 1),
    }
