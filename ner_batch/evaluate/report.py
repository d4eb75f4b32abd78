"""The report of an evaluation: its values, and how they look in report.json, in report.md and on a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ner_batch.config import dump
from ner_batch.evaluate import bootstrap, calibration
from ner_batch.evaluate.bootstrap import Figures
from ner_batch.evaluate.count import GROUPS, ErrorRow, RunTally, Tally
from ner_batch.evaluate.match import OUTCOMES
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


def build(config: EvaluateConfig, tally: Tally, texts: Mapping[str, str], unfinished: Sequence[str] = ()) -> Report:
    """The report of one run, or of two and their difference; ``texts``, by id, are those of the tally's worst rows."""
    histogram, level = tally.histogram, config.bootstrap.level
    types, totals = histogram.types, histogram.total()
    values = [bootstrap.figures(total, types, config.groups) for total in totals]
    draws = bootstrap.draw(histogram, config.groups, config.bootstrap.resamples, config.bootstrap.seed)
    paths = [config.predictions.path, config.against][: histogram.runs]
    runs, comparison = [], None
    for i, (path, run) in enumerate(zip(paths, tally.runs, strict=True)):
        worst = [error_row(row, texts.get(row.id, "")) for row in run.worst]
        scores = _scores(config, types, totals[i], values[i], draws[i])
        cells = sorted(run.confusion.items(), key=lambda cell: (-cell[1], cell[0]))
        errors = {
            "kinds": outcomes(run),
            "types": {type_: outcomes(run, type_) for type_ in types},
            "confusion": [{"kind": k, "gold": g or None, "predicted": p or None, "count": n} for (k, g, p), n in cells],
        }
        answers = {"statuses": dict(sorted(run.statuses.items())), "unanswered": dict(sorted(run.unanswered.items()))}
        calibrated = calibration.summary(run.reliability)
        runs.append(
            {"predictions": path, **scores, "errors": errors, **answers, "calibration": calibrated, "worst": worst}
        )
    if histogram.runs > 1:
        comparison = {
            name: bootstrap.compare(float(this), float(values[1][name]), draws[0][name], draws[1][name], level)
            for name, this in values[0].items()
            if name.endswith("/f1")
        }
    skipped = {"gold_skipped": tally.gold_skipped, "predictions_skipped": tally.predictions_skipped}
    resampled = f"{GROUPS:,} random groups of rows" if histogram.grouped else "rows"
    return {
        "schema_version": SCHEMA_VERSION,
        "rows": {"scored": tally.rows} | skipped,
        "unfinished": list(unfinished),
        "bootstrap": dump(config.bootstrap) | {"drawn": resampled},
        "runs": runs,
        "comparison": comparison,
        "config": dump(config),
        "versions": versions("ner-batch", "duckdb", "numpy", "scipy", "pyarrow"),
    }


def _scores(
    config: EvaluateConfig, types: Sequence[str], totals: np.ndarray, values: Figures, draws: Figures
) -> Report:
    """A run's figures with their intervals and counts; ``totals`` are its counts, shape (len(types) + 1, 3)."""
    sums = bootstrap.sums(totals, types, config.groups)

    def entry(name: str) -> Report:
        parts: Report = {}
        for part in ("precision", "recall", "f1"):
            low, high = bootstrap.interval(draws[f"{name}/{part}"], config.bootstrap.level)
            parts[part] = {"value": float(values[f"{name}/{part}"]), "interval": [low, high]}
        if name in sums:
            correct, predicted, gold = sums[name]
            parts |= {"correct": correct.item(), "predicted": int(predicted), "gold": int(gold)}
        return parts

    groups = bootstrap.members(config.groups, types).items()
    return {
        "strict": {
            "micro": entry("strict/micro"),
            "macro": entry("strict/macro"),
            "types": {type_: entry(f"strict/type/{type_}") for type_ in types},
            "groups": {n: entry(f"strict/group/{n}") | {"types": [types[i] for i in indices]} for n, indices in groups},
        },
        "schemes": {name: entry(f"{name}/micro") for name in ("exact", "partial", "type")},
    }


