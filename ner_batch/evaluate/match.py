"""Gold and predicted spans of one text, paired so that the pairs explain as much as can be explained.

Entities may nest, cross and share a span, so who belongs to whom is a choice. The same span and type is paired first.
Of the rest as many pairs as possible are of the same span, then as many as possible overlap; then most pairs are of
one type, then the overlap (intersection over union, summed) is largest: an assignment problem for each cluster of
overlapping spans. The pairs maximise what SemEval-2013 task 9 counts as strict, exact and partial; its fourth scheme,
type, has another optimum: :func:`same_type`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

Span = tuple[int, int, str]
"""(start, end, type)."""
Pair = tuple[Span | None, Span | None]
"""(gold, predicted); None for what has no partner."""
Outcome = Literal["correct", "type", "boundary", "type and boundary", "missed", "spurious"]
OUTCOMES: tuple[Outcome, ...] = ("correct", "type", "boundary", "type and boundary", "missed", "spurious")


def outcome(pair: Pair) -> Outcome:
    """What a pair of :func:`align` is: right, or wrong in its type, its boundary or both; missed; spurious."""
    gold, predicted = pair
    if gold is None:
        return "spurious"
    if predicted is None:
        return "missed"
    if gold[:2] == predicted[:2]:
        return "correct" if gold[2] == predicted[2] else "type"
    return "boundary" if gold[2] == predicted[2] else "type and boundary"


def align(gold: Collection[Span], predicted: Collection[Span]) -> list[Pair]:
    """All spans of both sides, each once, in pairs; the same span and type twice on one side is one."""
    correct = set(gold) & set(predicted)
    pairs: list[tuple[Span, Span]] = [(span, span) for span in sorted(correct)]
    for cluster in _clusters(set(gold) - correct, set(predicted) - correct):
        pairs += _assign(*cluster)
    missed = sorted(set(gold) - {span for span, _ in pairs})
    spurious = sorted(set(predicted) - {span for _, span in pairs})
    return [*pairs, *((span, None) for span in missed), *((None, span) for span in spurious)]


def same_type(gold: Collection[Span], predicted: Collection[Span]) -> int:
    """The most pairs of one type that overlap, where identical spans are paired first: the scheme `type`."""
    correct = set(gold) & set(predicted)
    pairs = len(correct)
    for type_ in {span[2] for span in predicted}:
        sides = ({span for span in side if span[2] == type_} - correct for side in (gold, predicted))
        pairs += sum(len(_assign(*cluster)) for cluster in _clusters(*sides))
    return pairs


def _clusters(gold: Collection[Span], predicted: Collection[Span]) -> Iterator[tuple[list[Span], list[Span]]]:
    """Runs of spans that overlap in a chain and have both sides in them; each with its gold and its predicted."""
    reach = -1
    cluster: tuple[list[Span], list[Span]] = ([], [])
    for span, side in sorted([*((span, 0) for span in gold), *((span, 1) for span in predicted)]):
        if span[0] >= reach:
            if all(cluster):
                yield cluster
            cluster = ([], [])
        cluster[side].append(span)
        reach = max(reach, span[1])
    if all(cluster):
        yield cluster


def _assign(gold: Sequence[Span], predicted: Sequence[Span]) -> list[tuple[Span, Span]]:
    """The best pairs of a cluster: most of one span, then most pairs, then most of one type, then most overlap."""
    if len(gold) == len(predicted) == 1:
        return [(gold[0], predicted[0])]
    weights = _weights(gold, predicted)
    rows, columns = linear_sum_assignment(weights, maximize=True)
    return [(gold[i], predicted[j]) for i, j in zip(rows, columns, strict=True) if weights[i, j]]


def _weights(gold: Sequence[Span], predicted: Sequence[Span]) -> np.ndarray:
    """Worth of each pair: one step outweighs all that later steps can add up to in this cluster."""
    (gold_start, gold_end), (start, end) = (np.array([span[:2] for span in side]).T for side in (gold, predicted))
    overlap = np.minimum(gold_end[:, None], end) - np.maximum(gold_start[:, None], start)
    union = np.maximum(gold_end[:, None], end) - np.minimum(gold_start[:, None], start)
    same = np.array([span[2] for span in gold])[:, None] == np.array([span[2] for span in predicted])
    step = min(len(gold), len(predicted)) + 1
    return np.where(overlap > 0, step**3 * (overlap == union) + step**2 + step * same + overlap / union, 0.0)
