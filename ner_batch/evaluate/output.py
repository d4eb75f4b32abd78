"""The report in its folder: plots and report.md first, report.json last, each written whole."""

from __future__ import annotations

from collections.abc import Iterator

from ner_batch.evaluate import plots, tables
from ner_batch.evaluate.marking import head, marked, unmarked
from ner_batch.evaluate.report import Report
from ner_batch.io import storage

JSON, MARKDOWN = "report.json", "report.md"
SHOWN_ROWS = 20
SHOWN_SPANS = 100


def write(folder: str, report: Report) -> None:
    """Replace the report in a folder. While it is written there is no report.json, so none tells of other plots."""
    drawn = plots.draw(report)
    lines = "\n".join(markdown(report, list(drawn)))
    for name in (JSON, MARKDOWN, *plots.PLOTS):
        storage.remove(storage.join(folder, name))
    for name, image in drawn.items():
        storage.write_bytes(storage.join(folder, name), image)
    storage.write_bytes(storage.join(folder, MARKDOWN), lines.encode())
    storage.write_json(storage.join(folder, JSON), report)


def markdown(report: Report, images: list[str]) -> Iterator[str]:
    """The lines of report.md."""
    drawn = report["bootstrap"]
    yield "# Evaluation\n"
    yield (
        f"{report['rows']['scored']:,} rows. Intervals: {drawn['level']:.0%}, bootstrap of {drawn['resamples']:,} "
        f"resamples, drawing {drawn['drawn']}."
    )
    if report["comparison"]:
        yield f"\n**{tables.verdict(report)}**\n"
        head = ["F1", "this", "other", "difference", "interval", "better in", "p"]
        yield from _table(head, list(tables.comparison_rows(report)))
    for run in report["runs"]:
        yield from _run(run)
    yield "\n## Plots\n"
    yield from (f"![{name}]({name})" for name in images)


def _run(run: Report) -> Iterator[str]:
    yield f"\n## {run['predictions']}\n"
    yield from _table(
        ["strict span and type", "P", "R", "F1", "interval", "gold", "predicted", "correct"],
        [[name, *tables.score_cells(entry)] for name, entry in tables.score_rows(run)],
    )
    yield "\nErrors:\n"
    cells = [c for c in run["errors"]["confusion"] if c["kind"] != "correct"][:SHOWN_ROWS]
    yield from _table(
        ["error", "gold", "predicted", "count"],
        [[c["kind"], c["gold"] or "-", c["predicted"] or "-", f"{c['count']:,}"] for c in cells],
    )
    for status, ids in run["unanswered"].items():
        yield f"\n{run['statuses'][status]:,} rows `{status}`, what they lack is missed: {', '.join(ids)}"
    yield "\nRows with the most errors:\n"
    for bad in run["worst"]:
        yield f"- `{bad['id']}`, {bad['errors']} errors"
        for side in ("gold", "predicted"):
            spans = [(start, end, type_) for start, end, type_ in bad[side]]
            also = ", ".join(span for span, _ in head(unmarked(bad, side), SHOWN_SPANS))
            text = marked(bad["text"], spans) + (f"; also {also}" if also else "")
            yield f"  - {side}: {_escape(text)}"


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(_escape(cell) for cell in row) + " |"


def _escape(text: str) -> str:
    """Text of a corpus as plain text of Markdown."""
    flat = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!~$" else c for c in flat)
