"""Verification on a real engine: the probability is the model's own, the threshold decides, costs are counted."""

import asyncio
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from ner_batch import verify
from ner_batch.chat import load_tokenizer
from ner_batch.config import VerifyConfig
from ner_batch.data import Entity, Example
from ner_batch.extract.verifier import Verifier
from ner_batch.task import Task
from ner_batch.verify import Questions

pytestmark = pytest.mark.engine
TASK = Task(name="t", labels={"PER": {"definition": "people"}, "ORG": {"definition": "firms"}})
ANNA = Example("1", "Anna joined Acme.", (Entity(0, 4, "PER", "Anna"), Entity(12, 16, "ORG", "Acme")))
LONG = Example("2", "word " * 3000, (Entity(0, 4, "PER", "word"),))
NAMED = [replace(e, score=0.9) for e in LONG.entities]  # as `score: true` has left it


def judge(engine, questions, **config):
    """The verdicts about two texts, the second of which is too long to ask about."""
    verifier = Verifier(VerifyConfig(**config), None, engine, questions)
    found = [ANNA.entities, NAMED]
    return asyncio.run(verifier.judge([ANNA.text, LONG.text], found, [[ANNA], [ANNA]]))


def test_scores_are_the_probabilities_of_the_model(engine, tiny_model):
    """P(yes) of vLLM is P(yes) of transformers, to 1e-4, with and without demonstrations."""
    chat = load_tokenizer(tiny_model)
    questions = Questions(TASK, chat, 2048)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for k in (0, 1):
        shown = verify.demonstrations([ANNA][:k], TASK)
        anna, long = judge(engine, questions, threshold=0, k=k)
        yes, no = questions.tokens()
        for entity, judged in zip(ANNA.entities, anna.entities, strict=True):
            ids = questions.prompt(ANNA.text, entity, shown)
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, -1, [yes, no]]
            assert judged.score == pytest.approx(float(logits.softmax(0)[0]), abs=1e-4)
            assert judged.verified is True
        assert anna.completion_tokens == len(ANNA.entities)
        assert anna.prompt_tokens == sum(len(questions.prompt(ANNA.text, e, shown)) for e in ANNA.entities)
        assert long.entities == LONG.entities  # nobody could ask: it stays, unscored, whatever score it had
        assert (long.prompt_tokens, long.completion_tokens) == (0, 0)


def test_the_threshold_drops_or_marks(engine, tiny_model):
    """Below it an entity is dropped, or kept with `verified` false; the score is there either way."""
    questions = Questions(TASK, load_tokenizer(tiny_model), 2048)
    scores = [e.score for e in judge(engine, questions, threshold=0)[0].entities]
    between = sum(scores) / 2
    assert scores[0] != scores[1]
    dropped = judge(engine, questions, threshold=between)[0].entities
    kept = judge(engine, questions, threshold=between, rejected="keep")[0].entities
    assert [e.score for e in dropped] == [s for s in scores if s >= between]
    assert [e.verified for e in kept] == [s >= between for s in scores]
