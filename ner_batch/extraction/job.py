"""The extraction job: units through three Ray Data steps, resumable anywhere; and a Ray Dataset with entities."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import ray
import ray.data
from rich.console import Console
from rich.markup import escape

from ner_batch.data import Status
from ner_batch.engine.engine import Engine
from ner_batch.errors import JobError, UserError
from ner_batch.extraction import manifest
from ner_batch.extraction import tracker as trackers
from ner_batch.extraction.lease import LAST_SECONDS, Lease
from ner_batch.extraction.plan import Plan
from ner_batch.extraction.predictor import StartEngine
from ner_batch.extraction.recipe import Recipe, make_recipe
from ner_batch.extraction.replica import Replica
from ner_batch.extraction.settings import JobConfig, RecipeConfig, check_gpus
from ner_batch.extraction.tracker import RunProgress, Tracker
from ner_batch.extraction.units import NAMED_REASONS, ShardUnits, UnitFiles, UnitReport, check_names, write_empty
from ner_batch.io import outage, storage
from ner_batch.io.shards import Listing, Unit
from ner_batch.jobs import cluster
from ner_batch.jobs.progress import Line, ProgressLine, duration

T = TypeVar("T")

OK, TOO_MANY_FAILED = 0, 3
PORTION = 10_000
"""Units of a pipeline, or a tenth as many for each replica. Ray Data takes 1 ms for each before the first one is read,
and 6.5 KB of the driver's memory until the pipeline ends. Engines start anew with the next one."""
FAULTY_SHARE = 0.1
"""Of rows with truncated or malformed answers; with more, something other than single texts is wrong."""


def run(plan: Plan, console: Console, start_engine: StartEngine = Engine) -> int:
    """Do what is pending; the exit code. ``start_engine`` makes each replica's engine.

    Raises:
        UserError: the engine refuses its config.
        JobError: the engines keep dying, or do not start. Finished units stay finished.
    """
    job = plan.config.job
    with extraction(plan, console) as this_run:
        for units in this_run.portions:
            (
                ray.data.read_datasource(
                    ShardUnits(units, plan.destination, this_run.tracker, plan.retried),
                    override_num_blocks=len(units),
                    num_cpus=0,
                    concurrency=io_tasks(job),
                )
                .map_batches_internal(  # `map_batches` with batch_size=None refuses GPUs
                    Replica,
                    batch_size=None,
                    fn_constructor_args=(plan.recipe, this_run.tracker, plan.destination.text_in_blocks, start_engine),
                    **replica_options(job, plan.recipe),
                )
                .write_datasink(this_run.sink, ray_remote_args={"num_cpus": 0}, concurrency=io_tasks(job))
            )
    return this_run.exit_code


def extract_dataset(
    dataset: ray.data.Dataset,
    config: RecipeConfig,
    *,
    text_column: str = "text",
    batch_rows: int = 256,
    job: JobConfig | None = None,
    start_engine: StartEngine = Engine,
) -> ray.data.Dataset:
    """``dataset`` with entities: the columns of :func:`ner_batch.data.predictions_schema` appended to every row.

    One row out for each one in; a row that kills engines is found and given up alone. Writing and resuming are the
    caller's.

    Args:
        dataset: any Ray Dataset with a string column ``text_column``; repartition it first
            (``repartition(target_num_rows_per_block=...)``), for a block is what one replica works on at a time.
        config: model, task or adapter, format, retrieval, windows.
        text_column: the column that is read.
        batch_rows: rows prompted together, and searched together for a row that kills engines.
        job: ``replicas``, ``num_gpus``, ``num_cpus``, ``units_in_flight`` (batches side by side in one replica) and
            ``max_engine_deaths``.
        start_engine: makes each replica's engine.

    Raises:
        UserError: every problem of the config, one line each, before anything starts; or a column that would meet ours.
    """
    job = job or JobConfig()
    if job.num_cpus is None:  # the dataset's own steps reserve CPUs too
        job = job.model_copy(update={"num_cpus": 1.0})
    check_gpus(job, config.engine)
    recipe = make_recipe(config)
    schema = dataset.schema(fetch_if_missing=False)
    check_names(schema.names if schema else ())  # of a dataset that is not known yet, the replica checks them
    return dataset.map_batches(
        Replica,
        batch_size=batch_rows,
        fn_constructor_args=(recipe, trackers.start(job.max_engine_deaths), text_column, start_engine),
        **replica_options(job, recipe),
    )


