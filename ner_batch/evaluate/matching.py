"""Gold and predicted spans of one text, paired so that the pairs explain as much as can be explained.

Entities may nest, cross and share a span, so who belongs to whom is a choice. It is made in this order, and within each
step it is the best there is, not the first that comes:

1. the same span and type: right is right;
2. the same span, another type;
3. among the rest, spans that overlap: as many pairs as possible; of these choices one with the most pairs of one type;
   of these one with the largest overlap (intersection over union, summed). This is an assignment problem, solved for
   each cluster of overlapping spans by `scipy.optimize.linear_sum_assignment`.

So the pairs maximise what SemEval-2013 task 9 counts as strict, exact and partial: an exact pair is worth as much as
the two partial ones it may stand in the way of. Its fourth scheme, type, has another optimum: :func:`same_type`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

Span = tuple[int, int, str]
"""(start, end, type)."""
Pair = tuple[Span | None, Span | None]
"""(gold, predicted); None for what has no partner."""


def align(gold: Collection[Span], predicted: Collection[Span]) -> list[Pair]:
    """All spans of both sides, each once, in pairs; the same span and type twice on one side is one."""
    right = set(gold) & set(predicted)
    pairs: list[Pair] = [(span, span) for span in sorted(right)]
    left, found = sorted(set(gold) - right), sorted(set(predicted) - right)
    same = _same_span(left, found)
    left, found = _without(left, [g for g, _ in same]), _without(found, [p for _, p in same])
    near = [pair for cluster in _clusters(left, found) for pair in _assigned(*cluster)]
    pairs += [*same, *near]
    pairs += [(span, None) for span in _without(left, [g for g, _ in near])]
    pairs += [(None, span) for span in _without(found, [p for _, p in near])]
    return pairs


def same_type(gold: Collection[Span], predicted: Collection[Span]) -> int:
    """The most pairs of one type that overlap, where identical spans are paired first: the scheme `type`."""
    right = set(gold) & set(predicted)
    left, found = _by_type(set(gold) - right), _by_type(set(predicted) - right)
    clusters = (c for t in left.keys() & found.keys() for c in _clusters(left[t], found[t]))
    return len(right) + sum(len(_assigned(*cluster)) for cluster in clusters)


def _by_type(spans: Collection[Span]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = defaultdict(list)
    for span in sorted(spans):
        found[span[2]].append(span)
    return found


def _same_span(gold: Sequence[Span], predicted: Sequence[Span]) -> list[tuple[Span, Span]]:
    waiting: dict[tuple[int, int], list[Span]] = defaultdict(list)
    for span in reversed(gold):
        waiting[span[:2]].append(span)
    return [(waiting[span[:2]].pop(), span) for span in predicted if waiting.get(span[:2])]


def _without(spans: Sequence[Span], taken: Collection[Span]) -> list[Span]:
    gone = set(taken)
    return [span for span in spans if span not in gone]


def _clusters(gold: Sequence[Span], predicted: Sequence[Span]) -> Iterator[tuple[list[Span], list[Span]]]:
    """Runs of spans that overlap in a chain and have both sides in them; each with its gold and its predicted."""
    reach, cluster = -1, ([], [])  # type: tuple[int, tuple[list[Span], list[Span]]]
    for span, side in sorted([*((g, 0) for g in gold), *((p, 1) for p in predicted)]):
        if span[0] >= reach:
            if all(cluster):
                yield cluster
            cluster = ([], [])
        cluster[side].append(span)
        reach = max(reach, span[1])
    if all(cluster):
        yield cluster


def _assigned(gold: Sequence[Span], predicted: Sequence[Span]) -> list[tuple[Span, Span]]:
    """The best pairs of a cluster: most pairs, then most of one type, then most overlap."""
    if len(gold) == len(predicted) == 1:
        return [(gold[0], predicted[0])]
    weights = _weights(gold, predicted)
    rows, columns = linear_sum_assignment(weights, maximize=True)
    return [(gold[i], predicted[j]) for i, j in zip(rows, columns, strict=True) if weights[i, j]]


def _weights(gold: Sequence[Span], predicted: Sequence[Span]) -> np.ndarray:
    """Worth of each pair: one step outweighs all that later steps can add up to in this cluster."""
    (start, end), (from_, to) = (np.array([span[:2] for span in side]).T for side in (gold, predicted))
    shared = np.minimum(end[:, None], to) - np.maximum(start[:, None], from_)
    union = np.maximum(end[:, None], to) - np.minimum(start[:, None], from_)
    same = np.array([g[2] for g in gold])[:, None] == np.array([p[2] for p in predicted])
    step = min(len(gold), len(predicted)) + 1
    return np.where(shared > 0, step * step + step * same + shared / union, 0.0)
