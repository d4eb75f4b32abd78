"""Self-consistency: who stays is a matter of counting, and a real engine answers as often as asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ner_batch.data import Entity, Parsed, Status, Ungrounded
from ner_batch.extraction.reader import Reading, vote
from ner_batch.extraction.settings import VotesConfig

SPANS = [Entity(i, i + 1, kind, "x") for i in range(3) for kind in ("A", "B")]
READINGS = st.lists(
    st.tuples(st.sets(st.sampled_from(SPANS)), st.sampled_from([Status.OK, Status.OK, Status.FAILED])), min_size=1
)


@given(READINGS, st.floats(0, 1))
def test_entities_with_enough_votes_stay(passes, least):
    """The share is of the full answers; it is the score; costs add up."""
    readings = [
        Reading(Parsed(tuple(sorted(found)), (Ungrounded(str(i), "A", "r"),), status, True), None, 10, i)
        for i, (found, status) in enumerate(passes)
    ]
    made = vote(readings, least)
    assert (made.prompt_tokens, made.completion_tokens) == (10 * len(passes), sum(range(len(passes))))
    full = [found for found, status in passes if status is Status.OK]
    if not full:
        assert made.parsed == readings[0].parsed
        return
    shares = {e: sum(e in found for found in full) / len(full) for e in SPANS}
    assert {(e.start, e.type): e.score for e in made.parsed.entities} == {
        (e.start, e.type): share for e, share in shares.items() if share >= least and share > 0
    }
    assert made.parsed.status is Status.OK
    assert len(made.parsed.ungrounded) == len(passes)


@pytest.mark.engine
def test_votes_of_a_real_engine(tiny_model):
    """Scores are shares of the passes, every span is real, and answers cost about as many times as many tokens."""
    from tiny import FILES, gold

    from ner_batch.engine.settings import EngineConfig
    from ner_batch.extraction.predictor import Predictor
    from ner_batch.extraction.recipe import Recipe, TaskRecipe
    from ner_batch.task import load_task

    texts = [x.text for x in gold("dev") if len(x.text) < 80][:20]
    engine = EngineConfig(
        model=tiny_model, dtype="float32", max_model_len=1024, enforce_eager=True, cpu_kv_cache_gib=1, max_lora_rank=32
    )
    task = load_task(str(FILES / "task.yaml"))
    once = TaskRecipe(task, "json", str(FILES / "adapter"), decoding="free")
    often = TaskRecipe(task, "json", str(FILES / "adapter"), decoding="free", votes=VotesConfig(passes=4, least=0.25))
    predictor = Predictor(Recipe(engine, 128, (once, often)))
    try:
        predictions = predictor.predict(texts)
    finally:
        predictor.close()
    voted = [e for p in predictions for e in p.entities if e.score is not None]
    assert {e.score for e in voted} <= {i / n for n in range(1, 5) for i in range(1, n + 1)}
    assert len({e.score for e in voted}) > 1
    for text, prediction in zip(texts, predictions, strict=True):
        assert all(text[e.start : e.end] == e.text for e in prediction.entities)
