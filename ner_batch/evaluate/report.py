"""The report of an evaluation: its values, and how they look in report.json, in report.md and on a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ner_batch.config import dump
from ner_batch.evaluate import bootstrap, calibration
from ner_batch.evaluate.bootstrap import Figures
from ner_batch.evaluate.count import CORRECT, EXACT, GOLD, GROUPS, PARTIAL, PREDICTED, TYPE, ErrorRow, RunTally, Tally
from ner_batch.evaluate.match import OUTCOMES, Span
from ner_batch.evaluate.metrics import Counts, Scores
from ner_batch.evaluate.settings import EvaluateConfig
from ner_batch.io import storage
from ner_batch.jobs import markdown
from ner_batch.jobs.record import versions

SCHEMA_VERSION = 1
Report = dict[str, Any]
JSON, MARKDOWN = "report.json", "report.md"
CONTEXT, EXCERPT = 60, 300
"""Characters of a worst row: before its first error, and in all."""
SURFACE = 60
"""Characters of a mention in a list."""
TERMINAL_ROWS, TERMINAL_IDS, TERMINAL_ERRORS, TERMINAL_SPANS = 5, 10, 12, 10
FILE_ERRORS, FILE_SPANS = 20, 100
COMPARISON = ("this", "other", "difference", "interval", "better in", "p")


def build(
    config: EvaluateConfig,
    tally: Tally,
    texts: Mapping[str, str],
    unfinished: Sequence[str] = (),
) -> Report:
    """The report of one run, or of two and their difference.

    Args:
        config: where ``against`` is set, the tally is of two runs.
        tally: at least one row.
        texts: those of the tally's worst rows, by id.
        unfinished: runs whose manifest says that they are not complete.
    """
    histogram = tally.histogram
    totals = histogram.total()
    draws = bootstrap.draw(histogram, config.groups, config.bootstrap.resamples, config.bootstrap.seed)
    paths = [config.predictions.path, config.against][: histogram.runs]
    return {
        "schema_version": SCHEMA_VERSION,
        "rows": {
            "scored": tally.rows,
            "gold_skipped": tally.gold_skipped,
            "predictions_skipped": tally.predictions_skipped,
        },
        "unfinished": list(unfinished),
        "bootstrap": dump(config.bootstrap)
        | {"drawn": f"{GROUPS:,} random groups of rows" if histogram.grouped else "rows"},
        "runs": [
            {"predictions": path}
            | _run_values(config, histogram.types, total, figures, run)
            | {"worst": [error_row(row, texts.get(row.id, "")) for row in run.worst]}
            for path, total, figures, run in zip(paths, totals, draws, tally.runs, strict=True)
        ],
        "comparison": _comparison(config, histogram.types, totals, draws) if histogram.runs > 1 else None,
        "config": dump(config),
        "versions": versions("ner-batch", "duckdb", "numpy", "scipy", "pyarrow"),
    }


def scores_of(totals: np.ndarray, types: Sequence[str]) -> Scores:
    """Strict counts by type, from one run's counts of shape (len(types) + 1, 3)."""
    counts = totals[:-1].tolist()
    return Scores({t: Counts(c[CORRECT], c[PREDICTED], c[GOLD]) for t, c in zip(types, counts, strict=True)})


def _run_values(
    config: EvaluateConfig,
    types: tuple[str, ...],
    totals: np.ndarray,
    draws: Figures,
    run: RunTally,
) -> Report:
    strict = scores_of(totals, types)
    values = bootstrap.figures(totals, types, config.groups)

    def entry(name: str, counts: Counts | None = None) -> Report:
        """Precision, recall and F1 with their intervals."""
        parts: Report = {}
        for part in ("precision", "recall", "f1"):
            low, high = bootstrap.interval(draws[f"{name}/{part}"], config.bootstrap.level)
            parts[part] = {"value": float(values[f"{name}/{part}"]), "interval": [low, high]}
        return parts | (asdict(counts) if counts else {})

    groups = {}
    for name, indices in bootstrap.members(config.groups, types).items():
        members = [types[i] for i in indices]
        counts = sum((strict.per_type[type_] for type_ in members), Counts())
        groups[name] = entry(f"strict/group/{name}", counts) | {"types": members}
    hits = {"exact": totals[-1, EXACT], "partial": totals[-1, PARTIAL] / 2, "type": totals[-1, TYPE]}
    micro = strict.micro
    cells = sorted(run.confusion.items(), key=lambda cell: (-cell[1], cell[0]))
    return {
        "strict": {
            "micro": entry("strict/micro", micro),
            "macro": entry("strict/macro"),
            "types": {type_: entry(f"strict/type/{type_}", counts) for type_, counts in strict.per_type.items()},
            "groups": groups,
        },
        "schemes": {
            name: entry(f"{name}/micro") | {"correct": float(hit), "predicted": micro.predicted, "gold": micro.gold}
            for name, hit in hits.items()
        },
        "errors": {
            "kinds": outcomes(run),
            "types": {type_: outcomes(run, type_) for type_ in types},
            "confusion": [{"kind": k, "gold": g or None, "predicted": p or None, "count": n} for (k, g, p), n in cells],
        },
        "statuses": dict(sorted(run.statuses.items())),
        "unanswered": {status: list(ids) for status, ids in sorted(run.unanswered.items())},
        "calibration": calibration.summary(run.reliability),
    }


