"""Scores: where answers name their mentions, and the model's own probability of the tokens there."""

import math
from itertools import pairwise

import pytest
from format_cases import each_format, hard
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TYPES, annotated
from tiny import FILES, gold

from ner_batch.data import AnswerSpan, Completion, Entity, clean
from ner_batch.engine.settings import EngineConfig
from ner_batch.extraction import confidence
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.prompts.formats import NAMES, Format, get
from ner_batch.task import Task

TASK = Task(name="test", labels=list(TYPES))


@each_format
@hard
@given(annotated())
def test_every_mention_of_an_answer_is_found_in_it(form: Format, case: tuple[str, list[Entity]]) -> None:
    """In order, apart from each other, and as many as were said, whatever the text."""
    text, entities = case
    for labels in form.groups(TASK):
        given_ = [e for e in entities if e.type in labels]
        answer = form.answer(text, given_, labels, TASK)
        found = form.locate_mentions(answer, text, labels, TASK)
        assert sorted((m.text, m.type) for m in found) == sorted(
            (e.text, e.type) for e in form.representable(text, given_)
        )
        assert all(a.end <= b.start for a, b in pairwise(found))
        assert all(0 <= m.start < m.end <= len(answer) for m in found)


@pytest.mark.parametrize("name", NAMES)
def test_a_thought_names_nothing(name):
    """What a model says before its answer has no part in the score."""
    form, text = get(name), "Anna saw Rome"
    labels = form.groups(TASK)[0]
    entities = [Entity(0, 4, labels[0], "Anna")]
    answer, thought = form.answer(text, entities, labels, TASK), "<think>\n" + form.answer(text, entities, labels, TASK)
    mentions = form.locate_mentions(f"{thought}</think>\n{answer}", text, labels, TASK)
    assert [(m.text, m.start > len(thought)) for m in mentions] == [("Anna", True)]


@pytest.mark.parametrize("name", NAMES)
def test_what_naming_takes(name):
    """The marks, the quotes, the line's end; in JSON the key for its first mention."""
    form = get(name)
    task = Task(name="t", labels={"LOC": {}})
    text = "From Ohio to Rome."
    entities = [Entity(5, 9, "LOC", "Ohio"), Entity(13, 17, "LOC", "Rome")]
    answer = form.answer(text, entities, ("LOC",), task)
    taken = [answer[m.start : m.end] for m in form.locate_mentions(answer, text, ("LOC",), task)]
    assert (
        taken
        == {
            "json": ['"LOC":["Ohio"', '"Rome"'],
            "inline": ["[Ohio|LOC]", "[Rome|LOC]"],
            "mrc": ["Ohio\n", "Rome"],
            "gpt-ner": ["@@Ohio##", "@@Rome##"],
        }[name]
    )


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        ('The 5" pipe: {"ORG":["Acme"]}', [("Acme", "ORG")]),
        ('{ "ORG" : [ "Acme" , "Acme" ] }', [("Acme", "ORG")] * 2),
        ('{"DATE":[1999,"1999"],"ORG":["A\\"B"]}', [("1999", "DATE"), ("1999", "DATE"), ('A"B', "ORG")]),
        ('{"ORG":["A","half', [("A", "ORG")]),
        ("no json", []),
    ],
)
def test_mentions_of_odd_json(answer, taken):
    """Prose before it, white space, numbers, escapes, an answer cut off."""
    found = get("json").locate_mentions(answer, "text", ("ORG", "DATE"), TASK)
    assert [(m.text, m.type) for m in found][: len(taken)] == taken


@given(st.lists(st.integers(0, 5900), max_size=40), st.lists(st.integers(0, 5900), max_size=5))
@settings(deadline=None)
def test_any_tokens_have_pieces(tiny_model, answer, prompt):
    """One each, whatever halves of characters the model says; nothing raises in the middle of a unit."""
    chat = load_tokenizer(tiny_model)
    assert len(chat.pieces(prompt, answer)) == len(answer)


def completion(pieces, probabilities):
    """An answer of tokens with these texts and probabilities."""
    logprobs = tuple({i: math.log(p)} for i, p in enumerate(probabilities))
    return Completion("".join(pieces), "stop", 1, len(pieces), None, tuple(range(len(pieces))), logprobs)


def test_the_score_is_the_product_over_the_tokens_of_the_naming():
    """A token over two mentions counts for both; half characters count; what is not named has no score."""
    pieces = ["ab", "", "é", '","', "cd", ""]
    answer = completion(pieces, [0.5, 0.5, 0.8, 0.9, 0.7, 0.1])
    said = [AnswerSpan("abé", "T", 0, 4), AnswerSpan("cd", "T", 5, 8)]
    entities = [Entity(0, 3, "T", "abé"), Entity(4, 6, "T", "CD"), Entity(0, 3, "U", "abé")]
    scores = [e.score for e in confidence.scored(entities, said, answer, pieces)]
    assert scores[0] == pytest.approx(0.5 * 0.5 * 0.8 * 0.9)
    assert scores[1] == pytest.approx(0.9 * 0.7)
    assert scores[2] is None
    assert [e.score for e in confidence.scored(entities, said, answer, pieces[:-1])] == [None] * 3


@pytest.mark.engine
def test_scores_of_a_trained_model(tiny_model):
    """The probabilities are those of transformers on the same answer, and right entities have higher ones than wrong."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from ner_batch.engine.engine import Request
    from ner_batch.extraction.predictor import Predictor
    from ner_batch.extraction.recipe import Recipe, TaskRecipe
    from ner_batch.task import load_task

    examples = [x for x in gold("dev") if len(x.text) < 100][:80]
    engine = EngineConfig(
        model=tiny_model, dtype="float32", max_model_len=1024, enforce_eager=True, cpu_kv_cache_gib=1, max_lora_rank=32
    )
    adapter = str(FILES / "adapter")
    recipe = TaskRecipe(load_task(str(FILES / "task.yaml")), "json", adapter, decoding="free", score=True)
    predictor = Predictor(Recipe(engine, 128, (recipe,)))
    try:
        found = predictor.predict([x.text for x in examples])
        reader = predictor.readers[0]
        prompt = reader.builder.build(clean(examples[0].text), reader.groups[0]).token_ids
        request = Request(prompt, 100, adapter, logprobs=())
        (answer,) = predictor.engine.generate([request])
    finally:
        predictor.close()
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), adapter)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer.token_ids]])).logits[0, len(prompt) - 1 : -1]
    theirs = logits.log_softmax(-1)[range(len(answer.token_ids)), list(answer.token_ids)]
    ours = [places[token] for places, token in zip(answer.logprobs, answer.token_ids, strict=True)]
    assert ours == pytest.approx(theirs.tolist(), abs=1e-3)

    scored = [(e.score, (e.start, e.end, e.type)) for p in found for e in p.entities]
    truth = [{(e.start, e.end, e.type) for e in x.entities} for x in examples]
    right = [e.score for p, g in zip(found, truth, strict=True) for e in p.entities if (e.start, e.end, e.type) in g]
    wrong = [
        e.score for p, g in zip(found, truth, strict=True) for e in p.entities if (e.start, e.end, e.type) not in g
    ]
    assert all(score is not None and 0 < score <= 1 for score, _ in scored)
    higher = sum((r > w) + (r == w) / 2 for r in right for w in wrong) / (len(right) * len(wrong))
    assert higher > 0.65  # the area under the ROC curve; 0.5 is chance
