"""The verification question: true claims are true, false ones false, and one token is read as a probability."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ner_batch import verify
from ner_batch.chat import ChatTokenizer
from ner_batch.data import Entity, Example, nearest
from ner_batch.task import Task

TASK = Task(name="t", labels={"PER": {"definition": "people"}, "ORG": {"definition": "firms"}})
ANNA = Example("1", "Anna joined Acme Ltd.", (Entity(0, 4, "PER", "Anna"), Entity(12, 20, "ORG", "Acme Ltd")))
BOB = Example("2", "Bob joined Initech.", (Entity(0, 3, "PER", "Bob"), Entity(11, 18, "ORG", "Initech")))
RAIN = Example("3", "It rained.", ())


@st.composite
def examples(draw):
    """A text of words or of Chinese, and entities on random spans of it."""
    pieces = draw(
        st.lists(st.sampled_from(["Anna", " ", "北京", "大学", ".", "x1", "👩‍👩‍👧", "\n"]), min_size=1, max_size=20)
    )
    text = "".join(pieces)
    spans = draw(st.lists(st.tuples(st.integers(0, len(text) - 1), st.integers(1, 6), st.sampled_from(TASK.names))))
    entities = {Entity(a, min(a + n, len(text)), kind, text[a : a + n]) for a, n, kind in spans}
    return Example("x", text, tuple(sorted(entities)))


@given(examples(), st.integers(0, 8), st.text(max_size=3))
def test_claims_are_what_they_say(example, count, seed):
    """Every claim is a real span; the true ones are gold, the false ones are not, by words and type."""
    made = verify.claims(example, TASK, count, seed)
    assert len(made) <= count
    gold = {(e.text, e.type) for e in example.entities}
    for claim in made:
        entity = claim.entity
        assert example.text[entity.start : entity.end] == entity.text
        assert entity.type in TASK.names
        assert claim.true == ((entity.text, entity.type) in gold)
        assert not claim.true or entity in example.entities
    assert made == verify.claims(example, TASK, count, seed)


def test_true_and_false_come_in_turn():
    """Two of each where there is enough of both; without entities all are false; one alone is either."""
    for seed in "abcdefgh":
        truth = [claim.true for claim in verify.claims(ANNA, TASK, 4, seed)]
        assert truth in ([True, False, True, False], [False, True, False, True])
    assert [claim.true for claim in verify.claims(RAIN, TASK, 2, "s")] == [False, False]
    alone = [verify.claims(ANNA, TASK, 1, str(seed))[0].true for seed in range(300)]
    assert 120 < sum(alone) < 180
    shown = [verify.demonstrations([replace(ANNA, id=str(i)), replace(BOB, id=f"b{i}")], TASK) for i in range(300)]
    assert all(120 < sum(claims[place].true for claims in shown) < 180 for place in (0, 1))


def test_false_claims_are_near_misses():
    """Moved edges and other types, not just any words."""
    made = {verify.corrupted(ANNA, TASK, random.Random(i)) for i in range(200)}
    assert Entity(0, 4, "ORG", "Anna") in made
    assert Entity(12, 16, "ORG", "Acme") in made
    assert any(e.text == "Anna joined" for e in made)
    assert all(e.start < 4 or e.end > 12 for e in made)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_prompts_share_their_beginning_with_extraction(random_model, language):
    """The system messages differ in the rule alone, and the question comes after the text."""
    from ner_batch.formats import json_

    task = TASK.model_copy(update={"language": language})
    asked = verify.messages(ANNA.text, ANNA.entities[0], task, [verify.Claim(BOB.text, BOB.entities[0], True)])
    extraction = json_.messages(ANNA.text, task.names, task, ())
    assert asked[0]["content"].splitlines()[:-1] == extraction[0]["content"].splitlines()[:-1]
    assert asked[-1]["content"].startswith(extraction[-1]["content"])
    assert [m["role"] for m in asked] == ["system", "user", "assistant", "user"]
    assert asked[2]["content"] == verify.answer(task, True)


def test_demonstrations_that_do_not_fit_are_dropped_from_the_front(random_model):
    """As in extraction; a question that does not fit at all is None."""
    chat = ChatTokenizer(AutoTokenizer.from_pretrained(random_model))
    shown = verify.demonstrations([BOB, RAIN, BOB], TASK)
    assert [claim.text for claim in shown] == [BOB.text, RAIN.text, BOB.text]
    entity = ANNA.entities[0]
    alone = verify.Questions(TASK, chat, 2048).prompt(ANNA.text, entity)
    one = verify.Questions(TASK, chat, 2048).prompt(ANNA.text, entity, shown[-1:])
    room = len(one) + verify.ANSWER_TOKENS
    assert verify.Questions(TASK, chat, room).prompt(ANNA.text, entity, shown) == one
    assert verify.Questions(TASK, chat, room - 1).prompt(ANNA.text, entity, shown) == alone
    assert verify.Questions(TASK, chat, len(alone)).prompt(ANNA.text, entity) is None


@given(st.integers(0, 6), st.integers(0, 8))
def test_the_nearest_stand_last(count, k):
    """As many as there are where there are fewer than asked for."""
    near = [RAIN] * (count - 1) + [ANNA] if count else []
    assert list(nearest(near, k)) == near[-k:] if k else not nearest(near, k)


def test_probability_of_yes():
    """The share of yes in yes and no, however unlikely both are; None where one is not told."""
    told = {1: math.log(0.3), 2: math.log(0.1), 3: math.log(0.6), 4: -2000.0, 5: -2001.0}
    assert verify.probability(told, (1, 2)) == pytest.approx(0.75)
    assert verify.probability(told, (4, 5)) == pytest.approx(1 / (1 + math.exp(-1)))
    assert verify.probability(told, (4, 1)) == pytest.approx(0.0)
    assert verify.probability(told, (1, 9)) is None
