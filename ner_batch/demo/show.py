"""`ner-batch demo`: index, train, extract and score, with a pretrained model on real text.

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
from ner_batch.data import Prediction, outermost, predictions_of
from ner_batch.demo import models, recipe
from ner_batch.errors import UserError
from ner_batch.evaluate.metrics import Scores, score
from ner_batch.extraction import job, plan
from ner_batch.io import storage
from ner_batch.io.examples import example_from_row, read_examples
from ner_batch.train import job as train_job
from ner_batch.train import plan as training

TRAIN, DEV, TEST = 400, 50, 120  # sentences of each split that the demo reads; the package has all of NCBI-disease
COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the output, as the report needs it."""

    doc_id: str
    text: str | None
    prediction: Prediction


def run(out: Path, console: Console) -> int:
    """Index the gold, train some steps, extract, and show what came out; the extraction's exit code."""
    storage.check_writable(str(out))
    console.rule("1. a language model, an encoder, gold examples and texts to read")
    console.print(f"{models.LANGUAGE_MODEL}: out of its package, converted once, in some 10 s", highlight=False)
    model, encoder = models.language_model(), models.encoder()
    place(model, out / "model")
    place(encoder, out / "encoder")
    write_gold(out / "gold")
    write_corpus(out)
    console.print(f"model: {model} | gold: {out / 'gold'} | texts: {out / 'corpus'}", highlight=False, soft_wrap=True)
    console.rule("2. index of demonstrations, by sentence")
    gold = str(out / "gold" / "train.parquet")
    console.print(f"encoding {TRAIN:,} sentences with all-MiniLM-L6-v2", highlight=False)
    retrieval.build(read_examples(gold), "sentence", out / "index", str(encoder))
    console.rule("3. an adapter: the one that ships, trained some steps further")
    train(model, encoder, out, console)
    console.rule("4. extract")
    code = job.run(plan.prepare(recipe.extraction(model, out)), console)
    console.rule("5. what came out")
    report(out, console)
    return code


def place(model: Path, link: Path) -> None:
    """A link to a model in the demo's folder, where the configs in jobs/ expect it."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists() and not link.is_symlink():
        raise UserError(f"{link}: is there, and no link of an earlier demo: name another folder with --out")
    link.unlink(missing_ok=True)
    link.symlink_to(model, target_is_directory=True)


def write_gold(folder: Path) -> None:
    """The first sentences of NCBI-disease's splits, as Parquet: id, text, entities."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", TRAIN), ("dev", DEV), ("test", TEST)):
        table = pq.read_table(recipe.GOLD / f"{split}.parquet")
        pq.write_table(table.slice(0, count), folder / f"{split}.parquet")


def write_corpus(out: Path) -> None:
    """Two shards: sentences of the test split, whose gold is ``gold/test.parquet``, and notes that nobody annotated."""
    folder = out / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    test = pq.read_table(out / "gold" / "test.parquet", columns=["id", "text"]).rename_columns(["doc_id", "text"])
    pq.write_table(test, folder / "sentences.parquet")
    notes = recipe.NOTES.read_text(encoding="utf-8").strip().split("\n\n")
    numbered = [{"doc_id": f"note-{n}", "text": text.replace("\n", " ")} for n, text in enumerate(notes)]
    odd = [{"doc_id": "empty", "text": ""}, {"doc_id": "null", "text": None}]
    pq.write_table(pa.Table.from_pylist([*numbered, *odd], schema=test.schema), folder / "notes.parquet")


def train(model: Path, encoder: Path, out: Path, console: Console) -> None:
    """Train the adapter with the training job, if it is not there yet."""
    if (out / "adapter" / adapters.MANIFEST).is_file():
        console.print(f"adapter: {out / 'adapter'} (there already)", highlight=False)
        return
    work = training.prepare(recipe.training(model, encoder, out / "gold", out / "adapter"))
    for line in work.report:
        console.print(line, highlight=False, soft_wrap=True)
    train_job.run(work, console)


def report(out: Path, console: Console) -> None:
    """Texts with entities marked, counts, F1 where there is gold, and how to read the output."""
    rows = list(read_rows(out / "entities"))
    for row in sample(rows):
        console.print(marked(row), soft_wrap=True)
    console.print(counts(rows))
    console.print(scores_table(score_rows(rows, out / "gold" / "test.parquet")))
    console.print(how_to_read(out / "entities"), highlight=False, soft_wrap=True)


def read_rows(folder: Path) -> Iterator[Row]:
    """All rows of an output folder."""
    table = pads.dataset(folder, format="parquet").to_table()
    texts = zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), predictions_of(table), strict=True)
    return (Row(*parts) for parts in texts)


def sample(rows: Sequence[Row], count: int = 6) -> list[Row]:
    """The notes, and some short sentences with entities."""
    notes = [row for row in rows if row.doc_id.startswith("note-")]
    short = [row for row in rows if row not in notes and row.text and len(row.text) < 160 and row.prediction.entities]
    return [*notes, *short[:: max(1, len(short) // count)][:count]]


def marked(row: Row) -> Text:
    """A row's text with its entities in colour and their types behind them."""
    types = sorted({entity.type for entity in row.prediction.entities})
    line, done = Text(f"{row.doc_id[-12:]:>12}  ", style="dim"), 0
    for entity in outermost(row.prediction.entities):
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


def score_rows(rows: Sequence[Row], answers: Path) -> Scores:
    """Strict span and type scores over the rows that have gold."""
    gold = {entry["id"]: example_from_row(entry).entities for entry in pq.read_table(answers).to_pylist()}
    scored = [row for row in rows if row.doc_id in gold]
    return score([gold[row.doc_id] for row in scored], [row.prediction.entities for row in scored])


def scores_table(scores: Scores) -> Table:
    """Precision, recall and F1, by type and micro."""
    table = Table("type", "precision", "recall", "F1", "gold", title="strict span and type, sentences with gold")
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
Read other texts the same way: ner-batch extract jobs/extract.yaml input.path=... output.path=..."""  # noqa: S608 - a query to show, not to run
