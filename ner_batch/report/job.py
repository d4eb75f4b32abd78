"""The report job: what can be known before rows are read, then rows counted, scored and shown on one page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ner_batch.errors import Problems, require_extra
from ner_batch.io import storage
from ner_batch.jobs.cluster import check_lasting
from ner_batch.jobs.progress import ProgressLine
from ner_batch.report import against, page, sample
from ner_batch.report.output import Output, open_output
from ner_batch.report.rows import PageRows
from ner_batch.report.settings import ReportConfig
from ner_batch.report.timeline import timeline
from ner_batch.report.totals import count

if TYPE_CHECKING:
    from ner_batch.evaluate.job import Plan as Evaluation
    from ner_batch.report.gold import Scored

OK = 0
PAGE = "_report.html"
SCORING = ("duckdb", "matplotlib")


@dataclass(frozen=True, slots=True)
class Plan:
    """A report that can be written. ``evaluation`` is None without gold, or where no row is written yet."""

    config: ReportConfig
    output: Output
    other: Output | None
    evaluation: Evaluation | None
    target: str
    notes: tuple[str, ...]


def prepare(config: ReportConfig) -> Plan:
    """Check everything.

    Raises:
        UserError: every problem found, one line each.
    """
    if config.scored:
        require_extra("evaluate", *SCORING, purpose="`report` with gold")
    problems, notes = Problems(), []
    target = config.out or storage.join(config.folder, PAGE)
    problems.check(lambda: check_lasting("--out", target))
    output = problems.check(lambda: open_output(config.folder))
    other = problems.check(partial(open_output, config.against)) if config.against else None
    problems.stop_if_any()
    assert output
    folder = storage.absolute(target).rpartition("/")[0]
    problems.check(lambda: storage.check_writable(folder))
    evaluation = None
    if config.scored and output.files:
        from ner_batch.report import gold

        evaluation = problems.check(lambda: gold.prepare(config, output, folder))
    elif config.scored:
        notes.append("No row is written yet: nothing was scored.")
    problems.stop_if_any()
    return Plan(config, output, other, evaluation, target, tuple(notes))


def run(plan: Plan, console: Console) -> int:
    """Read, count and write the page; the exit code.

    Raises:
        UserError: rows that cannot be scored or compared. Nothing is written.
    """
    with ProgressLine(console) as progress:
        content = build(plan, progress.show)
    with storage.explained(plan.target):
        storage.write_bytes(plan.target, content)
    console.print(f"report: {plan.target}, {len(content) / 1e6:,.1f} MB", highlight=False, soft_wrap=True, markup=False)
    return OK


def build(plan: Plan, progress: Callable[[str], None] = lambda _: None) -> bytes:
    """The page's content; ``progress`` is told what is being done. Raises UserError as :func:`run` does."""
    config = plan.config
    kept = max(1, config.rows // 10)
    totals = count(plan.output, config.seed, kept, progress)
    first = totals.unanswered()
    runs = [page.Run(plan.output, totals, timeline(plan.output.files, totals.unit_rows, plan.output.status.runs))]
    differences = counterparts = None
    if plan.other:
        other_totals = count(plan.other, config.seed, kept, progress)
        runs.append(page.Run(plan.other, other_totals))
        progress("comparing the runs")
        differences, counterparts = against.compare(
            plan.output, plan.other, totals.unit_rows, other_totals.unit_rows, config.rows
        )
        first["differing"] = differences.places[:: max(1, len(differences.places) // kept)]
    rows = sample.read_rows(
        plan.output, sample.choose(totals.unit_rows, first, config.rows, config.seed), config.id_column
    )
    scored = _scored(plan, rows, progress)
    if scored:
        rows = _with_worst(plan, rows, scored)
    other_rows = _other_rows(plan, rows, counterparts)
    types = [name for name, _ in sorted(totals.types.items(), key=lambda item: (-item[1], item[0]))]
    page_rows = PageRows(len(rows), types)
    worst = set(scored.worst) if scored else set()
    listed = []
    for row in rows:
        name = _gold_id(plan, row)
        spans = scored.spans.get(name) if scored and name is not None else None
        values = page_rows.values(row, spans, other_rows.get(row.place), compared=plan.other is not None)
        listed.append(values | ({"worst": True} if name in worst else {}))
    data: dict[str, Any] = {
        "types": page_rows.types.values,
        "tasks": page_rows.tasks.values,
        "statuses": page_rows.statuses.values,
        "kinds": page.kinds(scored is not None) if scored or plan.other else [],
        "scored": scored is not None,
        "compared": plan.other is not None,
        "total": totals.rows,
        "texts": plan.output.text_column is not None,
        "rows": listed,
    }
    return page.render(runs, data, scored.values if scored else None, differences, plan.notes)


def _gold_id(plan: Plan, row: sample.SampleRow) -> str | None:
    """What the evaluation calls a row."""
    has_ids = plan.evaluation is not None and plan.evaluation.config.predictions.id_column is not None
    return row.id if has_ids else f"{row.unit}:{row.place[1]}"


def _scored(plan: Plan, rows: list[sample.SampleRow], progress: Callable[[str], None]) -> Scored | None:
    if plan.evaluation is None:
        return None
    from ner_batch.report import gold

    ids = {id_ for row in rows if (id_ := _gold_id(plan, row)) is not None}
    return gold.score(plan.evaluation, ids, progress)


def _with_worst(plan: Plan, rows: list[sample.SampleRow], scored: Scored) -> list[sample.SampleRow]:
    """The sample with the rows that have the most errors."""
    assert plan.evaluation
    there = {_gold_id(plan, row) for row in rows}
    missing = {id_ for id_ in scored.worst if id_ not in there}
    places = sample.places_of_ids(plan.output, missing, plan.evaluation.config.predictions.id_column)
    more = sample.read_rows(plan.output, sorted(places.values()), plan.config.id_column)
    return sorted([*rows, *more], key=lambda row: row.place)


def _other_rows(
    plan: Plan, rows: list[sample.SampleRow], counterparts: against.Counterparts | None
) -> dict[sample.Place, Any]:
    """What the other run predicted for rows, by their place in this run."""
    if counterparts is None or plan.other is None:
        return {}
    places = {row.place: place for row in rows if (place := counterparts.place(row.place)) is not None}
    there = sample.read_rows(plan.other, sorted(set(places.values())), plan.config.id_column)
    predictions = {row.place: row.prediction for row in there}
    return {here: predictions[place] for here, place in places.items()}
