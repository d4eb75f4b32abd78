"""Verification on a real engine: the probability is the model's own, the threshold decides, costs are counted."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from ner_batch import retrieval
from ner_batch.data import Entity, Example
from ner_batch.extraction.reader import Reader
from ner_batch.extraction.recipe import TaskRecipe, make_recipe
from ner_batch.extraction.settings import RecipeConfig
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.task import Task
from ner_batch.text.windows import Window
from ner_batch.train.samples import ExampleSet, draw_epoch
from ner_batch.train.settings import AugmentationConfig
from ner_batch.verification import pool as mention
from ner_batch.verification.examples import verification_examples
from ner_batch.verification.pool import Mention, Pool
from ner_batch.verification.question import Questions
from ner_batch.verification.settings import VerifyConfig
from ner_batch.verification.verifier import Verifier

pytestmark = pytest.mark.engine
TASK = Task(name="t", labels={"PER": {"definition": "people"}, "ORG": {"definition": "firms"}})
ANNA = Example("1", "Anna joined Acme.", (Entity(0, 4, "PER", "Anna"), Entity(12, 16, "ORG", "Acme")))
BOB = Example("3", "Bob joined Acme.", (Entity(0, 3, "PER", "Bob"), Entity(11, 15, "ORG", "Acme")))
POOL = Pool([ANNA, BOB])
LONG = Example("2", "word " * 3000, (Entity(0, 4, "PER", "word"),))
NAMED = [replace(e, score=0.9) for e in LONG.entities]  # as `score: true` has left it


def judge(engine, questions, **config):
    """The verdicts about two texts, the second of which is too long to ask about."""
    verifier = Verifier(VerifyConfig(**config), None, engine, questions, POOL)
    return verifier.judge([ANNA.text, LONG.text], [ANNA.entities, NAMED])


def test_scores_are_the_probabilities_of_the_model(engine, tiny_model):
    """P(yes) of vLLM is P(yes) of transformers, to 1e-4, with and without demonstrations."""
    chat = load_tokenizer(tiny_model)
    questions = Questions(TASK, chat, 2048)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for k in (0, 2):
        near = POOL.nearest([Mention(ANNA.text, entity) for entity in ANNA.entities], k)
        assert [[claim.text for claim in shown] for shown in near] == [[BOB.text] * k] * 2
        anna, long = judge(engine, questions, threshold=0, k=k)
        yes, no = questions.tokens()
        for entity, judged, shown in zip(ANNA.entities, anna.entities, near, strict=True):
            ids = questions.prompt(ANNA.text, entity, shown)
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, -1, [*yes, *no]]
            assert judged.score == pytest.approx(float(logits.softmax(0)[: len(yes)].sum()), abs=1e-4)
            assert judged.verified is True
        assert sum(c.completion_tokens for c in anna.completions) == len(ANNA.entities)
        assert sum(c.prompt_tokens for c in anna.completions) == sum(
            len(questions.prompt(ANNA.text, e, shown)) for e, shown in zip(ANNA.entities, near, strict=True)
        )
        assert long.entities == LONG.entities  # nobody could ask: it stays, unscored, whatever score it had
        assert long.completions == ()


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


def test_demonstrations_without_retrieval(engine, tiny_model, tmp_path):
    """`verify.k` needs the index's examples, not its search: prompts of extraction stay bare, questions do not."""
    retrieval.build([ANNA, BOB], "random", tmp_path / "index")
    chat = load_tokenizer(tiny_model)
    recipe = TaskRecipe(TASK, "json", index=str(tmp_path / "index"), verify=VerifyConfig(threshold=0, k=2))
    reader = Reader(recipe, engine, chat, 2048)
    bare = Reader(replace(recipe, index=None, verify=None), engine, chat, 2048)
    ((reading,),) = reader.read([Window(0, 0, ANNA.text)])
    ((alone,),) = bare.read([Window(0, 0, ANNA.text)])
    (verdict,) = reader.verifier.judge([ANNA.text], [alone.parsed.entities])
    assert reading.prompt_tokens - sum(c.prompt_tokens for c in verdict.completions) == alone.prompt_tokens
    with_them = reader.verifier.judge([ANNA.text], [ANNA.entities])
    assert with_them == judge(engine, Questions(TASK, chat, 2048), threshold=0, k=2)[:1]
    alone = Reader(replace(recipe, index=None), engine, chat, 2048)
    without = alone.verifier.judge([ANNA.text], [ANNA.entities])
    assert with_them[0].completions[0].prompt_tokens > without[0].completions[0].prompt_tokens


def test_training_shows_what_inference_shows(engine, tiny_model):
    """The prompts of training's questions are the verifier's, token by token."""
    chat = load_tokenizer(tiny_model)
    builder = PromptBuilder(formats.get("json"), TASK, chat, 2048)
    source = ExampleSet((ANNA, BOB))
    plain, _ = draw_epoch(source, builder, {2: 1}, AugmentationConfig(), "0")
    made, _ = draw_epoch(source, builder, {2: 1}, AugmentationConfig(verification=2.0), "0")
    verifier = Verifier(VerifyConfig(k=2), None, engine, Questions(TASK, chat, 2048), Pool(source.examples))
    asked = [c for i, x in enumerate((ANNA, BOB)) for c in verification_examples(x, TASK.names, 2, f"0-{i}")]
    prompts = verifier.prompts([Mention(claim.text, claim.entity) for claim in asked])
    assert [tuple(ids) for ids in prompts] == [sample.prompt for sample in made[len(plain) :]]


def test_how_demonstrations_are_chosen_is_part_of_the_fingerprint(tiny_model, tmp_path, monkeypatch):
    """Another scheme or other examples make another run; without demonstrations neither does."""
    retrieval.build([ANNA, BOB], "random", tmp_path / "one")
    retrieval.build([BOB], "random", tmp_path / "other")
    task = tmp_path / "task.yaml"
    task.write_text("name: t\nlabels: {PER: {}, ORG: {}}\n")

    def told(index, k):
        near = {"index": str(tmp_path / index), "k": 0}
        engine = {"model": tiny_model, "max_model_len": 2048}
        return make_recipe(RecipeConfig(task=str(task), retrieval=near, verify={"k": k}, engine=engine)).fingerprint

    few, zero = told("one", 2), told("one", 0)
    assert few != told("other", 2)
    assert zero == told("other", 0)
    monkeypatch.setattr(mention, "SCHEME", "another")
    assert told("one", 2) != few
    assert told("one", 0) == zero
