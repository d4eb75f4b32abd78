"""What an ablation found: strict scores with intervals, what each cell cost, and whether it beats the first one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from ner_batch import storage
from ner_batch.ablate.plan import META, Plan, Work, path
from ner_batch.config import dump
from ner_batch.evaluate import job as scoring
from ner_batch.evaluate import plan as plans
from ner_batch.evaluate import report as reports
from ner_batch.evaluate.settings import EvaluateConfig
from ner_batch.figures import canvas, png

JSON, MARKDOWN, F1_PLOT, COST_PLOT = "report.json", "report.md", "f1.png", "cost.png"
HEAD = ("P", "R", "F1", "interval", "vs first", "p", "prompt", "answer", "s", "not ok")
SHOWN = ("F1", "interval", "vs first", "p", "prompt", "s")  # on the terminal


@dataclass(frozen=True, slots=True)
class Result:
    """A cell's figures. ``strict`` is the evaluation's entry; costs are means over texts."""

    cell: Mapping[str, Any]
    name: str
    strict: Mapping[str, Any]
    difference: Mapping[str, Any] | None
    prompt_tokens: float
    completion_tokens: float
    seconds: float
    not_ok: int


def write(plan: Plan, console: Console) -> None:
    """Score every cell; print the table; write report.json, report.md and the plots."""
    results = [_result(plan, work) for work in plan.work]
    console.print(_rich(results))
    folder = plan.config.output
    for name, image in ((F1_PLOT, f1_plot(results)), (COST_PLOT, cost_plot(results))):
        storage.write_bytes(storage.join(folder, name), image)
    storage.write_bytes(storage.join(folder, MARKDOWN), "\n".join(markdown(plan, results)).encode())
    storage.write_json(storage.join(folder, JSON), _plain(plan, results))
    console.print(f"report: {folder}", highlight=False, soft_wrap=True, markup=False)


def _result(plan: Plan, work: Work) -> Result:
    uri, first = path(plan, work), path(plan, plan.work[0])
    config = EvaluateConfig.model_validate(
        {
            "predictions": {"path": uri},
            "gold": {"column": "gold_entities"},
            "against": None if uri == first else first,
            "output": plan.config.output,
            "groups": plan.config.groups,
            "bootstrap": {"resamples": plan.config.resamples},
        }
    )
    prepared = plans.prepare(config)
    found = reports.build(prepared, scoring.score(prepared, Console(quiet=True)))
    table = storage.read_table(uri)
    seconds = json.loads(storage.read_metadata(uri)[META])["seconds"]
    prompt, completion = (pc.mean(table[name]).as_py() for name in ("prompt_tokens", "completion_tokens"))
    bad = table.num_rows - pc.sum(pc.is_in(table["status"], value_set=pa.array(["ok", "empty"]))).as_py()
    difference = found["comparison"] and found["comparison"]["strict/micro/f1"]
    strict = found["runs"][0]["strict"]
    return Result(
        work.cell.values, work.cell.name, strict, difference, prompt, completion, seconds / table.num_rows, bad
    )


def _scores(entry: Mapping[str, Any]) -> list[str]:
    low, high = entry["f1"]["interval"]
    return [*(f"{entry[part]['value']:.3f}" for part in ("precision", "recall", "f1")), f"{low:.3f}-{high:.3f}"]


def _axes(results: Sequence[Result]) -> list[str]:
    """The axes on which cells differ; the first where there is one cell."""
    names = list(results[0].cell)
    return [name for name in names if len({result.cell[name] for result in results}) > 1] or names[:1]


def _place(result: Result, axes: Sequence[str]) -> str:
    """Where a cell stands, in as few words as tell cells apart: `news json 4 lexical + zero-shot verification`."""
    cell = result.cell
    shown = f"{cell['k']} {cell['retrieval']}" if cell["k"] else "no demonstrations"
    words = {name: str(cell[name]) for name in ("reader", "format", "decoding") if name in axes}
    if {"retrieval", "k"} & set(axes):
        words["shown"] = shown
    if cell["verification"] != "none" and "verification" in axes:
        words["verification"] = f"+ {cell['verification']} verification"
    return " ".join(words.values()) or str(cell["reader"])


def _line(result: Result) -> list[str]:
    """One row of the main table, as :data:`HEAD` says."""
    told = result.difference
    against = [f"{told['difference']:+.3f}", f"{told['p']:.3f}"] if told else ["", ""]
    cost = [f"{result.prompt_tokens:,.0f}", f"{result.completion_tokens:,.0f}", f"{result.seconds:.3f}"]
    return [*_scores(result.strict["micro"]), *against, *cost, f"{result.not_ok:,}"]


def _rich(results: Sequence[Result]) -> Table:
    axes = _axes(results)
    table = Table(box=None, pad_edge=False)
    table.add_column("cell", overflow="fold")
    for name in SHOWN:
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        values = dict(zip(HEAD, _line(result), strict=True))
        table.add_row(_place(result, axes), *(values[name] for name in SHOWN))
    return table


def markdown(plan: Plan, results: Sequence[Result]) -> Iterator[str]:
    """The lines of report.md."""
    yield "# Ablation\n"
    yield (
        f"{len(plan.test):,} texts of `{plan.config.gold.test}`, model `{Path(plan.config.engine.model).name}`. Strict "
        f"span and type; 95 % intervals from {plan.config.resamples:,} bootstrap resamples of texts; `vs first` and p "
        "from the paired bootstrap against the first row. `prompt` and `answer` are tokens a text, `s` seconds a text "
        "here. Cells that ask the same prompts find them in the prefix cache, so compare tokens rather than seconds. "
        "`not ok` counts texts that were not fully answered.\n"
    )
    axes = _axes(results)
    fixed = [f"{name} {value}" for name, value in results[0].cell.items() if name not in axes]
    yield f"The same in all rows: {', '.join(fixed)}.\n" if fixed else ""
    yield from _rows(["cell", *HEAD], [[_place(result, axes), *_line(result)] for result in results])
    yield "\n## F1 by type\n"
    types = list(results[0].strict["types"])
    values = [[_f1(result.strict["types"].get(t)) for t in types] for result in results]
    named = [[_place(result, axes), *line] for result, line in zip(results, values, strict=True)]
    yield from _rows(["cell", *types], named)
    if plan.config.groups:
        yield "\n## By group\n"
        lines = [
            [_place(r, axes), group, *_scores(entry)] for r in results for group, entry in r.strict["groups"].items()
        ]
        yield from _rows(["cell", "group", "P", "R", "F1", "interval"], lines)
    if plan.left_out:
        yield "\n## Left out\n"
        yield from (f"- {cell.name}: {reason}" for cell, reason in plan.left_out)
    yield f"\n![F1 with intervals]({F1_PLOT})\n\n![F1 and tokens]({COST_PLOT})"


def _f1(entry: Mapping[str, Any] | None) -> str:
    return f"{entry['f1']['value']:.3f}" if entry else ""


def _rows(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(line) + " |" for line in lines)


def _plain(plan: Plan, results: Sequence[Result]) -> dict[str, Any]:
    cells = [{name: getattr(result, name) for name in Result.__slots__} for result in results]
    left_out = [{"cell": cell.values, "reason": reason} for cell, reason in plan.left_out]
    return {"texts": len(plan.test), "cells": cells, "left_out": left_out, "config": dump(plan.config)}


def f1_plot(results: Sequence[Result]) -> bytes:
    """Strict F1 of every cell with its interval."""
    drawn, axes = canvas(9, 1.2 + 0.3 * len(results))
    values = [result.strict["micro"]["f1"]["value"] for result in results]
    ends = [result.strict["micro"]["f1"]["interval"] for result in results]
    spread = [
        [v - low for v, (low, _) in zip(values, ends, strict=True)],
        [h - v for v, (_, h) in zip(values, ends, strict=True)],
    ]
    places = range(len(results))
    axes.barh(places, values, xerr=[[max(0.0, x) for x in side] for side in spread], color="tab:blue", capsize=3)
    axes.set_yticks(places, [_place(result, _axes(results)) for result in results])
    axes.invert_yaxis()
    axes.set(xlabel="strict F1, 95 % interval", xlim=(0, 1))
    return png(drawn)


def cost_plot(results: Sequence[Result]) -> bytes:
    """Strict F1 over the tokens a text costs."""
    drawn, axes = canvas(8, 5)
    for number, result in enumerate(results):
        tokens, f1 = result.prompt_tokens + result.completion_tokens, result.strict["micro"]["f1"]["value"]
        axes.plot(tokens, f1, "o", label=f"{number + 1} {_place(result, _axes(results))}")
        axes.annotate(str(number + 1), (tokens, f1), textcoords="offset points", xytext=(5, 4), fontsize=8)
    axes.set(xlabel="tokens per text, prompts and answers", ylabel="strict F1", ylim=(0, 1), xlim=(0, None))
    drawn.legend(loc="outside right upper", fontsize=7, frameon=False)
    return png(drawn)
