"""Strict precision, recall and F1."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ner_batch.data import Entity
from ner_batch.evaluate.metrics import Counts, Scores, score

TYPES = ("LOC", "ORG", "PER")


def entity(start: int, end: int, type_: str) -> Entity:
    return Entity(start, end, type_, "x" * (end - start))


entities = st.lists(
    st.builds(
        lambda start, size, type_: entity(start, start + size, type_),
        st.integers(0, 6),
        st.integers(1, 3),
        st.sampled_from(TYPES),
    ),
    max_size=6,
)
texts = st.lists(st.tuples(entities, entities), max_size=5)


def test_counts_by_hand() -> None:
    """A hit needs start, end and type; a wrong type costs precision in one type and recall in the other."""
    gold = [[entity(0, 2, "PER"), entity(5, 9, "LOC")], [entity(1, 3, "ORG")], []]
    predicted = [[entity(0, 2, "PER"), entity(5, 8, "LOC")], [entity(1, 3, "LOC")], [entity(0, 1, "PER")]]
    scores = score(gold, predicted)
    assert scores.per_type == {"LOC": Counts(0, 2, 1), "ORG": Counts(0, 0, 1), "PER": Counts(1, 2, 1)}
    assert scores.micro == Counts(1, 4, 3)
    assert scores.micro.precision == 1 / 4
    assert scores.micro.recall == 1 / 3
    assert scores.micro.f1 == pytest.approx(2 / 7)


def test_division_by_zero_is_zero() -> None:
    """Nothing predicted, nothing gold, or nothing at all scores 0.0, never an error and never 1."""
    assert (Counts().precision, Counts().recall, Counts().f1) == (0.0, 0.0, 0.0)
    assert score([], []).micro.f1 == 0.0
    assert score([[]], [[entity(0, 1, "PER")]]).micro.recall == 0.0
    assert score([[entity(0, 1, "PER")]], [[]]).micro.precision == 0.0


def test_duplicates_count_once() -> None:
    """Score, text and repetition of an entity do not matter: span and type do."""
    twice = [Entity(0, 2, "PER", "ab", score=0.3), Entity(0, 2, "PER", "ab", score=0.9)]
    assert score([[entity(0, 2, "PER")]], [twice]).micro == Counts(1, 1, 1)


def test_nested_entities_are_counted_apart() -> None:
    """Overlap is no conflict: every span and type stands for itself."""
    nested = [entity(0, 6, "ORG"), entity(0, 3, "LOC"), entity(0, 3, "ORG")]
    assert score([nested], [nested[:2]]).micro == Counts(2, 2, 3)


def test_uneven_input_is_a_bug() -> None:
    """Gold and predictions of different lengths are never cut to the shorter."""
    with pytest.raises(ValueError, match="zip"):
        score([[], []], [[]])


@settings(max_examples=200, deadline=None)
@given(texts, st.integers(0, 5))
def test_scores_add_up_over_shards(pairs: list[tuple[list[Entity], list[Entity]]], cut: int) -> None:
    """Scoring two shards and adding gives the scores of the whole, wherever it is cut."""

    def of(part: list[tuple[list[Entity], list[Entity]]]) -> Scores:
        return score([g for g, _ in part], [p for _, p in part])

    assert of(pairs[:cut]) + of(pairs[cut:]) == of(pairs)


@settings(max_examples=200, deadline=None)
@given(texts)
def test_bounds_and_symmetry(pairs: list[tuple[list[Entity], list[Entity]]]) -> None:
    """Figures lie in [0, 1], F1 between P and R; swapping gold and predicted swaps P and R; a perfect answer scores 1."""
    micro = score([g for g, _ in pairs], [p for _, p in pairs]).micro
    swapped = score([p for _, p in pairs], [g for g, _ in pairs]).micro
    assert (micro.precision, micro.recall, micro.f1) == (swapped.recall, swapped.precision, swapped.f1)
    assert 0.0 <= min(micro.precision, micro.recall) <= micro.f1 + 1e-12 <= max(micro.precision, micro.recall) + 2e-12
    perfect = score([g for g, _ in pairs], [g for g, _ in pairs]).micro
    assert perfect.f1 == (1.0 if perfect.gold else 0.0)


def random_flat(rng: random.Random, length: int) -> list[Entity]:
    """Non-overlapping entities of a text of ``length`` tokens."""
    found, position = [], 0
    while position < length:
        size = rng.randint(1, 3)
        if rng.random() < 0.4 and position + size <= length:
            found.append(entity(position, position + size, rng.choice(TYPES)))
        position += size
    return found


def iob2(entities: list[Entity], length: int) -> list[str]:
    tags = ["O"] * length
    for e in entities:
        tags[e.start : e.end] = [f"B-{e.type}", *[f"I-{e.type}"] * (e.end - e.start - 1)]
    return tags


def test_agrees_with_seqeval() -> None:
    """On 1,000 random flat texts the figures, micro and per type, are those of seqeval in strict IOB2 mode."""
    seqeval = pytest.importorskip("seqeval.metrics.v1")
    from seqeval.scheme import IOB2

    rng = random.Random(0)
    lengths = [rng.randint(1, 25) for _ in range(1000)]
    gold = [random_flat(rng, n) for n in lengths]
    predicted = [
        [e for e in g if rng.random() < 0.7] if rng.random() < 0.6 else random_flat(rng, n)
        for g, n in zip(gold, lengths, strict=True)
    ]
    tags = [[iob2(e, n) for e, n in zip(side, lengths, strict=True)] for side in (gold, predicted)]
    scores = score(gold, predicted)
    micro = seqeval.precision_recall_fscore_support(*tags, average="micro", scheme=IOB2, zero_division=0)
    assert (scores.micro.precision, scores.micro.recall, scores.micro.f1) == pytest.approx(micro[:3])
    per_type = zip(
        *seqeval.precision_recall_fscore_support(*tags, average=None, scheme=IOB2, zero_division=0), strict=True
    )
    for counts, theirs in zip(scores.per_type.values(), per_type, strict=True):
        assert (counts.precision, counts.recall, counts.f1, counts.gold) == pytest.approx(theirs)
