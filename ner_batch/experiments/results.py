"""What a cell scored and cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ner_batch.evaluate import job as scoring
from ner_batch.evaluate.settings import EvaluateConfig
from ner_batch.experiments.plan import META, Plan, Work, path
from ner_batch.io import storage


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


def score(plan: Plan, work: Work) -> Result:
    """Score a cell as `ner-batch evaluate` does, against the first one."""
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
    found = scoring.evaluate(scoring.prepare(config))
    table = storage.read_table(uri)
    seconds = json.loads(storage.read_metadata(uri)[META])["seconds"]
    prompt, completion = (pc.mean(table[name]).as_py() for name in ("prompt_tokens", "completion_tokens"))
    bad = table.num_rows - pc.sum(pc.is_in(table["status"], value_set=pa.array(["ok", "empty"]))).as_py()
    difference = found["comparison"] and found["comparison"]["strict/micro/f1"]
    strict = found["runs"][0]["strict"]
    return Result(
        work.cell.values, work.cell.name, strict, difference, prompt, completion, seconds / table.num_rows, bad
    )


def axes(results: Sequence[Result]) -> list[str]:
    """The axes on which cells differ; the first where there is one cell."""
    names = list(results[0].cell)
    return [name for name in names if len({result.cell[name] for result in results}) > 1] or names[:1]


def place(result: Result, axes: Sequence[str]) -> str:
    """Where a cell stands, in as few words as tell cells apart: `news json 4 lexical + zero-shot verification`."""
    cell = result.cell
    shown = f"{cell['k']} {cell['retrieval']}" if cell["k"] else "no demonstrations"
    words = {name: str(cell[name]) for name in ("reader", "format", "decoding") if name in axes}
    if {"retrieval", "k"} & set(axes):
        words["shown"] = shown
    if cell["verification"] != "none" and "verification" in axes:
        words["verification"] = f"+ {cell['verification']} verification"
    if cell["size"] is not None and "size" in axes:
        words["size"] = f"of {cell['size']} examples"
    if cell["seed"] is not None and "seed" in axes:
        words["seed"] = f"draw {cell['seed'] + 1}"
    return " ".join(words.values()) or str(cell["reader"])