def outcomes(run: RunTally, type_: str | None = None) -> dict[str, int]:
    """Pairs by outcome: all, or those of gold entities of a type and of spurious ones that were given it."""
    counts: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
    for (name, gold, predicted), count in run.confusion.items():
        if type_ is None or (gold or predicted) == type_:
            counts[name] += count
    return counts


def error_row(row: ErrorRow, text: str) -> Report:
    """A row with errors: an excerpt of :data:`EXCERPT` characters that begins just before its first error.

    ``offset`` is where the excerpt begins in the text. ``gold`` and ``predicted`` are the spans that lie in the
    excerpt, relative to it; ``gold_beyond`` and ``predicted_beyond`` are errors that do not, as (start, end, type,
    surface), in the whole text.
    """
    wrong = set(row.gold) ^ set(row.predicted)
    first = min((start for start, _, _ in wrong), default=0)
    begin = max(0, first - CONTEXT) if len(text) > EXCERPT else 0
    end = begin + EXCERPT
    values: Report = {"id": row.id, "errors": row.errors, "status": row.status, "offset": begin}
    values["text"] = text[begin:end]
    sides = {"gold": row.gold, "predicted": row.predicted}
    for name, spans in sides.items():
        values[name] = [(s - begin, e - begin, type_) for s, e, type_ in spans if begin <= s and e <= end]
    for name, spans in sides.items():
        beyond = sorted(wrong & {span for span in spans if span[0] < begin or span[1] > end})
        values[f"{name}_beyond"] = [(s, e, type_, _shortened(text[s:e])) for s, e, type_ in beyond]
    return values


def _comparison(config: EvaluateConfig, types: tuple[str, ...], totals: np.ndarray, draws: Sequence[Figures]) -> Report:
    """By figure: the run under `predictions` (this) beside the one under `against` (other)."""
    this, other = (bootstrap.figures(total, types, config.groups) for total in totals)
    level = config.bootstrap.level
    return {
        name: bootstrap.compare(float(this[name]), float(other[name]), draws[0][name], draws[1][name], level)
        for name in this
        if name.endswith("/f1")
    }


def write(folder: str, report: Report, images: Mapping[str, bytes | None]) -> None:
    """Replace the report in a folder: plots and report.md first, report.json last, each written whole.

    While it is written there is no report.json, so none speaks of other plots. ``images`` are PNGs by file name; one
    that is None is not there any more.
    """
    plots = {name: image for name, image in images.items() if image is not None}
    lines = "\n".join(markdown_lines(report, list(plots)))
    for name in (JSON, MARKDOWN, *images):
        storage.remove(storage.join(folder, name))
    for name, image in plots.items():
        storage.write_bytes(storage.join(folder, name), image)
    storage.write_bytes(storage.join(folder, MARKDOWN), lines.encode())
    storage.write_json(storage.join(folder, JSON), report)


def markdown_lines(report: Report, images: Sequence[str]) -> Iterator[str]:
    """The lines of report.md."""
    resampling = report["bootstrap"]
    yield "# Evaluation\n"
    yield (
        f"{report['rows']['scored']:,} rows. Intervals: {resampling['level']:.0%}, bootstrap of "
        f"{resampling['resamples']:,} resamples, drawing {resampling['drawn']}."
    )
    if report["comparison"]:
        yield f"\n**{verdict(report)}**\n"
        yield markdown.markdown_table(["F1", *COMPARISON], _comparison_cells(report))
    for run in report["runs"]:
        yield f"\n## {run['predictions']}\n"
        header = ["strict span and type", "P", "R", "F1", "interval", "gold", "predicted", "correct"]
        yield markdown.markdown_table(header, [[name, *_score_cells(entry)] for name, entry in _score_lines(run)])
        yield "\nErrors:\n"
        yield markdown.markdown_table(["error", "gold", "predicted", "count"], _error_cells(run, FILE_ERRORS))
        for status, ids in run["unanswered"].items():
            rows = f"{run['statuses'][status]:,} rows `{status}`"
            yield f"\n{rows}, what they lack is missed: {markdown.escape(', '.join(ids))}"
        yield "\nRows with the most errors:\n"
        for row in run["worst"]:
            yield f"- `{row['id']}`, {row['errors']} errors"
            for side in ("gold", "predicted"):
                spans = [(start, end, type_) for start, end, type_ in row[side]]
                also = ", ".join(mention for mention, _ in first_mentions(unmarked(row, side), FILE_SPANS))
                text = marked(row["text"], spans) + (f"; also {also}" if also else "")
                yield f"  - {side}: {markdown.escape(text)}"
    yield "\n## Plots\n"
    yield from (f"![{name}]({name})" for name in images)