@dataclass(slots=True)
class ExtractionRun:
    """One run of a plan: the units that need an engine, who counts their attempts, and where they go.

    ``portions``: the units of each pipeline; one after the other, each with replicas of its own.
    """

    portions: list[list[Unit]]
    tracker: Tracker
    sink: UnitFiles
    exit_code: int = OK


@contextmanager
def extraction(plan: Plan, console: Console) -> Iterator[ExtractionRun]:
    """What surrounds the three steps: Ray, the tracker, the live line, the manifest, and the line that adds up.

    Where nothing is pending, Ray is not started. Units without rows are written here: Ray starts no write for them.
    """
    print_left_out(plan.listing, console)
    console.print(
        f"{plan.rows:,} rows in {len(plan.listing.shards):,} files, {len(plan.units):,} units; "
        f"{plan.rows_before:,} rows done before, {plan.pending_rows:,} to do",
        highlight=False,
    )
    start_time, clock = datetime.now(UTC), time.monotonic()
    with Lease(plan.config.output.path, console) as lease:
        check_unchanged(plan)
        if not plan.pending:
            this_run = ExtractionRun([], Tracker(), UnitFiles(plan.destination, Tracker()))
            yield this_run
            this_run.exit_code = conclude(plan, [], None, console)
            return
        patiently(plan, console, lambda: begin(plan))
        try:
            with cluster.session(plan.config.job.address) as alone:
                wait_for_replica_room(plan, console, alone=alone)
                tracker = trackers.start(plan.config.job.max_engine_deaths)
                units = [unit for unit in plan.pending if unit.rows]
                job = plan.config.job
                step = max(PORTION, PORTION // 10 * job.replicas)
                at_ends = 2 * job.replicas * (job.units_in_flight + 1)
                portions = [large_first(units[i : i + step], at_ends) for i in range(0, len(units), step)]
                this_run = ExtractionRun(portions, tracker, UnitFiles(plan.destination, tracker))
                line = ExtractionLine(plan.rows, plan.rows_before)
                with _data_context(), pipeline_errors(tracker), ProgressLine(console) as live:
                    live.show(lambda: lease.tell(line.line(tracker.progress())))
                    write_empty([unit for unit in plan.pending if not unit.rows], this_run.sink)
                    yield this_run
        except BaseException:
            if not lease.taken:
                # What ends the run may be that nothing can be written.
                outage.try_for(LAST_SECONDS, lambda: manifest.write(plan, "interrupted", {}))
            raise
        unreported = {unit.name for unit in plan.pending} - this_run.sink.reported
        assert not unreported, f"units were lost on the way, start the run again: {', '.join(sorted(unreported)[:3])}"
        patiently(plan, console, lambda: storage.remove_stale_temporaries(plan.config.output.path))  # of killed workers
        seconds = time.monotonic() - clock
        about = {
            "started": start_time.isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "rows": plan.pending_rows,
            "rows_per_second": round(plan.pending_rows / seconds, 2),
        }
        this_run.exit_code = conclude(plan, this_run.sink.errors, about, console)


def begin(plan: Plan) -> None:
    """Put the output folder in the state of a run that goes on."""
    storage.remove_stale_temporaries(plan.config.output.path)
    storage.remove(storage.join(plan.config.output.path, manifest.SUCCESS))
    manifest.write(plan, "running", {})


def patiently(plan: Plan, console: Console, action: Callable[[], T]) -> T:
    """What the driver does with the output folder, waited for as reads and writes are, with a line for every failure.

    Raises:
        UserError: it cannot be done, and that will not pass.
        JobError: storage has failed for too long.
    """

    def waiting(cause: str | None) -> None:
        if cause:
            console.print(f"waiting for storage: {cause}", highlight=False, markup=False)

    with storage.explained(plan.config.output.path):
        return outage.wait_out(action, plan.config.job.storage_wait_seconds, waiting, writing=True)


def large_first(units: Sequence[Unit], count: int) -> list[Unit]:
    """The units with the ``count`` largest in front and the ``count`` smallest at the end; the others in their order.

    What is left for the end decides how long a replica works while others have nothing to do (Graham, 1969). All of
    them from the largest on would be as good for that, and bad for the ETA, which goes by rows.
    """
    by_size = sorted(units, key=lambda unit: unit.text_bytes, reverse=True)
    largest, rest = by_size[:count], by_size[count:]
    smallest = rest[max(0, len(rest) - count) :]
    moved = {unit.name for unit in (*largest, *smallest)}
    return [*largest, *(unit for unit in units if unit.name not in moved), *smallest]


def check_unchanged(plan: Plan) -> None:
    """Raises UserError where another run has written to the output since the plan was made."""
    folder = plan.config.output.path
    if manifest.finished_units(folder, plan.fingerprint, plan.listing, plan.units) != plan.finished:
        raise UserError(f"output.path: another run has written to {folder} meanwhile: start this one again")


def io_tasks(job: JobConfig) -> int:
    """Read tasks, and write tasks, at a time. Each is a process of its own, which starts with 1.5 CPU-s.

    One decodes some 100 times what a replica reads, and keeps one decoded row group; a unit's file takes milliseconds.
    """
    return 1 + job.replicas // 4


def replica_options(job: JobConfig, recipe: Recipe) -> dict[str, Any]:
    """How ``map_batches`` runs replicas: a thread for each unit in flight, and one more unit waiting.

    What waits at one replica no other can take: more of it leaves some idle at the end.
    """
    pool = ray.data.ActorPoolStrategy(
        size=job.replicas,
        max_tasks_in_flight_per_actor=job.units_in_flight + 1,
        max_concurrent_calls_per_actor=job.units_in_flight,
        enable_true_multi_threading=True,
    )
    return {"batch_format": "pyarrow", "compute": pool, **resources(job, recipe)}


def resources(job: JobConfig, recipe: Recipe) -> dict[str, float]:
    """What one replica reserves: GPUs as configured, else the tensor-parallel size where the cluster has or gets some.

    And CPUs as configured, else one beside GPUs, else this machine's, shared out: what reads and writes reserves none.
    An encoder of demonstrations runs on the CPU (BERT-base: some 10 texts of 40 tokens a second and core), so beside
    GPUs it gets their share of the node's cores; on one thread it would keep a GPU waiting that reads a hundred.
    """
    default = recipe.engine.tensor_parallel_size if cluster.has_gpus(job.address) else 0
    gpus = float(default) if job.num_gpus is None else job.num_gpus
    if gpus:
        cpus = cluster.cpus_beside(gpus) if any(task.encodes for task in recipe.tasks) else 1.0
    else:
        cpus = cluster.cpus_each(job.replicas, job.address)
    return {"num_cpus": cpus if job.num_cpus is None else job.num_cpus, "num_gpus": gpus}


def wait_for_replica_room(plan: Plan, console: Console, *, alone: bool) -> None:
    """Raises UserError where no node is large enough for one replica; says where there is no room for all."""
    needed = resources(plan.config.job, plan.recipe)
    who = "a replica (job.num_gpus, job.num_cpus)"
    gpus = f"{needed['num_gpus']:g} GPU and " if needed["num_gpus"] else ""
    console.print(f"{plan.config.job.replicas} x {gpus}{needed['num_cpus']:g} CPUs", highlight=False)
    room = cluster.wait_for_room(who, 1, {"GPU": needed["num_gpus"], "CPU": needed["num_cpus"]}, console, alone=alone)
    if room < plan.config.job.replicas:
        console.print(
            f"there is room for {room} of {plan.config.job.replicas} replicas (job.replicas)", highlight=False
        )


@contextmanager
def _data_context() -> Iterator[None]:
    """Ray Data's settings for this job; the process's own come back after it."""
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = None  # a block is a unit: neither split nor joined by size
    context.enable_progress_bars = False  # ours counts rows; Ray's counts blocks
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a unit of novels takes hours; the engine has its own watchdog
    context.max_consecutive_actor_init_deaths = 2  # an engine that does not boot at once may boot the next time
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # errors come back as exceptions; it prints them too
    try:
        with ray.data.DataContext.current(context):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def pipeline_errors(tracker: Tracker) -> Iterator[None]:
    """What ended the pipeline, as what it was: the user's fault, a job that cannot go on, or a bug with its traceback.

    Ray hands over an exception of a replica as text within its own; what a replica knew of its end, the tracker knows.
    """
    try:
        yield
    except Exception as error:
        progress = tracker.progress()
        if progress.fatal:
            message, user_error = progress.fatal
            raise (UserError if user_error else JobError)(message) from None
        cause = cluster.root_cause(error)
        if isinstance(cause, ray.exceptions.UserCodeException) or not isinstance(cause, ray.exceptions.RayError):
            raise  # a bug
        died = progress.causes[-1] if progress.causes else cluster.last_line(error)  # a worker or a node is gone
        raise JobError(f"a replica failed: {died}") from None


@dataclass(slots=True)
class ExtractionLine:
    """Turns the counters of a run into a line. ``rows_before`` are done by earlier runs and do not count for speed.

    Nor does the engines' start: ``baseline`` holds when the first replica was seen, with how many rows and tokens.
    """

    rows: int
    rows_before: int = 0
    start_time: float = field(default_factory=time.monotonic)
    baseline: tuple[float, float, int] | None = None

    def line(self, progress: RunProgress) -> Line:
        """The line with its figures."""
        figures = {
            "rows": self.rows,
            "rows_done": self.rows_before + int(progress.rows + 0.001),
            "tokens": progress.tokens,
            "statuses": dict(progress.statuses),
            "replicas": progress.replicas,
            "engine_deaths": progress.deaths,
            "replicas_lost": progress.lost,
            "storage": progress.storage,
        }
        return Line(self.text(progress), figures)

    def text(self, progress: RunProgress) -> str:
        """Rows done / total, rows/s, tokens/s, ETA, outcomes."""
        now = time.monotonic()
        prompts, tokens = progress.answered
        answered = f"{prompts:,} prompts answered, {tokens:,} tokens"
        if progress.replicas or progress.rows:
            self.baseline = self.baseline or (now, progress.rows, progress.tokens)
        if not progress.rows:
            state = "engines are starting"
            if progress.replicas:
                state = f"engines ready: {progress.replicas}; no row finished yet, {answered}"
            elif progress.fatal:  # Ray starts a replica several times, each of them minutes on a GPU
                state = f"starting again, for {progress.fatal[0]}"
            state += f", waiting for storage: {progress.storage}" if progress.storage else ""
            return f"{self.rows_before:,} of {self.rows:,} rows | {duration(now - self.start_time)}: {state}"
        since, rows, tokens = self.baseline or (now, progress.rows, progress.tokens)
        parts = [f"{self.rows_before + int(progress.rows + 0.001):,} of {self.rows:,} rows"]
        if progress.rows > rows:
            speed = (progress.rows - rows) / (now - since)
            eta = duration(max(0.0, self.rows - self.rows_before - progress.rows) / speed)
            tokens_per_second = (progress.tokens - tokens) / (now - since)
            parts += [f"{speed:,.1f} rows/s", f"{tokens_per_second:,.0f} tokens/s", f"ETA {eta}"]
        else:
            parts.append(answered)
        parts += [f"{count:,} {status}" for status, count in sorted(progress.statuses.items()) if status != "ok"]
        parts += [f"engine restarted {progress.deaths} times"] if progress.deaths else []
        parts += [f"{progress.lost} replicas lost with their node"] if progress.lost else []
        parts += [f"waiting for storage: {progress.storage}"] if progress.storage else []
        return " | ".join(parts)


def print_left_out(listing: Listing, console: Console) -> None:
    """Files that cannot be read, and those that are passed over for their names."""
    for corrupt in listing.corrupt:
        console.print(f"[red]unreadable[/] {escape(f'{corrupt.name}: {corrupt.reason}')}", highlight=False)
    if line := listing.about_passed_over:
        console.print(line, highlight=False, markup=False)


def print_reasons(reasons: Counter[str], console: Console, ids: Mapping[str, Sequence[str]] | None = None) -> None:
    """What rows have in their column `error`, the most frequent first, with ids of some."""
    for reason, count in reasons.most_common(NAMED_REASONS):
        named = list((ids or {}).get(reason, ()))
        rows = f" ({', '.join(named)}{', ...' if count > len(named) else ''})" if named else ""
        console.print(f"{count:,} x {reason}{rows}", highlight=False, markup=False)


def print_advice(statuses: Mapping[str, int], recipe: Recipe, console: Console) -> None:
    """What to do where many answers are not what was asked for: a model that small has to be shown how to answer."""
    faulty = sum(statuses.get(status, 0) for status in (Status.PARTIAL, Status.TRUNCATED, Status.MALFORMED))
    answered = faulty + statuses.get(Status.OK, 0)
    has_no_examples = any(task.adapter is None and not task.k for task in recipe.tasks)
    if has_no_examples and faulty > FAULTY_SHARE * answered:
        console.print(
            f"{faulty:,} of {answered:,} rows have an answer without an end or of no format: a model that small needs "
            "demonstrations (retrieval.index) or an adapter (docs/choosing.md)",
            highlight=False,
        )


def conclude(plan: Plan, errors: Sequence[UnitReport], about: dict[str, Any] | None, console: Console) -> int:
    """Read back what is on disk, write the manifest, print the line that adds up; the exit code.

    ``errors``: the units that could not be read or written; ``about``: what the manifest tells of the run that ends.
    """
    folder = plan.config.output.path
    missing = {report.name: report.error for report in errors}
    for name, error in missing.items():
        console.print(f"[red]not done[/] {escape(f'{name}: {error}')}", highlight=False)
    rows, tokens, statuses, reasons, ids = patiently(
        plan, console, lambda: manifest.add_up(folder, [unit.name for unit in plan.units if unit.name not in missing])
    )
    lost = sum(unit.rows for unit in plan.units if unit.name in missing)
    by_status = dict(sorted(statuses.items()))
    within = statuses[Status.FAILED] <= plan.config.job.max_failed * rows
    complete = within and not missing and not plan.listing.corrupt
    results = {"rows_out": rows, "rows_not_done": lost, "statuses": by_status, "tokens": tokens}
    state = "complete" if complete else "incomplete"
    patiently(plan, console, lambda: manifest.write(plan, state, results, about))
    print_reasons(reasons, console, ids)
    print_advice(statuses, plan.recipe, console)
    if not within:
        console.print(f"{statuses[Status.FAILED]:,} rows failed, over job.max_failed; --retry does them again")
    not_done = f" + {lost:,} not done" if lost else ""
    parts = " + ".join(f"{count:,} {status}" for status, count in by_status.items()) or "0"
    console.print(f"rows in {plan.rows:,} = rows out {rows:,}{not_done} = {parts}{not_done}", highlight=False)
    assert rows + lost == plan.rows, f"{folder}: rows do not add up"
    assert statuses.total() == rows, f"{folder}: statuses do not add up"
    if complete:
        patiently(plan, console, lambda: storage.write_bytes(storage.join(folder, manifest.SUCCESS), b""))
        return OK
    return TOO_MANY_FAILED
