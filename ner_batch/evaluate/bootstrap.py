"""How sure the figures are: rows drawn with replacement, and the difference of two runs on the same draws.

Intervals are percentiles (Efron and Tibshirani 1993). The comparison draws the same rows for both runs; its p-value is
two-sided, from differences shifted to a mean of none: the share of resamples whose difference is at least as far from
the one observed as that is from 0 (Berg-Kirkpatrick et al. 2012), counted with the sample itself so that it is never 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

import numpy as np

from ner_batch.evaluate.units import CORRECT, EXACT, GOLD, PARTIAL, PREDICTED, TYPE, Layout, Units

CHUNK_CELLS = 4_000_000
"""Drawn numbers held at once: 32 MB."""

Figures = dict[str, np.ndarray]
"""``strict/micro/f1`` and so on; each of the shape the counts had before their last two axes."""


def resamples(units: Units, count: int, seed: int) -> Iterator[np.ndarray]:
    """Counts of resampled rows, in arrays of shape (some, *layout.shape); ``count`` resamples in all."""
    counts, times = units.arrays()
    flat = counts.reshape(len(counts), -1).astype(float)
    rng, share = np.random.default_rng(seed), times / times.sum()
    step = max(1, CHUNK_CELLS // len(counts))
    for start in range(0, count, step):
        drawn = rng.multinomial(times.sum(), share, size=min(step, count - start))
        yield (drawn @ flat).reshape(len(drawn), *units.layout.shape)


def members(groups: Mapping[str, tuple[str, ...]], types: tuple[str, ...]) -> dict[str, list[int]]:
    """Indices of the types in each group."""
    return {
        name: [i for i, type_ in enumerate(types) if any(fnmatchcase(type_, pattern) for pattern in patterns)]
        for name, patterns in groups.items()
    }


def figures(counts: np.ndarray, layout: Layout, groups: Mapping[str, tuple[str, ...]]) -> Figures:
    """Precision, recall and F1 from one run's counts of shape (..., len(types) + 1, 3).

    ``macro`` is the mean over types that are in gold or predicted (as in seqeval); a resample may lack some.
    """
    types, schemes = counts[..., :-1, :], counts[..., -1, :]
    every, there = types.sum(-2), types[..., PREDICTED] + types[..., GOLD] > 0
    found = _figures("strict/micro", every[..., CORRECT], every)
    for name, values in _figures("strict/macro", types[..., CORRECT], types).items():
        found[name] = ratio((values * there).sum(-1), there.sum(-1))
    for i, type_ in enumerate(layout.types):
        found |= _figures(f"strict/type/{type_}", types[..., i, CORRECT], types[..., i, :])
    for name, inside in members(groups, layout.types).items():
        some = types[..., inside, :].sum(-2)
        found |= _figures(f"strict/group/{name}", some[..., CORRECT], some)
    for scheme, hits in (
        ("exact", schemes[..., EXACT]),
        ("partial", schemes[..., PARTIAL] / 2),
        ("type", schemes[..., TYPE]),
    ):
        found |= _figures(f"{scheme}/micro", hits, every)
    return found


def _figures(name: str, hits: np.ndarray, counts: np.ndarray) -> Figures:
    said, wanted = counts[..., PREDICTED], counts[..., GOLD]
    return {
        f"{name}/precision": ratio(hits, said),
        f"{name}/recall": ratio(hits, wanted),
        f"{name}/f1": ratio(2 * hits, said + wanted),
    }


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part / whole``, 0 where there is nothing, as in :mod:`ner_batch.evaluate.metrics`."""
    quotient: np.ndarray = np.divide(
        part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=np.asarray(whole) > 0
    )
    return quotient


def draw(units: Units, groups: Mapping[str, tuple[str, ...]], count: int, seed: int) -> list[Figures]:
    """The figures of each run over resamples; draw i is of the same rows in all runs."""
    parts: list[list[Figures]] = [[] for _ in range(units.layout.runs)]
    for totals in resamples(units, count, seed):
        for run, part in enumerate(parts):
            part.append(figures(totals[:, run], units.layout, groups))
    return [{name: np.concatenate([p[name] for p in part]) for name in part[0]} for part in parts]


def interval(drawn: np.ndarray, level: float) -> tuple[float, float]:
    """The middle ``level`` of some draws."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compared(
    this: float, other: float, drawn_this: np.ndarray, drawn_other: np.ndarray, level: float
) -> dict[str, object]:
    """Is this better than the other? Difference (this - other), interval, shares of resamples, p-value."""
    difference, drawn = this - other, drawn_this - drawn_other
    extreme = int((np.abs(drawn - difference) >= abs(difference) - 1e-12).sum())
    return {
        "this": this,
        "other": other,
        "difference": difference,
        "interval": list(interval(drawn, level)),
        "this_better": float((drawn > 0).mean()),
        "other_better": float((drawn < 0).mean()),
        "p": (extreme + 1) / (len(drawn) + 1),
    }
