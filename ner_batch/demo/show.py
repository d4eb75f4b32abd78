"""`ner-batch demo`: index, extract and score the demo corpus with the model that ships with the package.

The steps are the ones a user takes, on files under the output folder; each can be run again by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ner_batch import adapter as adapters
from ner_batch import retrieval
from ner_batch.data import Prediction, predictions_of
from ner_batch.demo import corpus, recipe
from ner_batch.demo.recipe import ADAPTER, BASE
from ner_batch.evaluate.metrics import Scores, score
from ner_batch.extract import job, plan
from ner_batch.extract.settings import ExtractConfig
from ner_batch.io.examples import example_from_row
from ner_batch.train import job as train_job
from ner_batch.train import plan as training

STEPS = 30  # of training: it takes half a minute with start and proof, from F1 0.675 on dev to what the report says
COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the output, as the report needs it."""

    doc_id: str
    text: str | None
    prediction: Prediction


def config(out: Path) -> ExtractConfig:
    """The demo's extraction config; jobs/extract.yaml says the same with comments."""
    return ExtractConfig.model_validate(
        {
            "input": {"path": str(out / "corpus")},
            "output": {"path": str(out / "entities")},
            "engine": {
                "model": str(BASE),
                "dtype": "float32",
                "max_model_len": 2048,
                "max_num_seqs": 64,
                "cpu_kv_cache_gib": 1,
                "enforce_eager": True,
            },
            "adapter": str(out / "adapter"),
            "retrieval": {"index": str(out / "index"), "k": 1},
            "windows": {"max_tokens": 64},  # the tiny model was taught on a sentence or three at a time
            "job": {"unit_rows": 60, "unit_bytes": 20_000, "units_in_flight": 3, "replicas": 2},
        }
    )


def run(out: Path, console: Console) -> int:
    """Write the corpus, index the gold, extract, and show what came out; the extraction's exit code."""
    console.rule("1. gold examples and a corpus to read")
    gold = corpus.write_gold(out / "gold")
    answers = corpus.write_corpus(out / "corpus")
    console.print(f"gold: {gold['train']} | corpus: {out / 'corpus'} | its answers: {answers}", highlight=False)
    console.rule("2. index of demonstrations")
    retrieval.build(gold["train"], "lexical", out / "index")
    console.print(f"lexical index of {pq.read_metadata(gold['train']).num_rows:,} examples", highlight=False)
    console.rule("3. an adapter: the one that ships, trained some steps further")
    train(gold, out / "adapter", console)
    console.rule("4. extract")
    code = job.run(plan.prepare(config(out)), console)
    console.rule("5. what came out")
    report(out, answers, console)
    return code


def train(gold: dict[str, Path], out: Path, console: Console) -> None:
    """Train the adapter with the training job, if it is not there yet."""
    if (out / adapters.MANIFEST).is_file():
        console.print(f"adapter: {out} (there already)", highlight=False)
        return
    work = training.prepare(recipe.adapter(BASE, gold, out, STEPS, init=ADAPTER))
    for line in work.report:
        console.print(line, highlight=False, soft_wrap=True)
    train_job.run(work, console)


def report(out: Path, answers: str | Path, console: Console) -> None:
    """A sample with entities marked, counts, F1 against the corpus' gold, and how to read the output."""
    rows = list(read_rows(out / "entities"))
    for row in sample(rows):
        console.print(marked(row), soft_wrap=True)
    console.print(counts(rows))
    console.print(scores_table(score_rows(rows, answers)))
    console.print(how_to_read(out / "entities"), highlight=False, soft_wrap=True)


def read_rows(folder: Path) -> Iterator[Row]:
    """All rows of an output folder."""
    table = pads.dataset(folder, format="parquet").to_table()
    texts = zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), predictions_of(table), strict=True)
    return (Row(*parts) for parts in texts)


def sample(rows: Sequence[Row], count: int = 8) -> list[Row]:
    """Some short rows with entities, spread over the output."""
    short = [row for row in rows if row.text and len(row.text) < 160 and row.prediction.entities]
    return short[:: max(1, len(short) // count)][:count]


def marked(row: Row) -> Text:
    """A row's text with its entities in colour and their types behind them."""
    types = sorted({entity.type for entity in row.prediction.entities})
    line, done = Text(f"{row.doc_id:>12}  ", style="dim"), 0
    for entity in row.prediction.entities:
        if entity.start < done:  # nested: the outer one is shown
            continue
        colour = COLOURS[types.index(entity.type) % len(COLOURS)]
        line.append((row.text or "")[done : entity.start], style="default")
        line.append(f"[{entity.text}|{entity.type}]", style=f"bold {colour}")
        done = entity.end
    return line.append((row.text or "")[done:], style="default")


def counts(rows: Sequence[Row]) -> Table:
    """Rows by status, entities by type."""
    statuses = pa.array([str(row.prediction.status) for row in rows])
    types = pa.array([entity.type for row in rows for entity in row.prediction.entities], pa.string())
    table = Table("", "what", "count", title="rows by status, entities by type")
    for kind, values in (("status", statuses), ("type", types)):
        for entry in sorted(pc.value_counts(values).to_pylist(), key=lambda e: -e["counts"]):
            table.add_row(kind, entry["values"], f"{entry['counts']:,}")
    table.add_row("", "ungrounded", f"{sum(len(row.prediction.ungrounded) for row in rows):,}")
    return table


def score_rows(rows: Sequence[Row], answers: str | Path) -> Scores:
    """Strict span and type scores over the rows that have gold."""
    gold = {entry["id"]: example_from_row(entry).entities for entry in pq.read_table(answers).to_pylist()}
    scored = [row for row in rows if row.doc_id in gold]
    return score([gold[row.doc_id] for row in scored], [row.prediction.entities for row in scored])


def scores_table(scores: Scores) -> Table:
    """Precision, recall and F1, by type and micro."""
    table = Table("type", "precision", "recall", "F1", "gold", title="strict span and type, rows with gold")
    for name, c in {**scores.per_type, "micro": scores.micro}.items():
        table.add_row(name, f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.f1:.3f}", f"{c.gold:,}")
    return table


def how_to_read(folder: Path) -> str:
    """Where the Parquet lies and three ways to open it."""
    glob = f"{folder}/*.parquet"
    return f"""
The entities are in {folder}; the run's record is {folder}/_manifest.json.
  pandas   pd.read_parquet({str(folder)!r}).explode("entities")
  Polars   pl.read_parquet({glob!r}).explode("entities").unnest("entities", separator="_")
  DuckDB   SELECT doc_id, unnest(entities, recursive := true) FROM {glob!r}
Start the extraction again by hand: ner-batch extract jobs/extract.yaml adapter={folder.parent / "adapter"}"""  # noqa: S608 - a query to show, not to run
