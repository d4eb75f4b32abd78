"""The verification question: what it says, that it fits, and that one token is read as a probability."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ner_batch.data import Entity, Example
from ner_batch.prompts import formats
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.retrieval import nearest
from ner_batch.task import Task
from ner_batch.verification import question as verify
from ner_batch.verification.examples import VerificationExample

TASK = Task(name="t", labels={"PER": {"definition": "people"}, "ORG": {"definition": "firms"}})
ANNA = Example("1", "Anna joined Acme Ltd.", (Entity(0, 4, "PER", "Anna"), Entity(12, 20, "ORG", "Acme Ltd")))
BOB = Example("2", "Bob joined Initech.", (Entity(0, 3, "PER", "Bob"), Entity(11, 18, "ORG", "Initech")))
RAIN = Example("3", "It rained.", ())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_question_names_and_defines_the_type_behind_the_text(language):
    """Questions about one text share their beginning with each other; a label without a definition has none."""
    task = TASK.model_copy(update={"language": language})
    asked = verify.messages(ANNA.text, ANNA.entities[0], task, [VerificationExample(BOB.text, BOB.entities[0], True)])
    assert [m["role"] for m in asked] == ["system", "user", "assistant", "user"]
    assert asked[2]["content"] == verify.answer(task, True)
    turn = asked[-1]["content"]
    assert turn.startswith(formats.get("json").messages(ANNA.text, task.names, task, ())[-1]["content"] + "\n")
    assert all(turn.rpartition("\n")[2].count(word) == 1 for word in ("Anna", "PER", "people"))
    bare = Task(name="t", language=language, labels={"PER": {}})
    assert not {"(", "（"} & set(verify.messages(ANNA.text, ANNA.entities[0], bare)[-1]["content"])


@pytest.mark.parametrize(("language", "words"), [("en", ("Yes", "yes")), ("zh", ("是", "是的"))])
def test_all_ways_to_say_yes_count(random_model, language, words):
    """What a model of instructions says, and what an adapter was taught; no token says both."""
    chat = ChatTokenizer(AutoTokenizer.from_pretrained(random_model))
    yes, no = verify.Questions(TASK.model_copy(update={"language": language}), chat, 2048).tokens()
    assert {chat.encode_answer(word)[0] for word in words} <= set(yes)
    assert not set(yes) & set(no)


def test_demonstrations_that_do_not_fit_are_dropped_from_the_front(random_model):
    """As in extraction; a question that does not fit at all is None."""
    chat = ChatTokenizer(AutoTokenizer.from_pretrained(random_model))
    shown = [VerificationExample(BOB.text, entity, True) for entity in BOB.entities]
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
    assert verify.probability(told, ((1,), (2,))) == pytest.approx(0.75)
    assert verify.probability(told, ((1, 3), (2,))) == pytest.approx(0.9)
    assert verify.probability(told, ((4,), (5,))) == pytest.approx(1 / (1 + math.exp(-1)))
    assert verify.probability(told, ((4,), (1, 2))) == pytest.approx(0.0)
    assert verify.probability(told, ((1,), (2, 9))) is None
