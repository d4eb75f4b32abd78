"""Scores of answers under a grammar: the model's own probabilities, read once more without it."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from random_model import save_random_model
from tiny import FILES, gold

from ner_batch import adapter
from ner_batch.adapter import Calibration
from ner_batch.data import Completion, Message, clean
from ner_batch.engine.engine import Engine, Request
from ner_batch.engine.settings import EngineConfig
from ner_batch.extraction import confidence
from ner_batch.extraction.predictor import Predictor
from ner_batch.extraction.recipe import Recipe, TaskRecipe, make_recipe, rereading
from ner_batch.extraction.settings import RecipeConfig, WindowsConfig
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.task import load_task

ADAPTER = str(FILES / "adapter")
TASK = load_task(str(FILES / "task.yaml"))


def test_an_answer_that_was_not_read_again_has_no_log_probabilities():
    """Rejected, or read without them: masked ones must not stand in. Read, the places are the answer's own."""
    masked = Completion("ab", "stop", 3, 2, None, (7, 8), ({7: 0.0}, {8: 0.0}))
    assert confidence.reread(masked, Completion("", "error", 5, 0, "too long")).logprobs == ()
    read = Completion("", "length", 5, 1, None, (9,), (), (None, -9.0, -9.0, -0.5, -1.5))
    assert confidence.reread(masked, read).logprobs == ({7: -0.5}, {8: -1.5})
    assert confidence.reread(replace(masked, token_ids=(), logprobs=()), read).logprobs == ()


def config(model, **changes):
    """A small in-process engine."""
    small = {"max_model_len": 1024, "max_num_seqs": 16, "enforce_eager": True, "cpu_kv_cache_gib": 1}
    return EngineConfig(model=model, dtype="float32", max_lora_rank=32, **(small | changes))


@pytest.fixture(scope="module")
def texts():
    """Short ones of the demo's dev split."""
    return [clean(x.text) for x in gold("dev") if len(x.text) < 100][:24]


def extractor(model, start_engine=Engine, **changes):
    """The shipped adapter with scores; prompts of some 200 tokens are computed in pieces of 64."""
    recipe = TaskRecipe(
        TASK, **{"format": "json", "adapter": ADAPTER, "decoding": "constrained", "score": True} | changes
    )
    settings = rereading(config(model), [adapter.load(ADAPTER)]) | {"long_prefill_token_threshold": 64}
    return Predictor(Recipe(config(model, extra=settings), 128, (recipe,)), start_engine=start_engine)


@pytest.fixture(scope="module")
def replica(tiny_model):
    """One of them, with its engine."""
    running = extractor(tiny_model)
    yield running
    running.close()


@pytest.fixture(scope="module")
def theirs(tiny_model):
    """The log-probabilities that transformers gives each token of an answer: ``theirs(prompt, answer)``."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), ADAPTER)

    def read(prompt, answer):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1)[range(len(answer)), list(answer)].tolist()

    return read


def request(replica, text, grammar):
    """What the replica's reader asks about a text, with masked log-probabilities where there is a grammar."""
    reader = replica.readers[0]
    prompt = reader.builder.build(text, reader.groups[0])
    rules = reader.format.grammar(text, reader.groups[0], TASK) if grammar else None
    return Request(prompt.token_ids, prompt.max_tokens, ADAPTER, rules, logprobs=())


def read_again(request, completion):
    """Prompt and answer as a prompt."""
    return Request([*request.token_ids, *completion.token_ids], 1, request.adapter, prompt_logprobs=True)


def answered(replica, texts, grammar):
    """Requests, their answers, and the same read again."""
    asked = [request(replica, text, grammar) for text in texts]
    said = replica.engine.generate(asked)
    again = [read_again(r, c) for r, c in zip(asked, said, strict=True)]
    read = replica.engine.generate(again)
    return asked, said, [confidence.reread(c, x) for c, x in zip(said, read, strict=True)]


def chosen(completion):
    """The log-probabilities of an answer's own tokens."""
    return [found[token] for found, token in zip(completion.logprobs, completion.token_ids, strict=True)]


@pytest.mark.engine
def test_free_answers_read_again_have_the_log_probabilities_they_were_decoded_with(replica, texts):
    """So reading again is measuring the same thing: the adapter's, at the right places, whatever the prefix cache has."""
    _, said, read = answered(replica, texts, grammar=False)
    for decoded, again in zip(said, read, strict=True):
        assert chosen(again) == pytest.approx(chosen(decoded), abs=1e-3)


