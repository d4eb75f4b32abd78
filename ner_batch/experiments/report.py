"""What an ablation found: strict scores with intervals, what each run cost, and whether it beats the first one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from ner_batch.config import dump
from ner_batch.evaluate import job as evaluation
from ner_batch.evaluate.report import Report, score_cells
from ner_batch.evaluate.settings import BootstrapConfig, EvaluateConfig, GoldConfig, PredictionsConfig
from ner_batch.experiments.grid import Combination, label, varying_axes
from ner_batch.experiments.plan import METADATA, Plan, Run, predictions_file
from ner_batch.io import storage, tables
from ner_batch.jobs.markdown import markdown_table
from ner_batch.jobs.plots import canvas, png
from ner_batch.jobs.progress import ProgressLine

JSON, MARKDOWN, F1_PLOT, COST_PLOT, CURVE_PLOT = "report.json", "report.md", "f1.png", "cost.png", "curve.png"
COLUMNS = ("P", "R", "F1", "interval", "vs first", "p", "prompt", "answer", "s", "not ok")
TERMINAL_COLUMNS = ("F1", "interval", "vs first", "p", "prompt", "s")


@dataclass(frozen=True, slots=True)
class Curve:
    """One way of reading: F1 of every subset by number of examples; ``flat``: one F1 that holds for every size."""

    name: str
    points: Mapping[int, tuple[float, ...]]
    flat: bool = False


def curves(f1: Mapping[Combination, float], total: int) -> list[Curve]:
    """A curve for each combination whatever its subset, out of strict micro F1; ``total`` is the size "all"."""
    count = {c.subset: total if c.subset.size == "all" else c.subset.size for c in f1 if c.subset}
    axes = [name for name in varying_axes(list(f1)) if name not in ("size", "seed")]
    points: dict[Combination, dict[int, tuple[float, ...]]] = {}
    for combination, value in f1.items():
        of_way = points.setdefault(replace(combination, subset=None), {})
        for size in [count[combination.subset]] if combination.subset else set(count.values()):
            of_way[size] = (*of_way.get(size, ()), value)
    return [
        Curve(label(way, axes), dict(sorted(by_size.items())), flat=way in f1)
        for way, by_size in points.items()
        if by_size  # there are subsets
    ]


def write(plan: Plan, console: Console) -> None:
    """Score every run; print the table; write report.json, report.md and the plots."""
    axes = varying_axes([run.combination for run in plan.runs])
    results: dict[str, Report] = {}
    with ProgressLine(console) as line:
        for number, run in enumerate(plan.runs, 1):
            line.show(f"scoring {number} of {len(plan.runs)}  {run.combination.name}")
            results[label(run.combination, axes)] = score(plan, run)
    f1 = [result["strict"]["micro"]["f1"]["value"] for result in results.values()]
    by_size = curves(dict(zip((run.combination for run in plan.runs), f1, strict=True)), len(plan.examples))
    if by_size:
        header, rows = curve_rows(by_size, ranges=False)
    else:
        header, rows = ["cell", *TERMINAL_COLUMNS], []
        for name, result in results.items():
            row = dict(zip(COLUMNS, result_cells(result), strict=True))
            rows.append([name, *(row[column] for column in TERMINAL_COLUMNS)])
    table = Table(box=None, pad_edge=False)
    table.add_column(header[0], overflow="fold")
    for name in header[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for cells in rows:
        table.add_row(*cells)
    console.print(table)
    folder = plan.config.output
    images = {F1_PLOT: f1_plot(results), COST_PLOT: cost_plot(results)}
    images |= {CURVE_PLOT: curve_plot(by_size)} if by_size else {}
    lines = "\n".join(markdown_lines(plan, results, by_size, axes))
    values = {
        "texts": len(plan.test),
        "examples": len(plan.examples),
        "cells": list(results.values()),
        "left_out": [{"cell": combination.values, "reason": reason} for combination, reason in plan.left_out],
        "curves": [asdict(curve) for curve in by_size],
        "config": dump(plan.config),
    }
    with storage.explained(folder):
        for name, image in images.items():
            storage.write_bytes(storage.join(folder, name), image)
        storage.write_bytes(storage.join(folder, MARKDOWN), lines.encode())
        storage.write_json(storage.join(folder, JSON), values)
    console.print(f"report: {folder}", highlight=False, soft_wrap=True, markup=False)


def score(plan: Plan, run: Run) -> Report:
    """Score a run as `ner-batch evaluate` does, against the first one; tokens and seconds are means over texts."""
    uri, first = predictions_file(plan, run), predictions_file(plan, plan.runs[0])
    config = EvaluateConfig(
        predictions=PredictionsConfig(path=uri),
        gold=GoldConfig(column="gold_entities"),
        against=None if uri == first else first,
        output=plan.config.output,
        groups=plan.config.groups,
        bootstrap=BootstrapConfig(resamples=plan.config.resamples),
    )
    values = evaluation.evaluate(evaluation.prepare(config))
    table = tables.read_table(uri)
    complete = pc.is_in(table["status"], value_set=pa.array(["ok", "empty"]))
    return {
        "cell": run.combination.values,
        "name": run.combination.name,
        "strict": values["runs"][0]["strict"],
        "difference": values["comparison"] and values["comparison"]["strict/micro/f1"],
        "prompt_tokens": pc.mean(table["prompt_tokens"]).as_py(),
        "completion_tokens": pc.mean(table["completion_tokens"]).as_py(),
        "seconds": json.loads(tables.read_metadata(uri)[METADATA])["seconds"] / table.num_rows,
        "not_ok": table.num_rows - pc.sum(complete).as_py(),
    }


def result_cells(result: Report) -> list[str]:
    """The cells of :data:`COLUMNS`."""
    against = result["difference"]
    difference = [f"{against['difference']:+.3f}", f"{against['p']:.3f}"] if against else ["", ""]
    cost = [f"{result['prompt_tokens']:,.0f}", f"{result['completion_tokens']:,.0f}", f"{result['seconds']:.3f}"]
    return [*score_cells(result["strict"]["micro"]), *difference, *cost, f"{result['not_ok']:,}"]


def curve_rows(by_size: Sequence[Curve], *, ranges: bool) -> tuple[list[str], list[list[str]]]:
    """Header and rows: mean F1 by number of examples; ``ranges``: with the lowest and the highest of a size."""
    sizes = sorted({size for curve in by_size for size in curve.points})
    rows = []
    for curve in by_size:
        cells = []
        for size in sizes:
            f1 = curve.points.get(size, ())
            mean = f"{sum(f1) / len(f1):.3f}" if f1 else ""
            cells.append(f"{mean} ({min(f1):.3f}-{max(f1):.3f})" if ranges and len(f1) > 1 else mean)
        rows.append([curve.name, *cells])
    return ["F1 by annotated examples", *(f"{size:,}" for size in sizes)], rows


def markdown_lines(
    plan: Plan, results: Mapping[str, Report], by_size: Sequence[Curve], axes: Sequence[str]
) -> Iterator[str]:
    """The lines of report.md; ``axes`` are those on which the runs differ."""
    yield "# Ablation\n"
    yield (
        f"{len(plan.test):,} texts of `{plan.config.gold.test}`, model `{Path(plan.config.engine.model).name}`. Strict "
        f"span and type; 95 % intervals from {plan.config.resamples:,} bootstrap resamples of texts; `vs first` and p "
        "from the paired bootstrap against the first row. `prompt` and `answer` are tokens a text, `s` seconds a text "
        "here. Cells that ask the same prompts find them in the prefix cache, so compare tokens rather than seconds. "
        "`not ok` counts texts that were not fully answered.\n"
    )
    if plan.config.curve and by_size:
        overlap = len({example.text.strip() for example in plan.test} & {x.text.strip() for x in plan.examples})
        dev = any(training.config.gold.dev for training in plan.trainings)
        but_dev = "; checkpoints were chosen by the dev set that the training config names" if dev else ""
        yield "## F1 by the number of annotated examples\n"
        yield (
            f"The mean of {plan.config.curve.seeds} draws of each size (of all examples: of as many trainings), with "
            "the lowest and the highest F1 among them; a smaller draw is part of the larger one of its seed. "
            f"Demonstrations come from the draw, and adapters have learnt from it alone{but_dev}. {overlap:,} of "
            "the texts that are read stand among the examples too.\n"
        )
        yield markdown_table(*curve_rows(by_size, ranges=True))
        yield f"\n![F1 by annotated examples]({CURVE_PLOT})\n\n## Every cell\n"
    first = next(iter(results.values()))
    fixed = [f"{name} {value}" for name, value in first["cell"].items() if name not in axes and value is not None]
    yield f"The same in all rows: {', '.join(fixed)}.\n" if fixed else ""
    yield markdown_table(["cell", *COLUMNS], [[name, *result_cells(result)] for name, result in results.items()])
    yield "\n## F1 by type\n"
    types, rows = list(first["strict"]["types"]), []
    for name, result in results.items():
        entries = [result["strict"]["types"].get(type_) for type_ in types]
        rows.append([name, *(f"{entry['f1']['value']:.3f}" if entry else "" for entry in entries)])
    yield markdown_table(["cell", *types], rows)
    if plan.config.groups:
        yield "\n## By group\n"
        groups = [(name, *group) for name, result in results.items() for group in result["strict"]["groups"].items()]
        rows = [[name, group, *score_cells(entry)] for name, group, entry in groups]
        yield markdown_table(["cell", "group", "P", "R", "F1", "interval"], rows)
    if plan.left_out:
        yield "\n## Left out\n"
        yield from (f"- {combination.name}: {reason}" for combination, reason in plan.left_out)
    yield f"\n![F1 with intervals]({F1_PLOT})\n\n![F1 and tokens]({COST_PLOT})"


def f1_plot(results: Mapping[str, Report]) -> bytes:
    """Strict F1 of every run with its interval."""
    figure, axes = canvas(9, 1.2 + 0.3 * len(results))
    f1 = [result["strict"]["micro"]["f1"] for result in results.values()]
    values, ends = np.array([entry["value"] for entry in f1]), np.array([entry["interval"] for entry in f1])
    errors = np.maximum(0, [values - ends[:, 0], ends[:, 1] - values])
    axes.barh(range(len(results)), values, xerr=errors, color="tab:blue", capsize=3)
    axes.set_yticks(range(len(results)), list(results))
    axes.invert_yaxis()
    axes.set(xlabel="strict F1, 95 % interval", xlim=(0, 1))
    return png(figure)


def cost_plot(results: Mapping[str, Report]) -> bytes:
    """Strict F1 over the tokens a text costs."""
    figure, axes = canvas(8, 5)
    for number, (name, result) in enumerate(results.items(), 1):
        place = result["prompt_tokens"] + result["completion_tokens"], result["strict"]["micro"]["f1"]["value"]
        axes.plot(*place, "o", label=f"{number} {name}")
        axes.annotate(str(number), place, textcoords="offset points", xytext=(5, 4), fontsize=8)
    axes.set(xlabel="tokens per text, prompts and answers", ylabel="strict F1", ylim=(0, 1), xlim=(0, None))
    figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    return png(figure)


def curve_plot(by_size: Sequence[Curve]) -> bytes:
    """F1 by the number of annotated examples: means, every subset as a dot, and the range of the subsets shaded."""
    figure, axes = canvas(8, 5)
    for curve in by_size:
        sizes = list(curve.points)
        means = [sum(f1) / len(f1) for f1 in curve.points.values()]
        (line,) = axes.plot(sizes, means, "--" if curve.flat else "o-", markersize=4, label=curve.name)
        if curve.flat:
            continue
        lowest, highest = ([pick(f1) for f1 in curve.points.values()] for pick in (min, max))
        axes.fill_between(sizes, lowest, highest, alpha=0.15, color=line.get_color())
        for size, f1 in curve.points.items():
            axes.plot([size] * len(f1), f1, ".", markersize=3, color=line.get_color())
    sizes = sorted({size for curve in by_size for size in curve.points})
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    top = max(f1 for curve in by_size for values in curve.points.values() for f1 in values)
    axes.set(xlabel="annotated examples", ylabel="strict F1", ylim=(0, min(1.0, 1.25 * top + 0.01)))
    axes.legend(frameon=False, fontsize=8)
    return png(figure)
