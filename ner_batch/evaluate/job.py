"""The evaluation job: rows counted here or on a Ray cluster, one report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from rich.console import Console
from rich.progress import Progress

from ner_batch.errors import JobError, UserError
from ner_batch.evaluate import output, report, tables, work
from ner_batch.evaluate.faults import Faults
from ner_batch.evaluate.plan import Plan
from ner_batch.evaluate.source import Source
from ner_batch.evaluate.tally import Tally
from ner_batch.evaluate.work import Options
from ner_batch.jobs import cluster

OK = 0
IN_FLIGHT = 64
"""Tasks handed to Ray at once: their results stay few, however many units there are."""


def run(plan: Plan, console: Console) -> int:
    """Score, print and write the report; the exit code.

    Raises:
        UserError: rows that cannot be scored; one line for each kind of fault. Nothing is written.
        JobError: a worker keeps failing, or rows were lost on the way.
    """
    for path in plan.unfinished:
        told = f"{path}: its manifest says that the run is not complete"
        console.print(told, style="yellow", soft_wrap=True, markup=False)
    tally = score(plan, console)
    found = report.build(plan, tally)
    for part in tables.render(found):
        console.print(part)
    output.write(plan.config.output, found)
    for name, entry in found["runs"][0]["strict"]["groups"].items():
        if not entry["types"]:
            told = f"groups.{name}: no type like {', '.join(plan.config.groups[name])}: its scores are 0 of 0"
            console.print(told, style="yellow", soft_wrap=True, markup=False)
    console.print(f"report: {plan.config.output}", highlight=False, soft_wrap=True, markup=False)
    return OK


def score(plan: Plan, console: Console) -> Tally:
    """Count all rows, in this process or on Ray.

    Raises:
        UserError: see :func:`run`.
        JobError: see :func:`run`.
    """
    options = Options(plan.runs, plan.config.worst, plan.grouped, plan.rules)
    if plan.local:
        tally = _streamed(plan, options, _here, console) if plan.streams else _joined_here(plan, options)
    else:
        with cluster.session(plan.config.job.address):
            tally = (
                _streamed(plan, options, _on_ray, console) if plan.streams else _joined_on_ray(plan, options, console)
            )
    if tally.rows + tally.gold_skipped != plan.sources[0].rows:
        raise JobError(f"{tally.rows:,} of {plan.sources[0].rows:,} rows were scored; this is a bug, please report it")
    if not tally.rows:
        raise UserError("no row has both gold and a prediction: nothing to score")
    return tally


Runner = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterator[tuple[int, Any]]]
"""Runs a function on argument lists; yields (index, outcome) as they come."""


def _here(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    return ((i, function(*arguments)) for i, arguments in enumerate(calls))


def _on_ray(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """As Ray tasks, a few at a time. One that lost its worker runs again; outcomes are values, so none counts twice."""
    task, waiting = _task(function), iter(enumerate(calls))
    flying = {task.remote(*arguments): i for i, arguments in islice(waiting, IN_FLIGHT)}
    while flying:
        done, _ = ray.wait(list(flying), num_returns=1)
        yield flying.pop(done[0]), _got(done[0])
        for i, arguments in islice(waiting, 1):
            flying[task.remote(*arguments)] = i


def _task(function: Callable[..., Any], **options: Any) -> Any:
    return ray.remote(function).options(num_cpus=1, max_retries=3, scheduling_strategy="SPREAD", **options)


def _got(reference: Any) -> Any:
    """A task's outcome; what a person can mend as ValueError, the rest in one line."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, ValueError):
            raise UserError(str(cause)) from None
        lines = [line.strip() for line in str(cause or error).splitlines() if line.strip()]
        raise JobError(f"a worker failed: {lines[-1] if lines else error!r}") from error


def _streamed(plan: Plan, options: Options, runner: Runner, console: Console) -> Tally:
    """Gold and predictions in the same rows: unit by unit."""
    source = plan.sources[0]
    calls = [(source, unit, options) for unit in source.units]
    hashes = [np.zeros(0, np.uint64)] * len(calls)
    total, faults = None, Faults()
    for i, (tally, wrong, ids) in _shown(runner(work.stream, calls), len(calls), console):
        hashes[i], faults = ids, faults + wrong
        total = _plus(total, tally)
    _stop(faults + (Faults() if faults else work.twice(source, hashes)))
    assert total
    return total


def _joined_here(plan: Plan, options: Options) -> Tally:
    """Several sources, joined at once."""
    read = {id(source): [work.split(source, unit, 1) for unit in source.units] for source in _distinct(plan.sources)}
    _stop(_sum(wrong for pieces in read.values() for wrong, _ in pieces))
    named = [(source.name, pa.concat_tables([table for _, table in read[id(source)]])) for source in plan.sources]
    tally, faults = work.count(named, options)
    _stop(faults)
    assert tally
    return tally


def _distinct(sources: Iterable[Source]) -> list[Source]:
    """Gold that lies in a run's own rows is read once."""
    return list({id(source): source for source in sources}.values())


def _joined_on_ray(plan: Plan, options: Options, console: Console) -> Tally:
    """Several sources, cut by a hash of the ids, then joined part by part. Ray spills what memory cannot hold."""
    parts = plan.parts
    pieces: list[tuple[str, list[Any]]] = []
    told: list[Any] = []
    task = _task(work.split, num_returns=plan.parts + 1)
    for source in {source.name: source for source in plan.sources}.values():
        for unit in source.units:
            wrong, *tables_ = task.remote(source, unit, parts)
            told.append(wrong)
            pieces.append((source.name, tables_))
    _stop(_sum(_got(wrong) for wrong in told))
    names = [name for name, _ in pieces]
    order = [source.name for source in plan.sources]
    calls = [(order, names, options, *(tables_[k] for _, tables_ in pieces)) for k in range(parts)]
    total, faults = None, Faults()
    for _, (tally, wrong) in _shown(_on_ray(_count_part, calls), parts, console):
        faults += wrong
        total = _plus(total, tally)
    _stop(faults)
    assert total
    return total


def _count_part(order: Sequence[str], names: Sequence[str], options: Options, *pieces: pa.Table) -> Any:
    """Put the pieces of each source together, then join and count. Ray hands pieces over only as plain arguments."""
    whole = {
        name: pa.concat_tables([table for _, table in group])
        for name, group in groupby(zip(names, pieces, strict=True), key=lambda pair: pair[0])
    }
    return work.count([(name, whole[name]) for name in order], options)


def _sum(faults: Iterable[Faults]) -> Faults:
    return sum(faults, Faults())


def _plus(one: Tally | None, two: Tally | None) -> Tally | None:
    return one + two if one and two else one or two


def _stop(faults: Faults) -> None:
    if faults:
        raise UserError("\n".join(faults.lines()))


def _shown(outcomes: Iterator[tuple[int, Any]], total: int, console: Console) -> Iterator[tuple[int, Any]]:
    """The outcomes, counted on a line that goes when they are through."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(outcomes, total=total, description="rows")
