"""The output scored against gold by the evaluation job, which also tells the gold of the rows to browse."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ner_batch.errors import UserError
from ner_batch.evaluate import job, report
from ner_batch.evaluate.match import Span
from ner_batch.evaluate.settings import BootstrapConfig, EvaluateConfig, GoldConfig, PredictionsConfig
from ner_batch.io.listing import list_shards
from ner_batch.report.output import Output
from ner_batch.report.settings import ReportConfig

WORST = 50
"""Rows with the most errors that are shown in any case."""
TEXT = "text"
# What the evaluation calls its settings, and the flags that set them here.
FLAGS = {
    "predictions.id_column": "--id-column",
    "gold.id_column": "--gold-id-column",
    "gold.column": "--gold-column",
    "gold.path": "--gold",
    "predictions.task": "--task",
    "predictions.column": "OUT",
}


@dataclass(frozen=True, slots=True)
class Scored:
    """An evaluation: its report's values, the rows with the most errors, and gold and predicted spans of rows by id."""

    values: dict[str, Any]
    worst: tuple[str, ...]
    spans: dict[str, tuple[list[Span], list[Span]]] = field(default_factory=dict)


def prepare(config: ReportConfig, output: Output, scratch: str) -> job.Plan:
    """The evaluation of an output against gold; ``scratch`` is a folder that can be written to.

    Rows of one side alone are left out, and counted: gold may hold other splits, and a run may not have ended.

    Raises:
        UserError: every problem found, one line each, with the flags of this job.
    """
    own = {"--id-column": config.id_column} if config.gold else {"--gold-column": config.gold_column}
    for flag, column in own.items():  # all files have the same columns: one line
        if column not in output.columns:
            there = f"no column {column!r} in {config.folder}; there are {', '.join(output.columns)}"
            raise UserError(f"{flag}: {there}")
    if config.gold is None and config.gold_column == "entities":
        raise UserError("--gold-column entities: are the predictions themselves: name gold's column, or give --gold")
    id_column = config.id_column if config.gold or config.id_column in output.columns else None
    gold_text = TEXT if config.gold and TEXT in list_shards(config.gold, None).shards[0].columns else None
    joined_against = config.against if id_column else None
    try:
        return job.prepare(
            EvaluateConfig(
                predictions=PredictionsConfig(
                    path=config.folder, id_column=id_column, text_column=output.text_column, task=config.task
                ),
                gold=GoldConfig(
                    path=config.gold,
                    id_column=config.gold_id_column,
                    text_column=gold_text,
                    column=config.gold_column or "entities",
                ),
                output=scratch,
                against=joined_against,
                without_gold="skip",
                without_prediction="skip",
                worst=WORST,
                bootstrap=BootstrapConfig(seed=config.seed),
            )
        )
    except UserError as error:
        raise in_flags(error) from error


def in_flags(error: UserError) -> UserError:
    """What the evaluation says of its settings, said of the flags."""
    message = str(error)
    for setting, flag in FLAGS.items():
        message = message.replace(setting, flag)
    return UserError(message)


def score(plan: job.Plan, ids: Iterable[str], progress: Callable[[str], None]) -> Scored:
    """Score all rows; the spans of rows with an id among ``ids``, and of the worst, come along.

    Raises:
        UserError: rows that cannot be scored, one line for each kind of error.
    """
    sampled_ids = pa.array(sorted(ids), pa.string())
    spans: dict[str, tuple[list[Span], list[Span]]] = {}

    def keep(batch: pa.RecordBatch) -> None:
        some = batch.filter(pc.is_in(batch["id"], sampled_ids))
        columns = (some[name].to_pylist() for name in ("id", "gold", "entities0"))
        for id_, gold, predicted in zip(*columns, strict=True):
            spans[id_] = _spans(gold), _spans(predicted)

    try:
        tally, texts = job.compare(plan, progress, keep)
    except UserError as error:
        raise in_flags(error) from error
    progress(f"{plan.config.bootstrap.resamples:,} resamples")
    worst = tally.runs[0].worst
    spans |= {row.id: (list(row.gold), list(row.predicted)) for row in worst}
    return Scored(report.build(plan.config, tally, texts, plan.unfinished), tuple(row.id for row in worst), spans)


def _spans(entities: list[dict[str, Any]]) -> list[Span]:
    return [(entity["start"], entity["end"], entity["type"]) for entity in entities]
