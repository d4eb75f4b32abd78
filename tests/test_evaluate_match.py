"""Pairing of gold and predicted spans: optimal, also where they nest and cross; agreement with nervaluate on flat data."""

import random
from collections import Counter
from itertools import combinations, permutations

import pytest
from evaluations import TYPES, spans
from hypothesis import given, settings
from hypothesis import strategies as st

from ner_batch.evaluate.match import align, outcome, same_type

few = st.lists(spans.filter(lambda s: len(s) <= 4), min_size=2, max_size=2)


def overlap(g, p):
    return max(0, min(g[1], p[1]) - max(g[0], p[0]))


def matchings(gold, predicted):
    """Every way to pair overlapping spans."""
    for size in range(min(len(gold), len(predicted)) + 1):
        for left in combinations(gold, size):
            for right in permutations(predicted, size):
                pairs = list(zip(left, right, strict=True))
                if all(overlap(*pair) for pair in pairs):
                    yield pairs


def counted(pairs):
    return Counter(outcome(pair) for pair in pairs)


def partial_score(pairs):
    return sum(1.0 if g[:2] == p[:2] else 0.5 for g, p in pairs)


def test_by_hand():
    """One pair of each kind."""
    gold = [(0, 2, "PER"), (5, 9, "LOC"), (10, 14, "ORG"), (20, 22, "PER"), (30, 35, "LOC")]
    predicted = [(0, 2, "PER"), (5, 9, "ORG"), (11, 14, "ORG"), (21, 23, "LOC"), (40, 41, "PER")]
    assert counted(align(gold, predicted)) == {
        "correct": 1, "type": 1, "boundary": 1, "type and boundary": 1, "missed": 1, "spurious": 1,
    }  # fmt: skip


def test_greedy_would_take_the_wrong_one():
    """The first prediction overlaps both gold spans, the second only one: both find a partner."""
    gold = [(0, 4, "LOC"), (5, 9, "LOC")]
    predicted = [(3, 9, "LOC"), (6, 8, "LOC")]
    assert counted(align(gold, predicted)) == {"boundary": 2}
    assert same_type(gold, predicted) == 2


def test_nested_gold_keeps_its_partners():
    """Inner and outer entity each get their own, whatever the order."""
    gold = [(0, 10, "ORG"), (0, 4, "LOC")]
    assert counted(align(gold, list(reversed(gold)))) == {"correct": 2}
    assert set(align(gold, [(0, 9, "ORG"), (0, 5, "LOC")])) == {(gold[0], (0, 9, "ORG")), (gold[1], (0, 5, "LOC"))}


@settings(max_examples=300, deadline=None)
@given(few)
def test_no_other_pairing_is_better(sides):
    """Against every pairing there is: strict, exact and partial are the best possible; so is the number of pairs, and
    then of pairs of one type, among pairings that keep what has the same span; so is `type` among those that keep
    what is identical."""
    gold, predicted = (sorted(set(side)) for side in sides)
    pairs = [(g, p) for g, p in align(gold, predicted) if g and p]
    every = list(matchings(gold, predicted))
    same = [sum(g[:2] == p[:2] for g, p in m) for m in every]
    assert sum(g == p for g, p in pairs) == max(sum(g == p for g, p in m) for m in every)
    assert sum(g[:2] == p[:2] for g, p in pairs) == max(same)
    assert partial_score(pairs) == max(map(partial_score, every))
    right = {(g, g) for g in set(gold) & set(predicted)}
    keep = [m for m in every if right <= set(m)]
    assert same_type(gold, predicted) == max(sum(g[2] == p[2] for g, p in m) for m in keep)
    exact = {(g, p) for g, p in pairs if g[:2] == p[:2]}
    rest = [m for m in every if exact <= set(m)]
    assert len(pairs) == max(map(len, rest))
    typed = [sum(g[2] == p[2] for g, p in m) for m in rest if len(m) == len(pairs)]
    assert sum(g[2] == p[2] for g, p in pairs) == max(typed)


@settings(max_examples=300, deadline=None)
@given(spans, spans, st.randoms())
def test_each_span_is_in_one_pair_and_order_does_not_matter(gold, predicted, rng):
    """Nothing is lost, nothing is counted twice, and a shuffled input gives the same pairs."""
    pairs = align(gold, predicted)
    assert sorted(g for g, _ in pairs if g) == sorted(set(gold))
    assert sorted(p for _, p in pairs if p) == sorted(set(predicted))
    assert all(overlap(g, p) for g, p in pairs if g and p)
    rng.shuffle(gold)
    rng.shuffle(predicted)
    assert align(gold, predicted) == pairs


def random_flat(rng, length):
    """Non-overlapping spans of a text of ``length`` tokens."""
    found, position = [], 0
    while position < length:
        size = rng.randint(1, 4)
        if rng.random() < 0.5 and position + size <= length:
            found.append((position, position + size, rng.choice(TYPES)))
        position += size
    return found


def test_agrees_with_nervaluate():
    """On 1,000 random flat texts strict, exact and partial are nervaluate's, in every count. Its `ent_type` is greedy:
    the first of two that overlap an entity takes it, whatever its type; ours is never lower, and equal in most texts."""
    nervaluate = pytest.importorskip("nervaluate")
    rng = random.Random(0)
    same = 0
    for _ in range(1000):
        gold, predicted = (random_flat(rng, 25) for _ in range(2))
        sides = [[[{"label": t, "start": s, "end": e - 1} for s, e, t in side]] for side in (gold, predicted)]
        theirs = nervaluate.Evaluator(*sides, tags=list(TYPES), loader="dict").evaluate()["overall"]
        kinds = counted(align(gold, predicted))
        near = kinds["boundary"] + kinds["type and boundary"]
        alone = kinds["missed"], kinds["spurious"]
        ours = {
            "strict": (kinds["correct"], kinds["type"] + near, 0, *alone),
            "exact": (kinds["correct"] + kinds["type"], near, 0, *alone),
            "partial": (kinds["correct"] + kinds["type"], 0, near, *alone),
        }
        for scheme, counts in ours.items():
            r = theirs[scheme]
            assert counts == (r.correct, r.incorrect, r.partial, r.missed, r.spurious), scheme
        typed = same_type(gold, predicted)
        assert typed >= theirs["ent_type"].correct
        same += typed == theirs["ent_type"].correct
    assert same >= 900