@pytest.mark.engine
def test_answers_under_a_grammar_have_the_models_own_log_probabilities(replica, texts, theirs):
    """Those of transformers without a grammar, never above the masked ones, and below them where the mask forbade."""
    asked, said, read = answered(replica, texts, grammar=True)
    gaps = []
    for r, masked, again in zip(asked, said, read, strict=True):
        assert chosen(again) == pytest.approx(theirs(r.token_ids, masked.token_ids), abs=1e-3)
        gaps += [a - b for a, b in zip(chosen(masked), chosen(again), strict=True)]
    assert min(gaps) > -1e-3
    assert max(gaps) > 0.5


@pytest.mark.engine
def test_scores_under_a_grammar(replica, texts, theirs):
    """Every entity's is the product of transformers' probabilities over its naming."""
    reader = replica.readers[0]
    predictions = replica.predict(texts)
    asked = [request(replica, text, grammar=True) for text in texts]
    said = replica.engine.generate(asked)
    seen = 0
    for text, r, completion, prediction in zip(texts, asked, said, predictions, strict=True):
        named = reader.format.locate_mentions(completion.text, text, reader.groups[0], TASK)
        own = tuple(
            {t: p} for t, p in zip(completion.token_ids, theirs(r.token_ids, completion.token_ids), strict=True)
        )
        pieces = reader.builder.chat.pieces(r.token_ids, completion.token_ids)
        wanted = confidence.scored(prediction.entities, named, replace(completion, logprobs=own), pieces)
        assert [e.score for e in prediction.entities] == pytest.approx([e.score for e in wanted], abs=1e-3)
        assert all(e.score is not None for e in prediction.entities)
        seen += len(prediction.entities)
    assert seen > len(texts) / 2


@pytest.mark.engine
def test_what_reading_again_costs_is_in_the_row(replica, texts):
    """Prompt and answer once more, and the one token that vLLM must add, for every answer that names something."""
    scored = replica.predict(texts)
    plain = extractor(replica.recipe.engine.model, lambda *_: replica.engine, score=False).predict(texts)
    assert {e.score for p in plain for e in p.entities} == {None}
    for one, bare in zip(scored, plain, strict=True):
        assert [(e.start, e.end, e.type) for e in one.entities] == [(e.start, e.end, e.type) for e in bare.entities]
        again = bool(bare.entities)
        assert one.prompt_tokens == bare.prompt_tokens + again * (bare.prompt_tokens + bare.completion_tokens)
        assert one.completion_tokens == bare.completion_tokens + again
    assert any(p.entities for p in plain)
    assert not all(p.entities for p in plain)


@pytest.mark.engine
def test_a_calibration_holds_for_answers_under_a_grammar(replica, texts):
    """The adapter's sigmoid over the very scores it would have without."""
    bare = replica.predict(texts)
    calibration = Calibration(slope=0.5, offset=-1.0, entities=40)
    found = extractor(replica.recipe.engine.model, lambda *_: replica.engine, calibration=calibration).predict(texts)
    pairs = [(a, b) for p, q in zip(bare, found, strict=True) for a, b in zip(p.entities, q.entities, strict=True)]
    assert pairs
    for a, b in pairs:
        assert b.score == pytest.approx(1 / (1 + math.exp(1.0 - 0.5 * confidence.logit(a.score))), abs=1e-3)


@pytest.mark.engine
def test_an_answer_that_fills_the_model_has_no_scores(random_model):
    """Nothing is left for the one token vLLM must add: rejected, not masked; and a rejection costs nothing."""
    task = TaskRecipe(TASK, "inline", decoding="constrained", score=True)
    text = "Anna met Bob in Paris. " * 3
    shown = Predictor(Recipe(config(random_model), 256, (task,)))
    try:
        reader = shown.readers[0]
        prompt = reader.builder.build(text, reader.groups[0])
        grammar = reader.format.grammar(text, reader.groups[0], TASK)
        full = Request([*prompt.token_ids, *[5] * (1024 - len(prompt.token_ids))], 1, prompt_logprobs=True)
        asked = [full, Request(prompt.token_ids, 8, grammar=grammar)]
        rejected, answer = shown.engine.generate(asked)
    finally:
        shown.close()
    assert rejected.finish_reason == "error"
    assert rejected.prompt_logprobs == ()
    assert confidence.reread(answer, rejected).logprobs == ()


