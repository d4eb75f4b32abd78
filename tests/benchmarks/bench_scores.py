"""What scores under a grammar cost, and what they are worth before and after its mask. Run by hand.

`PYTHONPATH=tests python tests/benchmarks/bench_scores.py`: the demo's adapter, constrained, over the demo's test split. The masked scores
are made here from the log-probabilities of a second decoding, which is in their CPU time; nothing else uses them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace

from tiny import FILES, gold

from ner_batch import adapter
from ner_batch.data import Completion, Example, Prediction, clean
from ner_batch.engine.engine import Request
from ner_batch.engine.settings import EngineConfig
from ner_batch.extraction.predictor import Predictor
from ner_batch.extraction.reader import Query, Reader, Reading
from ner_batch.extraction.recipe import Recipe, TaskRecipe, rereading
from ner_batch.task import load_task
from ner_batch.train.serving import auroc


class MaskedReader(Reader):
    """Scores out of the decoding under the grammar, decoded once more with log-probabilities."""

    def _scored(
        self,
        queries: Sequence[Query],
        requests: Sequence[Request | None],
        completions: Sequence[Completion | None],  # noqa: ARG002 - those without log-probabilities
        readings: Sequence[Reading],
    ) -> list[Reading]:
        """As if the answers had been free ones."""
        answers = iter(self.engine.generate([replace(request, logprobs=()) for request in requests if request]))
        masked = [next(answers) if request else None for request in requests]
        free = [request and replace(request, grammar=None) for request in requests]
        return super()._scored(queries, free, masked, readings)


def made() -> Predictor:
    """The shipped adapter under the grammar, with scores."""
    path = str(FILES / "adapter")
    engine = EngineConfig(
        model=str(FILES / "base"), dtype="float32", max_model_len=1024, enforce_eager=True, cpu_kv_cache_gib=1
    )
    extra = rereading(engine, [adapter.load(path)])
    engine = engine.model_copy(update={"extra": extra, "max_lora_rank": 32})
    task = TaskRecipe(load_task(str(FILES / "task.yaml")), "json", path, decoding="constrained", score=True)
    return Predictor(Recipe(engine, 128, (task,)))


def judged(predictions: Sequence[Prediction], examples: Sequence[Example]) -> str:
    """How well scores tell right entities from wrong ones."""
    gold = [{(e.start, e.end, e.type) for e in x.entities} for x in examples]
    found = [(e, (e.start, e.end, e.type) in g) for p, g in zip(predictions, gold, strict=True) for e in p.entities]
    scores, truth = [e.score for e, _ in found], [right for _, right in found]
    known = [score for score in scores if score is not None]
    if not known:
        return "no scores"
    mean, share = sum(known) / len(known), sum(truth) / len(truth)
    return f"{len(known)} scores, mean {mean:.3f} at precision {share:.3f}, AUROC {auroc(scores, truth):.3f}"


def main() -> None:
    """Without scores, read again, masked."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    examples = [x for x in gold("test") if len(x.text) < 300]
    texts = [clean(x.text) for x in examples]
    extractor = made()
    task = extractor.recipe.tasks[0]
    resources = (extractor.engine, extractor.tokenizer, extractor.recipe.engine.max_model_len)
    kinds = {
        "no scores": Reader(replace(task, score=False), *resources),
        "read again": extractor.readers[0],
        "masked": MaskedReader(task, *resources),
    }
    extractor.predict(texts[:8])
    for name, reader in kinds.items():
        extractor.readers = [reader]
        cpu = time.process_time()
        found = extractor.predict(texts)
        cpu, tokens = time.process_time() - cpu, sum(p.prompt_tokens for p in found)
        print(f"{name}: {cpu:.1f} CPU-s, {tokens:,} prompt tokens, {judged(found, examples)}", flush=True)
    extractor.close()


if __name__ == "__main__":
    main()
