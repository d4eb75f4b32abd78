"""Claims about gold: true ones are true, false ones false and near the truth."""

import random

from hypothesis import given
from hypothesis import strategies as st

from ner_batch.data import Entity, Example
from ner_batch.verification.examples import hard_negative, verification_examples

NAMES = ("PER", "ORG")
ANNA = Example("1", "Anna joined Acme Ltd.", (Entity(0, 4, "PER", "Anna"), Entity(12, 20, "ORG", "Acme Ltd")))
RAIN = Example("3", "It rained.", ())


@st.composite
def examples(draw):
    """A text of words or of Chinese, and entities on random spans of it."""
    pieces = draw(
        st.lists(st.sampled_from(["Anna", " ", "北京", "大学", ".", "x1", "👩‍👩‍👧", "\n"]), min_size=1, max_size=20)
    )
    text = "".join(pieces)
    spans = draw(st.lists(st.tuples(st.integers(0, len(text) - 1), st.integers(1, 6), st.sampled_from(NAMES))))
    entities = {Entity(a, min(a + n, len(text)), kind, text[a : a + n]) for a, n, kind in spans}
    return Example("x", text, tuple(sorted(entities)))


@given(examples(), st.integers(0, 8), st.text(max_size=3))
def test_claims_are_what_they_say(example, count, seed):
    """Every claim is a real span; the true ones are gold, the false ones are not, by words and type."""
    made = verification_examples(example, NAMES, count, seed)
    assert len(made) <= count
    gold = {(e.text, e.type) for e in example.entities}
    for claim in made:
        entity = claim.entity
        assert example.text[entity.start : entity.end] == entity.text
        assert entity.type in NAMES
        assert claim.is_true == ((entity.text, entity.type) in gold)
        assert not claim.is_true or entity in example.entities
    assert made == verification_examples(example, NAMES, count, seed)


def test_true_and_false_come_in_turn():
    """Two of each where there is enough of both; without entities all are false; one alone is either."""
    for seed in "abcdefgh":
        truth = [claim.is_true for claim in verification_examples(ANNA, NAMES, 4, seed)]
        assert truth in ([True, False, True, False], [False, True, False, True])
    assert [claim.is_true for claim in verification_examples(RAIN, NAMES, 2, "s")] == [False, False]
    alone = [verification_examples(ANNA, NAMES, 1, str(seed))[0].is_true for seed in range(300)]
    assert 120 < sum(alone) < 180


def test_false_claims_are_near_misses():
    """Moved edges and other types, not just any words."""
    made = {hard_negative(ANNA, NAMES, random.Random(i)) for i in range(200)}
    assert Entity(0, 4, "ORG", "Anna") in made
    assert Entity(12, 16, "ORG", "Acme") in made
    assert any(e.text == "Anna joined" for e in made)
    assert all(e.start < 4 or e.end > 12 for e in made)
