"""The extraction job: units through a pool of replicas, resumable anywhere, and a sum that must come out even."""

from __future__ import annotations

import functools
import logging
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import ray
import ray.data
from rich.console import Console
from rich.markup import escape

from ner_batch.config import EngineConfig, JobConfig
from ner_batch.data import Status
from ner_batch.errors import JobError
from ner_batch.extract import ledger as ledgers
from ner_batch.extract import output
from ner_batch.extract.extractor import Extractor
from ner_batch.extract.output import Totals
from ner_batch.extract.plan import Plan
from ner_batch.extract.progress import ProgressLine, Tally
from ner_batch.extract.unit import Predictor, UnitExtractor, UnitReport
from ner_batch.io.shards import Unit
from ner_batch.jobs import cluster

OK, FAILED, TOO_MANY_FAILED = 0, 1, 3

POLL_SECONDS = 0.5


@dataclass(slots=True)
class Flight:
    """The units of one Ray Data execution as they come home, and how it ended."""

    reports: list[UnitReport] = field(default_factory=list)
    error: BaseException | None = None
    over: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Work:
    """What is left of a plan: units to do (and whether only their failed rows), and the sum of what was done before."""

    plan: Plan
    pending: tuple[tuple[Unit, bool], ...]
    kept: Totals


def resume(plan: Plan, *, retry: bool = False) -> Work:
    """Look what earlier runs have left in the output. ``retry`` does rows of status ``failed`` again.

    Raises:
        UserError: the output belongs to another run; one line per difference.
    """
    done = output.open_output(plan)
    before = output.reports(plan, [unit for unit in plan.units if unit.name in done])
    redo = {r.name for r in before if retry and r.statuses.get(Status.FAILED)}
    pending = tuple((u, u.name in redo) for u in plan.units if u.name not in done or u.name in redo)
    return Work(plan, pending, output.add_up([report for report in before if report.name not in redo]))


def run(work: Work, console: Console, make: Callable[[], Predictor] | None = None) -> int:
    """Do the work; the exit code. ``make`` builds a replica's predictor, by default the plan's :class:`Extractor`.

    Raises:
        JobError: the engines keep dying, or do not start. Finished units stay finished.
        KeyboardInterrupt: likewise.
    """
    plan = work.plan
    _announce(work, console)
    if not work.pending:
        return _conclude(plan, [], None, console)
    output.begin(plan)
    started, clock = datetime.now(UTC), time.monotonic()
    try:
        errors = _execute(work, make or functools.partial(Extractor, plan.recipe), console)
    except BaseException:
        output.write_manifest(plan, "interrupted", {})
        raise
    rows = sum(unit.rows for unit, _ in work.pending)
    return _conclude(plan, errors, _told(rows, started, time.monotonic() - clock), console)


def _told(rows: int, started: datetime, seconds: float) -> dict[str, Any]:
    """What the manifest tells of a run: when, how long, how fast (engine start included)."""
    speed = {"rows": rows, "rows_per_second": round(rows / seconds, 2)}
    return {"started": started.isoformat(timespec="seconds"), "seconds": round(seconds, 1), **speed}


def _announce(work: Work, console: Console) -> None:
    plan = work.plan
    for corrupt in plan.listing.corrupt:
        console.print(
            f"[red]unreadable[/] {escape(f'{corrupt.name}: {corrupt.reason}')}", highlight=False, soft_wrap=True
        )
    console.print(
        f"{plan.rows:,} rows in {len(plan.listing.shards):,} files, {len(plan.units):,} units; "
        f"{work.kept.rows:,} rows done before, {sum(unit.rows for unit, _ in work.pending):,} to do",
        highlight=False,
        soft_wrap=True,
    )


def _execute(work: Work, make: Callable[[], Predictor], console: Console) -> list[UnitReport]:
    """Send the units through the pool; the reports of those that could not be read or written."""
    job, tally = work.plan.config.job, Tally(work.plan.rows, work.kept.rows)
    with cluster.session(job.address), ProgressLine(console) as line:
        _quiet_data()
        ledger = ledgers.start()
        dataset = _dataset(work, make, ledger)
        flight = Flight()
        # The main thread stays free for Ctrl-C and for the progress line.
        threading.Thread(target=_fly, args=(dataset, flight), daemon=True).start()
        while not flight.over.wait(POLL_SECONDS):
            report = ray.get(ledger.report.remote())
            tally.done, tally.tokens, tally.statuses = report.rows, report.tokens, report.statuses
            tally.deaths = max(0, report.starts - job.replicas)
            line.show(tally)
            if tally.deaths > job.max_engine_deaths:
                raise JobError(f"engines died {tally.deaths} times (job.max_engine_deaths): {_last(report.causes)}")
        if flight.error:
            raise _explained(flight.error, ray.get(ledger.report.remote()).causes)
    return [report for report in flight.reports if report.error]