def render(report: Report) -> Iterator[RenderableType]:
    """The report on a terminal: scores, errors, the worst rows and the comparison."""
    for run in report["runs"]:
        yield from _render_run(report, run)
    if report["comparison"]:
        this, other = (run["predictions"] for run in report["runs"])
        comparison = _table("F1", COMPARISON, f"{this} against {other}")
        for cells in _comparison_cells(report):
            comparison.add_row(*map(escape, cells))
        yield comparison
        yield Text(verdict(report), style="bold")
    for side in ("gold", "predictions"):
        if count := report["rows"][f"{side}_skipped"]:
            yield f"{count:,} rows of {side} left out: no partner"


def _render_run(report: Report, run: Report) -> Iterator[RenderableType]:
    name = run["predictions"]
    title = f"{name}, {report['rows']['scored']:,} rows, {report['bootstrap']['level']:.0%} intervals"
    scores = _table("strict", ("P", "R", "F1", "interval", "gold", "pred", "correct"), title)
    for label, entry in _score_lines(run):
        scores.add_row(escape(label), *_score_cells(entry), end_section=label in ("macro", "micro"))
    yield scores
    by_outcome = _table("type", OUTCOMES, f"{name}: entities by outcome")
    lines = [*run["errors"]["types"].items(), ("all", run["errors"]["kinds"])]
    for i, (type_, counts) in enumerate(lines):
        cells = [f"{counts[outcome]:,}" for outcome in OUTCOMES]
        by_outcome.add_row(escape(type_), *cells, end_section=i == len(lines) - 2)
    yield by_outcome
    frequent = Table("error", "gold", "predicted", title="most frequent errors")
    frequent.add_column("count", justify="right", no_wrap=True)
    for cells in _error_cells(run, TERMINAL_ERRORS):
        frequent.add_row(*map(escape, cells))
    yield frequent
    for status, ids in run["unanswered"].items():
        more = run["statuses"][status] - len(ids[:TERMINAL_IDS])
        named = ", ".join(ids[:TERMINAL_IDS]) + (f" and {more:,} more" if more else "")
        yield escape(f"{run['statuses'][status]:,} rows {status}, what they lack is missed: {named}")
    if run["calibration"]:
        scored, ece = run["calibration"]["scored"], run["calibration"]["ece"]
        yield f"calibration: ECE {ece:.3f} over {scored:,} scored entities"
    yield from map(worst_row, run["worst"][:TERMINAL_ROWS])


def _table(first: str, numbers: Sequence[str], title: str) -> Table:
    """A table whose columns after the first hold numbers."""
    table = Table(first, title=escape(title))
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def verdict(report: Report) -> str:
    """Whether the run is better than the one it is compared with, in a sentence."""
    entry = report["comparison"]["strict/micro/f1"]
    low, high = entry["interval"]
    interval = f"{report['bootstrap']['level']:.0%} interval {low:+.3f} to {high:+.3f}, p = {entry['p']:.3f}"
    figures = f"strict micro F1 {entry['difference']:+.3f}, {interval}"
    if low <= 0 <= high:
        return f"no difference that these rows can show: {figures}"
    return f"{'better' if low > 0 else 'worse'} than {report['runs'][1]['predictions']}: {figures}"


def _score_lines(run: Report) -> Iterator[tuple[str, Report]]:
    """(name, entry) of each line of the table of scores."""
    strict = run["strict"]
    yield from strict["types"].items()
    yield from ((f"group {name}", entry) for name, entry in strict["groups"].items())
    yield "macro", strict["macro"]
    yield "micro", strict["micro"]
    yield from run["schemes"].items()


def _score_cells(entry: Report) -> list[str]:
    """P, R, F1, interval, gold, predicted, correct."""
    low, high = entry["f1"]["interval"]
    counts = [f"{entry[name]:,g}" if name in entry else "" for name in ("gold", "predicted", "correct")]
    return [*(f"{entry[p]['value']:.3f}" for p in ("precision", "recall", "f1")), f"{low:.3f}-{high:.3f}", *counts]


