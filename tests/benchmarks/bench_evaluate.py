"""How fast, and in how much memory, `ner-batch evaluate` scores a synthetic corpus of sentences.

`PYTHONPATH=. python tests/benchmarks/bench_evaluate.py [rows] [override ...]`: rows (1,000,000 by default) of 20 to 200
characters, 0 to 5 entities of six types each, four of five predicted rightly; gold in a file of its own. Overrides are
those of the config, e.g. job.memory_bytes=128000000.
"""

import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ner_batch import config
from ner_batch.data import GOLD_ENTITY
from ner_batch.evaluate import job, plots, report
from ner_batch.evaluate.settings import EvaluateConfig

TYPES = ("DATE", "ORG", "PERSON", "PLACE", "PRODUCT", "TITLE")
ENTITIES = pa.list_(GOLD_ENTITY)
SHARD = 50_000


def entities(text, rng):
    """Some spans of a text, in order."""
    starts = sorted(rng.sample(range(len(text) - 10), rng.randint(0, 5)))
    return [span(text, s, s + rng.randint(2, 10), rng.choice(TYPES)) for s in starts]


def span(text, start, end, type_):
    return {"start": start, "end": end, "type": type_, "text": text[start:end]}


def noisy(text, gold, rng):
    """Four of five as they are; the others missed, of another type, or shifted."""
    for e in gold:
        dice = rng.random()
        if dice > 0.2:
            yield e
        elif dice > 0.13:
            yield {**e, "type": rng.choice(TYPES)}
        elif dice > 0.06:
            yield span(text, max(0, e["start"] - 1), e["end"], e["type"])


def write(folder, rows):
    """Gold and predictions, shard by shard."""
    rng = random.Random(0)
    for start in range(0, rows, SHARD):
        count = min(SHARD, rows - start)
        ids = [f"doc-{start + i:09d}" for i in range(count)]
        texts = ["".join(rng.choices("abcdefgh ", k=rng.randint(20, 200))) for _ in range(count)]
        gold = [entities(text, rng) for text in texts]
        predicted = [list(noisy(text, spans, rng)) for text, spans in zip(texts, gold, strict=True)]
        for side, column in (("gold", gold), ("run", predicted)):
            (folder / side).mkdir(exist_ok=True)
            table = pa.table({"id": ids, "text": texts, "entities": pa.array(column, ENTITIES)})
            pq.write_table(table, folder / side / f"part-{start // SHARD:04d}.parquet")


def main():
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, rows)
        (folder / "job.yaml").write_text(
            f"{{predictions: {{path: {folder}/run}}, gold: {{path: {folder}/gold}}, output: {folder}/report}}"
        )
        plan = job.prepare(config.load(EvaluateConfig, folder / "job.yaml", sys.argv[2:]))
        before, start, cpu = peak(), time.monotonic(), time.process_time()
        values = job.evaluate(plan, lambda text: print(f"{time.monotonic() - start:5.1f} s, {peak():,.0f} MB: {text}"))
        report.write(plan.config.output, values, plots.draw(values))
        seconds, cpu = time.monotonic() - start, time.process_time() - cpu
        print(
            f"{rows:,} rows: {seconds:.1f} s ({rows / seconds:,.0f} rows/s; {cpu:.1f} CPU-s), this process "
            f"{before:,.0f} MB before, {peak():,.0f} MB at its peak, job.memory_bytes={plan.config.job.memory_bytes:,}; "
            f"micro F1 {values['runs'][0]['strict']['micro']['f1']['value']:.4f}"
        )


def peak():
    """The most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
