"""The ablation: adapters of a curve, then one engine, cell after cell, each kept as soon as it is read; the report."""

from __future__ import annotations

import json
import os
import time

import pyarrow as pa
from rich.console import Console

from ner_batch.data import Example, Prediction, examples_table, predictions_table
from ner_batch.engine.engine import Engine, EngineDeadError
from ner_batch.errors import JobError, UserError
from ner_batch.experiments import report, training
from ner_batch.experiments.cells import cells
from ner_batch.experiments.plan import META, Plan, Work, done, path, with_recipes
from ner_batch.extract.extractor import Extractor
from ner_batch.io import storage
from ner_batch.jobs import cluster

OK, ENGINE_LOST = 0, "the engine died; the same command goes on with the cells that are left"


def run(plan: Plan, console: Console) -> int:
    """Train and read what is not there yet, then report; the exit code."""
    failed: list[str] = []
    if plan.trainings:
        failed = _train(plan, console)
        plan = _complete(plan, failed)
    for cell, reason in plan.left_out:
        console.print(f"left out: {cell.name}: {reason}", highlight=False, soft_wrap=True, markup=False)
    waiting = [work for work in plan.work if not done(plan, work)]
    console.print(f"{len(plan.work)} cells of {len(plan.test):,} texts, {len(waiting)} to read", highlight=False)
    if waiting:
        _read(plan, waiting, console)
    report.write(plan, console)
    if failed:
        raise JobError(f"{len(failed)} of {len(plan.trainings)} adapters are missing; the first: {failed[0]}")
    return OK


def _complete(plan: Plan, failed: list[str]) -> Plan:
    """The plan with every cell whose adapter is there."""
    try:
        return with_recipes(plan, cells(plan.config))
    except UserError as error:
        raise JobError(failed[0] if failed else str(error)) from None


def _train(plan: Plan, console: Console) -> list[str]:
    """The adapters of the curve, in one Ray session, which has ended before the engine starts; what went wrong.

    One that fails holds up no other: its cells are left out, and the job says so at its end.
    """
    waiting = [training for training in plan.trainings if not training.done]
    console.print(f"{len(plan.trainings)} adapters, {len(waiting)} to train", highlight=False)
    if not waiting:
        return []
    failed = []
    with cluster.session(waiting[0].config.run.address):
        for number, one in enumerate(waiting, 1):
            console.print(f"adapter {number} of {len(waiting)}  {one.draw.name}", highlight=False)
            try:
                training.run(one, console)
            except JobError as error:
                failed.append(f"{one.draw.name}: {error}")
                console.print(failed[-1], highlight=False, soft_wrap=True, markup=False)
    return failed


def _read(plan: Plan, waiting: list[Work], console: Console) -> None:
    if not os.environ.get("NER_BATCH_VERBOSE"):
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it runs in this process, beside our own lines
    adapters = any(task.adapter for work in plan.work for task in work.recipe.tasks)
    engine = None
    try:
        engine = Engine(plan.engine, adapters=adapters)
        for number, work in enumerate(waiting, 1):
            seconds = _cell(plan, work, engine)
            console.print(f"{number} of {len(waiting)}  {work.cell.name}  {seconds:,.1f} s", highlight=False)
    except EngineDeadError as death:
        raise JobError(f"{death}: {ENGINE_LOST}") from death
    finally:
        if engine:
            engine.close()


def _cell(plan: Plan, work: Work, engine: Engine) -> float:
    """Read the test set as the cell says and keep the answers; the seconds that took.

    A few texts are read before the clock starts: what a first prompt costs (compiling, loading an adapter) is left out.
    """
    extractor = Extractor(work.recipe, start_engine=lambda *_: engine)
    texts = [example.text for example in plan.test]
    extractor.predict(texts[:2])
    begun = time.monotonic()
    predictions = extractor.predict(texts)
    seconds = time.monotonic() - begun
    about = {"digest": work.digest, "seconds": seconds, "cell": work.cell.values}
    storage.write_table(path(plan, work), table(plan.test, predictions), {META: json.dumps(about)})
    return seconds


def table(test: tuple[Example, ...], predictions: list[Prediction]) -> pa.Table:
    """Gold and answers side by side. ``id`` is the row's number: gold's own, ``gold_id``, need not be unique."""
    rows = examples_table(test).rename_columns(["gold_id", "text", "gold_entities"])
    rows = rows.add_column(0, "id", [[str(number) for number in range(len(test))]])
    added = predictions_table(predictions)
    for field, column in zip(added.schema, added.columns, strict=True):
        rows = rows.append_column(field, column)
    return rows
