"""What an ablation found: strict scores with intervals, what each cell cost, and whether it beats the first one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ner_batch.config import dump
from ner_batch.experiments.curve import Line, lines
from ner_batch.experiments.plan import Plan
from ner_batch.experiments.plots import cost_plot, curve_plot, f1_plot
from ner_batch.experiments.results import Result, axes, place, score
from ner_batch.io import storage
from ner_batch.jobs.markdown import markdown_table

JSON, MARKDOWN, F1_PLOT, COST_PLOT, CURVE_PLOT = "report.json", "report.md", "f1.png", "cost.png", "curve.png"
HEAD = ("P", "R", "F1", "interval", "vs first", "p", "prompt", "answer", "s", "not ok")
SHOWN = ("F1", "interval", "vs first", "p", "prompt", "s")  # on the terminal


def write(plan: Plan, console: Console) -> None:
    """Score every cell; print the table; write report.json, report.md and the plots."""
    results = [score(plan, work) for work in plan.work]
    curves = lines(results, plan.examples)
    console.print(_rich_curves(curves) if curves else _rich(results))
    images = {F1_PLOT: f1_plot(results), COST_PLOT: cost_plot(results)}
    images |= {CURVE_PLOT: curve_plot(curves)} if curves else {}
    folder = plan.config.output
    for name, image in images.items():
        storage.write_bytes(storage.join(folder, name), image)
    storage.write_bytes(storage.join(folder, MARKDOWN), "\n".join(markdown(plan, results, curves)).encode())
    storage.write_json(storage.join(folder, JSON), _plain(plan, results, curves))
    console.print(f"report: {folder}", highlight=False, soft_wrap=True, markup=False)


def _scores(entry: Mapping[str, Any]) -> list[str]:
    low, high = entry["f1"]["interval"]
    return [*(f"{entry[part]['value']:.3f}" for part in ("precision", "recall", "f1")), f"{low:.3f}-{high:.3f}"]


def _line(result: Result) -> list[str]:
    """One row of the main table, as :data:`HEAD` says."""
    told = result.difference
    against = [f"{told['difference']:+.3f}", f"{told['p']:.3f}"] if told else ["", ""]
    cost = [f"{result.prompt_tokens:,.0f}", f"{result.completion_tokens:,.0f}", f"{result.seconds:.3f}"]
    return [*_scores(result.strict["micro"]), *against, *cost, f"{result.not_ok:,}"]


def _rich(results: Sequence[Result]) -> Table:
    named = axes(results)
    table = Table(box=None, pad_edge=False)
    table.add_column("cell", overflow="fold")
    for name in SHOWN:
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        values = dict(zip(HEAD, _line(result), strict=True))
        table.add_row(place(result, named), *(values[name] for name in SHOWN))
    return table


Wording = Callable[[Sequence[float]], str]
"""The draws of a size, in a table."""


def _curve_table(curves: Sequence[Line], wording: Wording) -> tuple[list[str], list[list[str]]]:
    """Head and rows: F1 by number of examples, the draws of a size as ``wording`` has them."""
    sizes = sorted({size for line in curves for size in line.points})
    rows = [[line.name, *(wording(line.points.get(size, ())) for size in sizes)] for line in curves]
    return ["F1 by annotated examples", *(f"{size:,}" for size in sizes)], rows


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3f}" if values else ""


def _spread(values: Sequence[float]) -> str:
    """The mean with the lowest and the highest."""
    return f"{_mean(values)} ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else _mean(values)


def _rich_curves(curves: Sequence[Line]) -> Table:
    head, rows = _curve_table(curves, _mean)  # a line each on 80 columns
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(head):
        table.add_column(name, overflow="fold", justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _markdown_curves(plan: Plan, curves: Sequence[Line]) -> Iterator[str]:
    assert plan.config.curve
    yield "## F1 by the number of annotated examples\n"
    yield (
        f"The mean of {plan.config.curve.seeds} draws of each size (of all examples: of as many trainings), with the "
        "lowest and the highest F1 among them; a smaller draw is part of the larger one of its seed. Demonstrations "
        f"come from the draw, and adapters have learnt from it alone{_but_dev(plan)}. {plan.known:,} of the texts that "
        "are read stand among the examples too.\n"
    )
    yield markdown_table(*_curve_table(curves, _spread))
    yield f"\n![F1 by annotated examples]({CURVE_PLOT})\n\n## Every cell\n"


def _but_dev(plan: Plan) -> str:
    """What else the adapters know."""
    dev = any(training.config.gold.dev for training in plan.trainings)
    return "; checkpoints were chosen by the dev set that the training config names" if dev else ""


def markdown(plan: Plan, results: Sequence[Result], curves: Sequence[Line]) -> Iterator[str]:
    """The lines of report.md."""
    yield "# Ablation\n"
    yield (
        f"{len(plan.test):,} texts of `{plan.config.gold.test}`, model `{Path(plan.config.engine.model).name}`. Strict "
        f"span and type; 95 % intervals from {plan.config.resamples:,} bootstrap resamples of texts; `vs first` and p "
        "from the paired bootstrap against the first row. `prompt` and `answer` are tokens a text, `s` seconds a text "
        "here. Cells that ask the same prompts find them in the prefix cache, so compare tokens rather than seconds. "
        "`not ok` counts texts that were not fully answered.\n"
    )
    if curves:
        yield from _markdown_curves(plan, curves)
    named = axes(results)
    same = results[0].cell.items()
    fixed = [f"{name} {value}" for name, value in same if name not in named and value is not None]
    yield f"The same in all rows: {', '.join(fixed)}.\n" if fixed else ""
    yield markdown_table(["cell", *HEAD], [[place(result, named), *_line(result)] for result in results])
    yield "\n## F1 by type\n"
    types = list(results[0].strict["types"])
    values = [[_f1(result.strict["types"].get(t)) for t in types] for result in results]
    lined = [[place(result, named), *line] for result, line in zip(results, values, strict=True)]
    yield markdown_table(["cell", *types], lined)
    if plan.config.groups:
        yield "\n## By group\n"
        scored = [
            [place(r, named), group, *_scores(entry)] for r in results for group, entry in r.strict["groups"].items()
        ]
        yield markdown_table(["cell", "group", "P", "R", "F1", "interval"], scored)
    if plan.left_out:
        yield "\n## Left out\n"
        yield from (f"- {cell.name}: {reason}" for cell, reason in plan.left_out)
    yield f"\n![F1 with intervals]({F1_PLOT})\n\n![F1 and tokens]({COST_PLOT})"


def _f1(entry: Mapping[str, Any] | None) -> str:
    return f"{entry['f1']['value']:.3f}" if entry else ""


def _plain(plan: Plan, results: Sequence[Result], curves: Sequence[Line]) -> dict[str, Any]:
    cells = [{name: getattr(result, name) for name in Result.__slots__} for result in results]
    left_out = [{"cell": cell.values, "reason": reason} for cell, reason in plan.left_out]
    told = {"texts": len(plan.test), "examples": plan.examples, "cells": cells, "left_out": left_out}
    return told | {"curves": [asdict(line) for line in curves], "config": dump(plan.config)}
