"""The evaluation job: what can be known before rows are read, then rows joined, counted and reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
from rich.console import Console

from ner_batch.errors import Problems, UserError
from ner_batch.evaluate import plots, report
from ner_batch.evaluate.count import MOST_ROWS, Tally
from ner_batch.evaluate.read import Source, join
from ner_batch.evaluate.report import Report
from ner_batch.evaluate.settings import EvaluateConfig
from ner_batch.io import storage
from ner_batch.io.listing import list_shards
from ner_batch.io.shards import plan_units
from ner_batch.jobs.cluster import check_lasting
from ner_batch.jobs.progress import ProgressLine
from ner_batch.jobs.record import check_task, is_unfinished, read_manifest

OK = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """An evaluation that can start. ``sources`` is gold first, then one or two runs; gold may be the first run."""

    config: EvaluateConfig
    sources: tuple[Source, ...]
    unfinished: tuple[str, ...]
    """Runs whose manifest says that they are not complete."""
    report: tuple[str, ...]
    """What will be read and what is passed over, line by line."""


def prepare(config: EvaluateConfig) -> Plan:
    """Check everything and lay out the evaluation.

    Raises:
        UserError: every problem found, one line each.
    """
    problems = Problems()
    problems.check(lambda: check_lasting("output", config.output))
    predictions, gold = config.predictions, config.gold
    columns = {"id": predictions.id_column, "text": predictions.text_column, "entities": predictions.column}
    if gold.path is None:
        places = [("predictions", predictions.path, columns | {"gold": gold.column})]
    else:
        of_gold = {"id": gold.id_column, "text": gold.text_column, "gold": gold.column}
        places = [("gold", gold.path, of_gold), ("predictions", predictions.path, columns)]
    if config.against is not None:
        places.append(("against", config.against, columns))
    report: list[str] = []
    sources = [problems.check(partial(_source, config, *place, report)) for place in places]
    if gold.path is None:
        sources.insert(0, sources[0])
    problems.check(lambda: storage.check_writable(config.output))
    runs = [path for path in (predictions.path, config.against) if path]
    unfinished = problems.check(lambda: tuple(filter(is_unfinished, runs))) or ()
    problems.check(lambda: check_task(read_manifest(predictions.path), predictions.task, "predictions.task"))
    if against := config.against:  # another adapter's single task may have another name
        place = f"predictions.task, against {against}"
        problems.check(lambda: check_task(read_manifest(against), predictions.task, place, several=True))
    report += [f"{path}: its manifest says that the run is not complete" for path in unfinished]
    problems.stop_if_any()
    return Plan(config, tuple(source for source in sources if source), unfinished, tuple(report))


def _source(
    config: EvaluateConfig, name: str, path: str, columns: Mapping[str, str | None], report: list[str]
) -> Source:
    """A source with rows whose shards all have the columns, given by our names; None: there is none.

    What it holds, and what is passed over, is added to ``report``.
    """
    named = {ours: column for ours, column in columns.items() if column is not None}
    listing = list_shards(storage.absolute(path), named.get("text"))
    problems = [f"{name}: {corrupt.uri}: {corrupt.reason}" for corrupt in listing.corrupt]
    for shard in listing.shards:
        for ours, column in named.items():
            if ours != "text" and column not in shard.columns:  # the listing knows of the text, a field of a column too
                section = "gold" if "gold" in (ours, name) else "predictions"
                field = f"{ours}_column" if ours in ("id", "text") else "column"
                there = f"in {shard.uri} ({name}); there are {', '.join(shard.columns)}"
                problems.append(f"{section}.{field}: no column {column!r} {there}")
    if not sum(shard.rows for shard in listing.shards):
        problems.append(f"{name}: {path} has no rows")
    if problems:
        raise UserError("\n".join(problems))
    rows = sum(shard.rows for shard in listing.shards)
    report.append(f"{name}: {path}: {rows:,} rows in {len(listing.shards):,} files")
    if line := listing.about_passed_over:
        report.append(f"{name}: {line}")
    units = plan_units(listing.shards, config.job.unit_rows, config.job.unit_bytes)
    return Source(name, units, named, config.predictions.task, config.predictions.rejected == "keep")


def run(plan: Plan, console: Console) -> int:
    """Score, print and write the report; the exit code.

    Raises:
        UserError: rows that cannot be scored; one line for each kind of error. Nothing is written.
    """
    with ProgressLine(console) as progress:
        values = evaluate(plan, progress.show)
    images = plots.draw(values)
    report.write(plan.config.output, values, images)
    for part in report.render(values):
        console.print(part)
    for name, entry in values["runs"][0]["strict"]["groups"].items():
        if not entry["types"]:
            line = f"groups.{name}: no type like {', '.join(plan.config.groups[name])}: its scores are 0 of 0"
            console.print(line, style="yellow", soft_wrap=True, markup=False)
    console.print(f"report: {plan.config.output}", highlight=False, soft_wrap=True, markup=False)
    return OK


def evaluate(plan: Plan, progress: Callable[[str], None] = lambda _: None) -> Report:
    """The values of the report; ``progress`` is told what is being done. Raises UserError as :func:`run` does."""
    tally, texts = compare(plan, progress)
    progress(f"{plan.config.bootstrap.resamples:,} resamples")
    return report.build(plan.config, tally, texts, plan.unfinished)


def compare(
    plan: Plan, progress: Callable[[str], None], observe: Callable[[pa.RecordBatch], None] = lambda _: None
) -> tuple[Tally, dict[str, str]]:
    """The counts of all rows, and the texts of the worst by id. Raises UserError as :func:`run` does.

    ``observe`` is given every batch of :meth:`ner_batch.evaluate.read.JoinedRows.batches`.
    """
    config = plan.config
    rows_to_read = sum(source.rows for source in {source.name: source for source in plan.sources}.values())
    rows_read = 0

    def count_read(rows: int) -> None:
        nonlocal rows_read
        rows_read += rows
        progress(f"{rows_read:,} of {rows_to_read:,} rows read")

    with join(plan.sources, config, count_read) as rows:
        grouped = plan.sources[0].rows > MOST_ROWS
        tally = Tally(rows.types, len(plan.sources) - 1, config.worst, grouped=grouped)
        tally.gold_skipped, tally.predictions_skipped = rows.gold_skipped, rows.predictions_skipped
        longest = max(plan.sources, key=lambda source: source.text_bytes)  # fewer rows at once: their spans are many
        fitting = longest.rows * config.job.unit_bytes // max(1, longest.text_bytes)
        for batch in rows.batches(max(1, min(config.job.unit_rows, fitting))):
            tally.add(batch)
            observe(batch)
            progress(f"{tally.rows:,} of {plan.sources[0].rows:,} rows compared")
        texts = rows.texts({row.id for run in tally.runs for row in run.worst})
    if not tally.rows:
        raise UserError("no row has both gold and a prediction: nothing to score")
    assert tally.rows + tally.gold_skipped == plan.sources[0].rows, "rows were lost in the join"
    return tally, texts
