"""The report on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ner_batch.evaluate import marking
from ner_batch.evaluate.errors import KINDS
from ner_batch.evaluate.report import Report

SHOWN_ROWS = 5
SHOWN_IDS = 10
SHOWN_CELLS = 12
SHOWN_SPANS = 10


def render(report: Report) -> Iterator[RenderableType]:
    """Scores, errors, the worst rows and the comparison."""
    names = _names(report)
    for name, run in zip(names, report["runs"], strict=True):
        title = f"{name}, {report['rows']['scored']:,} rows, {_level(report)} intervals"
        yield _scores(title, run)
        yield _kinds(f"{name}: entities by outcome", run)
        yield _cells(run)
        yield from _status_lines(run)
        if run["calibration"]:
            found = run["calibration"]
            yield f"calibration: ECE {found['ece']:.3f} over {found['scored']:,} scored entities"
        yield from _worst(run)
    if report["comparison"]:
        yield _comparison(report, names)
        yield Text(verdict(report), style="bold")
    yield from _skipped(report)


def _names(report: Report) -> list[str]:
    return [str(run["predictions"]) for run in report["runs"]]


def _level(report: Report) -> str:
    return f"{report['bootstrap']['level']:.0%}"


def score_rows(run: Report) -> Iterator[tuple[str, Report]]:
    """(name, entry) of each line of the table of scores."""
    strict = run["strict"]
    yield from strict["types"].items()
    yield from ((f"group {name}", entry) for name, entry in strict["groups"].items())
    yield "macro", strict["macro"]
    yield "micro", strict["micro"]
    yield from ((f"{scheme}", entry) for scheme, entry in run["schemes"].items())


def _scores(title: str, run: Report) -> Table:
    table = Table("strict", title=escape(title))
    for column in ("P", "R", "F1", "interval", "gold", "said", "correct"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, entry in score_rows(run):
        table.add_row(escape(name), *score_cells(entry), end_section=name in ("macro", "micro"))
    return table


def score_cells(entry: Report) -> list[str]:
    """Figures of one line, as text."""
    low, high = entry["f1"]["interval"]
    counts = [f"{entry[name]:,g}" if name in entry else "" for name in ("gold", "predicted", "correct")]
    return [*(f"{entry[p]['value']:.3f}" for p in ("precision", "recall", "f1")), f"{low:.3f}-{high:.3f}", *counts]


def _kinds(title: str, run: Report) -> Table:
    table = Table("type", title=escape(title))
    for kind in KINDS:
        table.add_column(kind, justify="right", no_wrap=True)
    rows = [*run["errors"]["types"].items(), ("all", run["errors"]["kinds"])]
    for name, kinds in rows:
        table.add_row(escape(name), *(f"{kinds[kind]:,}" for kind in KINDS), end_section=name == rows[-2:][0][0])
    return table


def _cells(run: Report) -> Table:
    table = Table("error", "gold", "predicted", title="most frequent errors")
    table.add_column("count", justify="right", no_wrap=True)
    wrong = [cell for cell in run["errors"]["confusion"] if cell["kind"] != "correct"]
    for cell in wrong[:SHOWN_CELLS]:
        table.add_row(cell["kind"], escape(cell["gold"] or "-"), escape(cell["predicted"] or "-"), f"{cell['count']:,}")
    return table


def _status_lines(run: Report) -> Iterator[str]:
    for status, ids in run["unanswered"].items():
        more = run["statuses"][status] - len(ids[:SHOWN_IDS])
        named = ", ".join(ids[:SHOWN_IDS]) + (f" and {more:,} more" if more else "")
        yield escape(f"{run['statuses'][status]:,} rows {status}, what they lack is missed: {named}")


def _worst(run: Report) -> Iterator[Text]:
    for bad in run["worst"][:SHOWN_ROWS]:
        status = f", {bad['status']}" if bad["status"] not in (None, "ok") else ""
        head = Text(f"{bad['id']}: {bad['errors']} errors{status}\n", style="bold")
        yield head + _line(bad, "gold", "predicted") + Text("\n") + _line(bad, "predicted", "gold")


def _line(bad: Report, side: str, other: str) -> Text:
    """The text with a side's spans; green where the other side has the same, red where not."""
    spans, others = ({(start, end, type_) for start, end, type_ in bad[name]} for name in (side, other))
    line = Text(f"{side:>9}  ", style="dim")
    for piece, span in marking.pieces(bad["text"], spans):
        line.append(_flat(piece), style=_style(span in others) if span else "not dim")
    for i, (named, right) in enumerate(marking.head(marking.unmarked(bad, side), SHOWN_SPANS)):
        line.append(", " if i else "; also ", style="dim").append(_flat(named), style=_style(right))
    return line


def _style(right: bool) -> str:
    return f"not dim bold {'green' if right else 'red'}"


def _flat(text: str) -> str:
    return " ".join(text.split("\n"))


def _comparison(report: Report, names: list[str]) -> Table:
    table = Table("F1", title=escape(f"{names[0]} against {names[1]}"))
    for column in ("this", "other", "difference", "interval", "better in", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for cells in comparison_rows(report):
        table.add_row(*map(escape, cells))
    return table


def comparison_rows(report: Report) -> Iterator[list[str]]:
    """Figure, this, other, difference, interval, share of resamples where this is better, p-value."""
    for name, entry in report["comparison"].items():
        low, high = entry["interval"]
        figures = [f"{entry['this']:.3f}", f"{entry['other']:.3f}", f"{entry['difference']:+.3f}"]
        sure = [f"{low:+.3f} to {high:+.3f}", f"{entry['this_better']:.1%}", f"{entry['p']:.3f}"]
        yield [name.removesuffix("/f1").replace("/", " "), *figures, *sure]


def verdict(report: Report) -> str:
    """Whether the run is better than the one it is compared with, in a sentence."""
    entry = report["comparison"]["strict/micro/f1"]
    low, high = entry["interval"]
    sure = f"{_level(report)} interval {low:+.3f} to {high:+.3f}, p = {entry['p']:.3f}"
    figures = f"strict micro F1 {entry['difference']:+.3f}, {sure}"
    if low <= 0 <= high:
        return f"no difference that these rows can show: {figures}"
    return f"{'better' if low > 0 else 'worse'} than {report['runs'][1]['predictions']}: {figures}"


def _skipped(report: Report) -> Iterator[str]:
    for name in ("gold", "predictions"):
        if count := report["rows"][f"{name}_skipped"]:
            yield f"{count:,} rows of {name} left out: no partner"
