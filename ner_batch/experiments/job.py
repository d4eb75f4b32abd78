"""The ablation: adapters of a curve, then one engine, run after run, each kept as soon as it is read; the report."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import closing
from pathlib import Path

from rich.console import Console

from ner_batch.data import predictions_table
from ner_batch.engine.engine import Engine, EngineDeadError, show_errors_alone
from ner_batch.errors import JobError, UserError
from ner_batch.experiments import report
from ner_batch.experiments.grid import combinations
from ner_batch.experiments.plan import METADATA, Plan, Run, is_done, predictions_file, with_runs
from ner_batch.extraction.predictor import Predictor
from ner_batch.io import storage, tables
from ner_batch.io.examples import examples_table
from ner_batch.jobs import cluster
from ner_batch.jobs.progress import ProgressLine
from ner_batch.train import plan as train_plan

OK = 0


def run(plan: Plan, console: Console) -> int:
    """Train and read what is not there yet, then report; the exit code.

    An adapter that cannot be trained holds up no other: its combinations are left out, and the error comes at the end.

    Raises:
        UserError: a training that the user can mend, one line for each problem; or no combination can be read.
        JobError: a training failed otherwise, or the engine died.
    """
    failure: UserError | JobError | None = None
    if plan.trainings:
        failure = train_adapters(plan, console)
        try:
            plan = with_runs(plan, combinations(plan.config))
        except UserError as error:
            raise failure or error from None
    for combination, reason in plan.left_out:
        console.print(f"left out: {combination.name}: {reason}", highlight=False, soft_wrap=True, markup=False)
    waiting = [planned for planned in plan.runs if not is_done(plan, planned)]
    console.print(f"{len(plan.runs)} cells of {len(plan.test):,} texts, {len(waiting)} to read", highlight=False)
    if waiting:
        read(plan, waiting, console)
    report.write(plan, console)
    if failure:
        raise failure
    return OK


def train_adapters(plan: Plan, console: Console) -> UserError | JobError | None:
    """Train, in one Ray session, the adapters that are not there yet; what went wrong, all in one."""
    waiting = [training for training in plan.trainings if not train_plan.finished(training.config.output)]
    console.print(f"{len(plan.trainings)} adapters, {len(waiting)} to train", highlight=False)
    if not waiting:
        return None
    assert plan.config.curve
    from ner_batch.train import job  # torch and peft take seconds to import

    problems: list[str] = []
    failures: list[str] = []
    with cluster.session(waiting[0].config.run.address):
        for number, training in enumerate(waiting, 1):
            name = training.subset.name
            console.print(f"adapter {number} of {len(waiting)}  {name}", highlight=False)
            try:
                tables.write_table(training.config.gold.train, examples_table(training.examples), {})
                job.run(train_plan.prepare(training.config), console)
                checkpoints = Path(training.config.run.storage) / training.config.run.name
                shutil.rmtree(checkpoints, ignore_errors=True)  # the adapter is there
            except (UserError, JobError) as error:
                failures.append(f"{name}: {error}")
                console.print(failures[-1], highlight=False, soft_wrap=True, markup=False)
                if isinstance(error, UserError):
                    problems += [f"{plan.config.curve.train}: {line}" for line in str(error).splitlines()]
    if problems:
        return UserError("\n".join(dict.fromkeys(problems)))
    if failures:
        return JobError(f"{len(failures)} of {len(plan.trainings)} adapters are missing; the first: {failures[0]}")
    return None


def read(plan: Plan, waiting: list[Run], console: Console) -> None:
    """Read the test set as each run says, with one engine; a JobError where it died, finished runs are kept."""
    show_errors_alone()
    adapters = any(task.adapter for run in plan.runs for task in run.recipe.tasks)
    try:
        with ProgressLine(console) as line:
            line.show("starting the engine")
            with closing(Engine(waiting[0].recipe.engine, adapters=adapters)) as engine:
                for number, run in enumerate(waiting, 1):
                    title = f"{number} of {len(waiting)}  {run.combination.name}"
                    seconds = read_one(plan, run, engine, line, title)
                    console.print(f"{title}  {seconds:,.1f} s", highlight=False)
    except EngineDeadError as death:
        raise JobError(f"{death}: the engine died; the same command goes on with the cells that are left") from death


def read_one(plan: Plan, run: Run, engine: Engine, line: ProgressLine, title: str) -> float:
    """Read the test set as a run says and keep the predictions; the seconds that took."""
    predictor = Predictor(run.recipe, start_engine=lambda *_: engine)
    texts = [example.text for example in plan.test]
    rows_read = 0.0
    prompts_before, _ = engine.answered

    def progress(rows: float, _tokens: int) -> None:
        nonlocal rows_read
        rows_read += rows

    def newest() -> str:
        prompts = engine.answered[0] - prompts_before
        return f"{title}  {int(rows_read + 0.001):,} of {len(texts):,} texts, {prompts:,} prompts answered"

    line.show(newest)
    predictor.predict(texts[:2])  # what a first prompt costs (compiling, loading an adapter) is left out of the time
    start_time = time.monotonic()
    predictions = predictor.predict(texts, progress)
    seconds = time.monotonic() - start_time
    table = examples_table(plan.test).rename_columns(["gold_id", "text", "gold_entities"])
    table = table.add_column(0, "id", [[str(number) for number in range(len(texts))]])  # gold's own need not be unique
    columns = predictions_table(predictions)
    for name in columns.column_names:
        table = table.append_column(name, columns[name])
    metadata = {"digest": run.digest, "seconds": seconds, "cell": run.combination.values}
    file = predictions_file(plan, run)
    with storage.explained(file):
        tables.write_table(file, table, {METADATA: json.dumps(metadata)})
    return seconds