@pytest.mark.engine
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_adapters_and_base_are_read_again_side_by_side(tmp_path, random_adapter, tied):
    """One batch, each with its own adapter, whether or not the output layer is one that vLLM could adapt."""
    model = str(tmp_path / "model")
    save_random_model(Path(model), tied=tied)
    paths = [random_adapter(model, 1), random_adapter(model, 2)]
    layers = {"lora_target_modules": adapter.load(paths[0]).targets}
    chat = load_tokenizer(model)
    prompts = [chat.encode([Message(role="user", content=f"Anna met {i} friends. " * (i + 1))]) for i in range(4)]
    asked = [Request(p, 12, adapter=a, logprobs=()) for p in prompts for a in [None, *paths]]
    engine = Engine(config(model, extra=layers, max_loras=2))
    try:
        said = engine.generate(asked)
        again = [read_again(r, c) for r, c in zip(asked, said, strict=True)]
        read = engine.generate([*again, *asked])[: len(again)]
    finally:
        engine.close()
    for decoded, x in zip(said, read, strict=True):
        assert chosen(confidence.reread(decoded, x)) == pytest.approx(chosen(decoded), abs=1e-3)


@pytest.mark.engine
def test_an_engine_that_could_adapt_its_output_layer_refuses(random_model):
    """It would die; the others of the batch are answered, and it lives on.

    An engine of its own: a predictor that is closed takes vLLM's groups with it, and so the session's engine.
    """
    prompt = load_tokenizer(random_model).encode([Message(role="user", content="Anna")])
    engine = Engine(config(random_model))
    try:
        for _ in range(2):
            asked = [Request(prompt, 1, prompt_logprobs=True), Request(prompt, 4)]
            refused, answer = engine.generate(asked)
            assert refused.finish_reason == "error"
            assert "lora_target_modules" in refused.error
            assert answer.completion_tokens > 0
    finally:
        engine.close()


@pytest.mark.engine
def test_auto_scores_what_it_asked_again(random_model):
    """A model that has learned nothing answers noise: what the grammar makes of it has scores that are far below 1."""
    task = TaskRecipe(TASK, "json", decoding="auto", temperature=1.0, score=True)
    shown = Predictor(Recipe(config(random_model), 64, (task,)))
    try:
        predictions = shown.predict(["Anna met Bob in Paris.", "Carla lives in Rome."] * 12)
    finally:
        shown.close()
    scores = [e.score for p in predictions for e in p.entities]
    assert scores
    assert all(score is not None and score < 0.01 for score in scores)


def recipe_of(tiny_model, **changes):
    """What a config of the demo's adapter with scores becomes."""
    values = {"engine": config(tiny_model), "adapter": ADAPTER, "score": True, "windows": WindowsConfig(max_tokens=128)}
    return make_recipe(RecipeConfig(**(values | changes)))


def test_a_run_with_scores_tells_vllm_how_it_will_read_again(tiny_model):
    """Prompts in pieces, LoRA off the output layer; nothing of it where no answer is read again; a person's word wins."""
    extra = recipe_of(tiny_model).engine.extra
    assert extra["long_prefill_token_threshold"] == 512
    assert "q_proj" in extra["lora_target_modules"]
    assert "lm_head" not in extra["lora_target_modules"]
    assert recipe_of(tiny_model, decoding="free").engine.extra == {}
    assert recipe_of(tiny_model, verify={}).engine.extra == {}
    mine = {"long_prefill_token_threshold": 100}
    assert recipe_of(tiny_model, engine=config(tiny_model, extra=mine)).engine.extra == extra | mine


@pytest.mark.parametrize(
    ("targets", "why"), [(["q_proj", "lm_head"], "changes lm_head"), ("model.*proj", "names its layers by a pattern")]
)
def test_an_adapter_of_the_output_layer_cannot_be_scored_under_a_grammar(tiny_model, tmp_path, targets, why):
    """Refused before an engine starts, naming the way out."""
    moved = shutil.copytree(ADAPTER, tmp_path / "adapter")
    told = json.loads((moved / "adapter_config.json").read_text()) | {"target_modules": targets}
    (moved / "adapter_config.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=f"score: .*{why}.*decoding: free or score: false"):
        recipe_of(tiny_model, adapter=str(moved))
    assert recipe_of(tiny_model, adapter=str(moved), decoding="free").tasks[0].score
