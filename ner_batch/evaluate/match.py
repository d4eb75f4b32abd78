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
    pairs: list[Pair] = [(span, span) for span in sorted(correct)]
    left_gold, left_predicted = sorted(set(gold) - correct), sorted(set(predicted) - correct)
    same_span = _same_span(left_gold, left_predicted)
    left_gold = _without(left_gold, [span for span, _ in same_span])
    left_predicted = _without(left_predicted, [span for _, span in same_span])
    overlapping = [pair for cluster in _clusters(left_gold, left_predicted) for pair in _assign(*cluster)]
    pairs += [*same_span, *overlapping]
    pairs += [(span, None) for span in _without(left_gold, [span for span, _ in overlapping])]
    pairs += [(None, span) for span in _without(left_predicted, [span for _, span in overlapping])]
    return pairs


def same_type(gold: Collection[Span], predicted: Collection[Span]) -> int:
    """The most pairs of one type that overlap, where identical spans are paired first: the scheme `type`."""
    correct = set(gold) & set(predicted)
    left_gold, left_predicted = _by_type(set(gold) - correct), _by_type(set(predicted) - correct)
    both = left_gold.keys() & left_predicted.keys()
    clusters = (cluster for type_ in both for cluster in _clusters(left_gold[type_], left_predicted[type_]))
    return len(correct) + sum(len(_assign(*cluster)) for cluster in clusters)


def _by_type(spans: Collection[Span]) -> dict[str, list[Span]]:
    by_type: dict[str, list[Span]] = defaultdict(list)
    for span in sorted(spans):
        by_type[span[2]].append(span)
    return by_type


def _same_span(gold: Sequence[Span], predicted: Sequence[Span]) -> list[tuple[Span, Span]]:
    unpaired: dict[tuple[int, int], list[Span]] = defaultdict(list)
    for span in reversed(gold):
        unpaired[span[:2]].append(span)
    return [(unpaired[span[:2]].pop(), span) for span in predicted if unpaired.get(span[:2])]


def _without(spans: Sequence[Span], paired: Collection[Span]) -> list[Span]:
    excluded = set(paired)
    return [span for span in spans if span not in excluded]


def _clusters(gold: Sequence[Span], predicted: Sequence[Span]) -> Iterator[tuple[list[Span], list[Span]]]:
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
    """The best pairs of a cluster: most pairs, then most of one type, then most overlap."""
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
    return np.where(overlap > 0, step * step + step * same + overlap / union, 0.0)