def _error_cells(run: Report, count: int) -> list[list[str]]:
    """Kind, gold type, predicted type and count of the most frequent errors."""
    errors = [cell for cell in run["errors"]["confusion"] if cell["kind"] != "correct"][:count]
    return [[e["kind"], e["gold"] or "-", e["predicted"] or "-", f"{e['count']:,}"] for e in errors]


def _comparison_cells(report: Report) -> Iterator[list[str]]:
    """The figure's name and the cells of :data:`COMPARISON`."""
    for name, entry in report["comparison"].items():
        low, high = entry["interval"]
        figures = [f"{entry['this']:.3f}", f"{entry['other']:.3f}", f"{entry['difference']:+.3f}"]
        certainty = [f"{low:+.3f} to {high:+.3f}", f"{entry['this_better']:.1%}", f"{entry['p']:.3f}"]
        yield [name.removesuffix("/f1").replace("/", " "), *figures, *certainty]


def worst_row(row: Report) -> Text:
    """A row on the terminal, gold above predicted; green what the other side has too, red what it has not."""
    status = f", {row['status']}" if row["status"] not in (None, "ok") else ""
    lines = Text(f"{row['id']}: {row['errors']} errors{status}", style="bold")
    for side, other_side in (("gold", "predicted"), ("predicted", "gold")):
        spans, other = ({(start, end, type_) for start, end, type_ in row[name]} for name in (side, other_side))
        line = Text(f"\n{side:>9}  ", style="dim")
        for piece, span in pieces(row["text"], spans):
            line.append(piece.replace("\n", " "), style=_style(span in other) if span else "not dim")
        for i, (mention, correct) in enumerate(first_mentions(unmarked(row, side), TERMINAL_SPANS)):
            line.append(", " if i else "; also ", style="dim")
            line.append(mention.replace("\n", " "), style=_style(correct))
        lines += line
    return lines


def _style(correct: bool) -> str:
    return f"not dim bold {'green' if correct else 'red'}"


def nested(spans: Collection[Span]) -> tuple[list[Span], list[Span]]:
    """Spans that lie beside or in each other, outer ones first, and the rest: each crosses one of the former."""
    nesting: list[Span] = []
    crossing: list[Span] = []
    around: list[Span] = []
    for span in sorted(set(spans), key=lambda span: (span[0], -span[1], span[2])):
        while around and around[-1][1] <= span[0]:
            around.pop()
        if around and span[1] > around[-1][1]:
            crossing.append(span)
        else:
            nesting.append(span)
            around.append(span)
    return nesting, crossing


def pieces(text: str, spans: Collection[Span]) -> Iterator[tuple[str, Span | None]]:
    """The text with ``[Ohio|LOC]`` around each span that :func:`nested` lets be marked, in pieces.

    Each piece comes with the span that it marks, or else with the innermost one that it lies in.
    """
    around: list[Span] = []
    position = 0
    for span in [*nested(spans)[0], None]:
        while around and (span is None or around[-1][1] <= span[0]):
            yield text[position : around[-1][1]], around[-1]
            position = around[-1][1]
            yield f"|{around[-1][2]}]", around.pop()
        yield text[position : span[0] if span else None], around[-1] if around else None
        if span:
            position = span[0]
            around.append(span)
            yield "[", span


def marked(text: str, spans: Collection[Span]) -> str:
    """The text with marks around its spans, nested ones inside each other."""
    return "".join(piece for piece, _ in pieces(text, spans))


def unmarked(row: Report, side: str) -> list[tuple[str, bool]]:
    """What the marked text of :func:`error_row` does not show of a side (gold, predicted), and whether it is correct.

    Those are spans that cross another one, and errors beyond the excerpt; offsets are those of the whole text.
    """
    other = {tuple(span) for span in row["predicted" if side == "gold" else "gold"]}
    _, crossing = nested([(start, end, type_) for start, end, type_ in row[side]])
    mentions = []
    for start, end, type_ in crossing:
        surface, shift = _shortened(row["text"][start:end]), row["offset"]
        mention = f"[{surface}|{type_}] at {start + shift}-{end + shift}"
        mentions.append((mention, (start, end, type_) in other))
    for start, end, type_, surface in row[f"{side}_beyond"]:
        mentions.append((f"[{surface}|{type_}] at {start}-{end}", False))
    return mentions


def _shortened(surface: str) -> str:
    """A surface that may be a whole document, for a list."""
    return surface if len(surface) <= SURFACE else f"{surface[: SURFACE - 3]}..."


def first_mentions(mentions: Sequence[tuple[str, bool]], count: int) -> list[tuple[str, bool]]:
    """The first ones of a list, errors before the others, and how many more there are."""
    ordered = sorted(mentions, key=lambda mention: mention[1])
    more = len(ordered) - count
    return ordered if more <= 0 else [*ordered[:count], (f"{more:,} more", ordered[count][1])]