def _dataset(work: Work, make: Callable[[], Predictor], ledger: Any) -> Any:
    """Units → replicas → reports. One unit is one block: the grain of scheduling and of retries."""
    plan, job = work.plan, work.plan.config.job
    flights = job.units_in_flight
    items = [{"unit": pickle.dumps(unit)} for unit in work.pending]
    return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        UnitExtractor,
        batch_size=1,
        fn_constructor_args=(make, plan.destination, ledger),
        compute=ray.data.ActorPoolStrategy(
            size=job.replicas, max_tasks_in_flight_per_actor=2 * flights, max_concurrent_calls_per_actor=flights
        ),
        num_cpus=job.num_cpus,
        num_gpus=gpus_per_replica(job, plan.recipe.engine),
    )


def gpus_per_replica(job: JobConfig, engine: EngineConfig) -> float:
    """As configured; else the tensor-parallel size where the cluster has GPUs."""
    if job.num_gpus is not None:
        return job.num_gpus
    return engine.tensor_parallel_size if ray.cluster_resources().get("GPU") else 0


def _fly(dataset: Any, flight: Flight) -> None:
    """Run the dataset to its end. An error is kept for the main thread, never lost."""
    try:
        for row in dataset.iter_rows():
            flight.reports.append(pickle.loads(row["report"]))
    except BaseException as error:  # noqa: BLE001 - raised again by the main thread
        flight.error = error
    flight.over.set()


def _last(causes: Sequence[str]) -> str:
    return causes[-1] if causes else "the process was killed (out of memory?)"


def _explained(error: BaseException, causes: Sequence[str]) -> BaseException:
    """Ray wraps what happened on a replica in pages of traceback; a person needs the last line."""
    if isinstance(error, ray.exceptions.RayError):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return JobError(f"a replica failed: {causes[-1] if causes else lines[-1] if lines else error!r}")
    return error


def _conclude(plan: Plan, errors: Sequence[UnitReport], told: dict[str, Any] | None, console: Console) -> int:
    """Read back what is on disk, write the manifest, print the line that adds up."""
    missing = {report.name: report.error for report in errors}
    totals = output.add_up(output.reports(plan, [unit for unit in plan.units if unit.name not in missing]))
    lost = sum(unit.rows for unit in plan.units if unit.name in missing)
    whole = not missing and not plan.listing.corrupt
    within = totals.failed <= plan.config.job.max_failed * totals.rows
    for name, error in missing.items():
        console.print(f"[red]not done[/] {escape(f'{name}: {error}')}", highlight=False, soft_wrap=True)
    state = "complete" if whole and within else "incomplete"
    results = {
        "rows_out": totals.rows,
        "rows_not_done": lost,
        "statuses": dict(sorted(totals.statuses.items())),
        "tokens": totals.tokens,
    }
    output.write_manifest(plan, state, results, told)
    console.print(_sum(plan.rows, totals, lost), highlight=False, soft_wrap=True)
    if totals.rows + lost != plan.rows or sum(totals.statuses.values()) != totals.rows:
        raise JobError(f"{plan.config.output.path}: rows do not add up; this is a bug, please report it")
    if state == "complete":
        output.succeed(plan)
        return OK
    if not within:
        console.print(f"{totals.failed:,} rows failed, over job.max_failed; `retry` does them again", soft_wrap=True)
    return TOO_MANY_FAILED


def _sum(rows: int, totals: Totals, lost: int) -> str:
    """The line that adds up: rows in = rows out = sum over statuses."""
    parts = [f"{count:,} {status}" for status, count in sorted(totals.statuses.items())]
    unread = f" + {lost:,} not done" if lost else ""
    return f"rows in {rows:,} = rows out {totals.rows:,}{unread} = " + " + ".join(parts or ["0"]) + unread


def _quiet_data() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours counts rows; Ray's counts blocks
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a unit of novels takes hours; the engine has its own watchdog
    context.max_consecutive_actor_init_deaths = 2  # an engine that does not boot at once may boot the next time
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors come back as exceptions; it prints them too
