"""The report job: what can be known before rows are read, then rows counted, scored and shown on one page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from ner_batch.data import Prediction
from ner_batch.errors import Problems, require_extra
from ner_batch.io import storage
from ner_batch.jobs.cluster import check_lasting
from ner_batch.jobs.progress import ProgressLine
from ner_batch.jobs.record import named_columns
from ner_batch.report import against, page
from ner_batch.report.output import Output, Place, choose_places, ids_of_places, open_output, places_of_ids, read_rows
from ner_batch.report.rows import PageRows
from ner_batch.report.settings import ReportConfig
from ner_batch.report.totals import count, timeline

if TYPE_CHECKING:
    from ner_batch.evaluate.job import Plan as Evaluation
    from ner_batch.report.gold import Scored

OK = 0
PAGE = "_report.html"


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
        require_extra("evaluate", purpose="`report` with gold")
    problems, notes = Problems(), []
    target = config.out or storage.join(config.folder, PAGE)
    problems.check(lambda: check_lasting("--out", target))
    output = problems.check(lambda: open_output(config.folder))
    other = problems.check(partial(open_output, config.against)) if config.against else None
    problems.stop_if_any()
    assert output
    if config.id_column is None:
        config = config.model_copy(update={"id_column": named_columns(output.manifest)[1] or "id"})
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
    config, output, other = plan.config, plan.output, plan.other
    rows_of_a_kind = max(1, config.rows // 10)
    totals = count(output, config.seed, rows_of_a_kind, progress)
    runs = [page.Run(output, totals, timeline(output.files, totals.unit_rows, output.status.runs))]
    first = totals.unanswered()
    differences = counterparts = None
    if other:
        other_totals = count(other, config.seed, rows_of_a_kind, progress)
        runs.append(page.Run(other, other_totals))
        progress("comparing the runs")
        differences, counterparts = against.compare(
            output, other, totals.unit_rows, other_totals.unit_rows, rows_of_a_kind
        )
        first["differing"] = differences.places
    places = choose_places(totals.unit_rows, first, config.rows, config.seed)
    scored: Scored | None = None
    ids: dict[Place, str] = {}
    if plan.evaluation:
        scored, ids = _score(plan, plan.evaluation, places, progress)
        places = sorted({*places, *ids})
    progress(f"reading {len(places):,} rows to browse")
    others = _other_predictions(plan, places, counterparts)
    types = sorted(totals.types, key=lambda type_: (-totals.types[type_], type_))
    page_rows = PageRows(len(places), types)
    rows = [
        page_rows.values(
            row,
            scored.spans.get(ids.get(row.place, "")) if scored else None,
            others.get(row.place),
            compared=other is not None,
        )
        for row in read_rows(output, places, config.id_column)
    ]
    data = {
        "types": page_rows.types.values,
        "tasks": page_rows.tasks.values,
        "statuses": page_rows.statuses.values,
        "kinds": page.kinds(scored is not None) if scored or other else [],
        "scored": scored is not None,
        "compared": other is not None,
        "total": totals.rows,
        "texts": output.text_column is not None,
        "rows": rows,
    }
    return page.render(runs, data, scored.values if scored else None, differences, plan.notes)


def _score(
    plan: Plan, evaluation: Evaluation, places: list[Place], progress: Callable[[str], None]
) -> tuple[Scored, dict[Place, str]]:
    """The evaluation, and ids of rows by their places: of those asked for, and of those with the most errors."""
    from ner_batch.report import gold

    id_column = evaluation.config.predictions.id_column
    ids = ids_of_places(plan.output, places, id_column)
    scored = gold.score(evaluation, ids.values(), progress)
    return scored, ids | places_of_ids(plan.output, {*scored.worst} - {*ids.values()}, id_column)


def _other_predictions(
    plan: Plan, places: list[Place], counterparts: against.Counterparts | None
) -> dict[Place, Prediction]:
    """What the other run predicted for rows, by their place in this run."""
    if counterparts is None or plan.other is None:
        return {}
    there = {place: other for place in places if (other := counterparts.place(place)) is not None}
    rows = read_rows(plan.other, sorted(set(there.values())), plan.config.id_column, with_text=False)
    predictions = {row.place: row.prediction for row in rows}
    return {place: predictions[other] for place, other in there.items()}