def outcomes(run: RunTally, type_: str | None = None) -> dict[str, int]:
    """Pairs by outcome: all, or those of gold entities of a type and of spurious ones that were given it."""
    counts: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
    for (name, gold, predicted), count in run.confusion.items():
        if type_ is None or (gold or predicted) == type_:
            counts[name] += count
    return counts


def error_row(row: ErrorRow, text: str) -> Report:
    """A row with errors: the :data:`EXCERPT` characters of its text from ``offset`` on, just before its first error.

    ``gold`` and ``predicted`` are the spans in the excerpt, relative to it; ``gold_beyond`` and ``predicted_beyond``
    are errors that do not lie in it, as (start, end, type, surface), in the whole text.
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


def _shortened(surface: str) -> str:
    return surface if len(surface) <= SURFACE else f"{surface[: SURFACE - 3]}..."


def write(folder: str, report: Report, images: Mapping[str, bytes | None]) -> None:
    """Replace the report in a folder: report.json last, so that none speaks of other plots.

    ``images`` are PNGs by file name; one that is None is not there any more.
    """
    plots = {name: image for name, image in images.items() if image is not None}
    lines = "\n".join(markdown_lines(report, list(plots)))
    with storage.explained(folder):
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
        yield markdown.markdown_table(["F1", *COMPARISON], _comparison_rows(report))
    for run in report["runs"]:
        yield f"\n## {run['predictions']}\n"
        header = ["strict span and type", "P", "R", "F1", "interval", "gold", "predicted", "correct"]
        yield markdown.markdown_table(header, _score_rows(run))
        yield "\nErrors:\n"
        yield markdown.markdown_table(["error", "gold", "predicted", "count"], _error_rows(run, FILE_ERRORS))
        for status, ids in run["unanswered"].items():
            rows = f"{run['statuses'][status]:,} rows `{status}`"
            yield f"\n{rows}, what they lack is missed: {markdown.escape(', '.join(ids))}"
        yield "\nRows with the most errors:\n"
        for row in run["worst"]:
            yield f"- `{row['id']}`, {row['errors']} errors"
            for side in ("gold", "predicted"):
                text = "".join(piece for piece, _ in marked(row, side, FILE_SPANS))
                yield f"  - {side}: {markdown.escape(text)}"
    yield "\n## Plots\n"
    yield from (f"![{name}]({name})" for name in images)


def render(report: Report) -> Iterator[RenderableType]:
    """The report on a terminal: scores, errors, the worst rows and the comparison."""
    for run in report["runs"]:
        name, scores, by_type = run["predictions"], _score_rows(run), run["errors"]["types"]
        title = f"{name}, {report['rows']['scored']:,} rows, {report['bootstrap']['level']:.0%} intervals"
        header = ("strict", "P", "R", "F1", "interval", "gold", "pred", "correct")
        micro = len(scores) - len(run["schemes"]) - 1
        yield _table(title, header, scores, ends=(micro - 1, micro))
        outcome_rows = [
            [type_, *(f"{counts[outcome]:,}" for outcome in OUTCOMES)]
            for type_, counts in [*by_type.items(), ("all", run["errors"]["kinds"])]
        ]
        yield _table(f"{name}: entities by outcome", ("type", *OUTCOMES), outcome_rows, ends=(len(by_type) - 1,))
        errors = _error_rows(run, TERMINAL_ERRORS)
        yield _table("most frequent errors", ("error", "gold", "predicted", "count"), errors, text_columns=3)
        for status, ids in run["unanswered"].items():
            more = run["statuses"][status] - len(ids[:TERMINAL_IDS])
            named = ", ".join(ids[:TERMINAL_IDS]) + (f" and {more:,} more" if more else "")
            yield escape(f"{run['statuses'][status]:,} rows {status}, what they lack is missed: {named}")
        if run["calibration"]:
            scored, ece = run["calibration"]["scored"], run["calibration"]["ece"]
            yield f"calibration: ECE {ece:.3f} over {scored:,} scored entities"
        yield from map(worst_row, run["worst"][:TERMINAL_ROWS])
    if report["comparison"]:
        this, other = (run["predictions"] for run in report["runs"])
        yield _table(f"{this} against {other}", ("F1", *COMPARISON), _comparison_rows(report))
        yield Text(verdict(report), style="bold")
    for side in ("gold", "predictions"):
        if count := report["rows"][f"{side}_skipped"]:
            yield f"{count:,} rows of {side} left out: no partner"


def _table(
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    text_columns: int = 1,
    ends: Collection[int] = (),
) -> Table:
    """A table whose columns after the first ``text_columns`` hold numbers; ``ends`` are rows with a line below."""
    table = Table(title=escape(title))
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i < text_columns else "right", no_wrap=i >= text_columns)
    for i, cells in enumerate(rows):
        table.add_row(*map(escape, cells), end_section=i in ends)
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


def score_cells(entry: Mapping[str, Any]) -> list[str]:
    """P, R, F1 and its interval."""
    low, high = entry["f1"]["interval"]
    return [*(f"{entry[part]['value']:.3f}" for part in ("precision", "recall", "f1")), f"{low:.3f}-{high:.3f}"]


def _score_rows(run: Report) -> list[list[str]]:
    """Name, P, R, F1, interval, gold, predicted, correct: types, groups, macro, micro, the other schemes."""
    strict = run["strict"]
    entries = [*strict["types"].items(), *((f"group {name}", entry) for name, entry in strict["groups"].items())]
    entries += [("macro", strict["macro"]), ("micro", strict["micro"]), *run["schemes"].items()]
    sides = ("gold", "predicted", "correct")
    return [
        [name, *score_cells(entry), *(f"{entry[side]:,g}" if side in entry else "" for side in sides)]
        for name, entry in entries
    ]


def _error_rows(run: Report, count: int) -> list[list[str]]:
    """Kind, gold type, predicted type and count of the most frequent errors."""
    errors = [cell for cell in run["errors"]["confusion"] if cell["kind"] != "correct"][:count]
    return [[e["kind"], e["gold"] or "-", e["predicted"] or "-", f"{e['count']:,}"] for e in errors]


def _comparison_rows(report: Report) -> Iterator[list[str]]:
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
    for side in ("gold", "predicted"):
        lines.append(f"\n{side:>9}  ", style="dim")
        for piece, correct in marked(row, side, TERMINAL_SPANS):
            lines.append(piece.replace("\n", " "), style={None: "", True: "green", False: "red"}[correct])
    return lines


def marked(row: Report, side: str, most: int) -> list[tuple[str, bool | None]]:
    """A side of an :func:`error_row` in pieces: its text with ``[Ohio|LOC]`` around spans, also inside each other.

    Behind it stand ``most`` of the spans that cross another one and of errors beyond the excerpt, errors first. A piece
    comes with whether the other side has its span too; None where it is in no span.
    """
    text, shift = row["text"], row["offset"]
    other = {tuple(span) for span in row["predicted" if side == "gold" else "gold"]}
    pieces: list[tuple[str, bool | None]] = []
    unmarked: list[tuple[str, bool | None]] = []
    around: list[tuple[int, int, str]] = []
    position = 0
    spans = sorted({(start, end, type_) for start, end, type_ in row[side]}, key=lambda s: (s[0], -s[1], s[2]))
    for span in [*spans, (len(text), len(text), "")]:  # the last one, of nothing, closes those that are open
        start, end, type_ = span
        while around and around[-1][1] <= start:
            closed = around.pop()
            pieces += [(text[position : closed[1]], closed in other), (f"|{closed[2]}]", closed in other)]
            position = closed[1]
        pieces.append((text[position:start], around[-1] in other if around else None))
        position = start
        if around and end > around[-1][1]:
            unmarked.append((_mention(_shortened(text[start:end]), type_, start + shift, end + shift), span in other))
        elif start < end:
            pieces.append(("[", span in other))
            around.append(span)
    unmarked += [(_mention(surface, type_, start, end), False) for start, end, type_, surface in row[f"{side}_beyond"]]
    unmarked.sort(key=lambda mention: bool(mention[1]))
    if len(unmarked) > most:
        unmarked[most:] = [(f"{len(unmarked) - most:,} more", unmarked[most][1])]
    for i, mention in enumerate(unmarked):
        pieces += [(", " if i else "; also ", None), mention]
    return pieces


def _mention(surface: str, type_: str, start: int, end: int) -> str:
    return f"[{surface}|{type_}] at {start}-{end}"
