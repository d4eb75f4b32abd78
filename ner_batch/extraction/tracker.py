"""Counts engine crashes per unit and bisects a unit that keeps crashing down to the bad row.

An engine that dies takes its process down, and Ray starts the units it had in flight again. A unit that has seen
``SUSPECT`` deaths is read alone, in ranges of rows; a range that dies is halved, until the bad row stands alone and is
given up as ``failed``. One bad row among n costs about ``SUSPECT + log2 n`` deaths.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import ray
from ray.util.metrics import Gauge
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ner_batch.data import Prediction, Status
from ner_batch.errors import JobError

SUSPECT = 2
EXCUSES = 3
"""How often a unit's end is put down to its node; a row that takes the memory of a whole node with it is found too."""
START_ATTEMPTS = 3
"""How often a replica may be killed on one node while its engine starts."""
IDLE_SECONDS, PAUSE_SECONDS = 600.0, 60.0
"""A replica of which nothing is heard for so long does not work; one that is killed at every start waits so long."""
WAIT_SECONDS = 400.0
"""A read or write that waits is heard of so often at least: an attempt at S3 takes five minutes at most."""
BAD_ROW = "the engine died while it read this row alone; the row was given up"

Range = tuple[int, int]
"""Rows [start, stop) of a unit."""


@dataclass(slots=True)
class UnitAttempts:
    """What is known of one unit. ``predictions``: of the ranges that came through or were given up, by first row.

    ``node`` is where it was started last.
    """

    rows: int
    starts: int = 0
    excuses: int = 0
    node: str = ""
    running: Range | None = None
    waiting: list[Range] = field(default_factory=list)
    predictions: dict[int, Sequence[Prediction]] = field(default_factory=dict)

    def start(self, *, excused: bool = False) -> None:
        """A replica starts (or starts again) with the unit: whatever ran before has died.

        ``excused``: it died with its node, which for some times says nothing of the unit.
        """
        if excused and self.excuses < EXCUSES:
            self.excuses += 1
            if self.running:
                self.waiting = [self.running, *self.waiting]
                self.running = None
            return
        self.starts += 1
        if self.running:
            start, stop = self.running
            middle = (start + stop) // 2
            if stop - start == 1:
                self.predictions[start] = [Prediction(status=Status.FAILED, error=BAD_ROW)]
            else:
                self.waiting = [(start, middle), (middle, stop), *self.waiting]
            self.running = None
        elif self.starts == SUSPECT + 1 and self.rows:
            self.waiting = [(0, self.rows)]


@dataclass(frozen=True, slots=True)
class RunProgress:
    """The live counters of a run.

    ``rows`` and ``tokens`` count units still in flight too, and of a long row the part that is read; ``statuses`` only
    those written. ``fatal``: why the run cannot go on (no engine starts, or too many died), and whether the user can
    mend it. ``answered``: prompts, and their tokens, of the engines that run now, whatever has become of their rows.
    ``deaths`` are of engines; replicas that went with their node are ``lost``. ``storage``: why reads and writes wait.
    """

    rows: float
    tokens: int
    statuses: Mapping[str, int]
    replicas: int
    deaths: int
    causes: tuple[str, ...]
    fatal: tuple[str, bool] | None
    answered: tuple[int, int] = (0, 0)
    lost: int = 0
    storage: str | None = None


class Tracker:
    """The attempts at every unit of one run and its live counters; in a job it is an actor, see :func:`start`.

    Args:
        max_engine_deaths: deaths in all after which no unit may start any more.
    """

    def __init__(self, max_engine_deaths: int | None = None) -> None:
        self.max_engine_deaths = max_engine_deaths
        self.attempts: dict[str, UnitAttempts] = {}
        self.live: dict[str, tuple[float, int]] = {}
        self.written = (0, 0)
        self.statuses: Counter[str] = Counter()
        self.starts: Counter[str] = Counter()
        self.starting: dict[str, tuple[str, int, int]] = {}
        self.start_failure: str | None = None
        self.heard: dict[str, float] = {}
        self.nodes: dict[str, str] = {}
        self.lost_nodes: set[str] = set()
        self.lost = 0
        self.answered: dict[str, tuple[int, int]] = {}
        self.waiting: dict[str, int] = {}
        self.units_written = 0
        self.causes: list[str] = []
        self.waits: dict[str, tuple[str, float]] = {}
        self.lost_storage: str | None = None
        self.fatal: tuple[str, bool] | None = None

    def replica_starts(self, replica: str, node: str = "") -> float:
        """A replica is about to start its engine on a node; how many seconds it should wait before that.

        Ray restarts one whose process is killed meanwhile, without end: by the kernel, say, for the model does not fit.
        Where others work it may go on trying, now and then; where nobody does, the run ends.

        Raises:
            JobError: it was killed at its last attempts too, on this node, or on several one after the other.
        """
        if self.start_failure:  # Ray Data makes some more replicas in the place of one that is given up
            raise JobError(self.start_failure)
        before, on_node, in_all = self.starting.get(replica, (node, 0, 0))
        on_node = on_node + 1 if before == node else 1
        self.starting[replica] = (node, on_node, in_all + 1)
        if on_node <= START_ATTEMPTS and in_all < START_ATTEMPTS + EXCUSES:
            return 0.0
        now = time.monotonic()
        if any(now - heard < IDLE_SECONDS for other, heard in self.heard.items() if other != replica):
            return PAUSE_SECONDS
        self.start_failure = f"a replica was killed while its engine started, {in_all} times (out of memory?)"
        self.fatal = (self.start_failure, False)
        raise JobError(self.start_failure)

    def replica_started(self, replica: str, node: str = "", alive: Collection[str] = ()) -> None:
        """A replica has started on a node, for the first time or, under the same name, again.

        ``alive`` are the cluster's nodes now. Where the one it ran on before is none of them, it went with its node:
        no engine has died.
        """
        before = self.nodes.get(replica, node)
        if before != node and before not in alive:
            self.lost_nodes.add(before)
            self.lost += 1
        self.nodes[replica] = node
        self.starting.pop(replica, None)
        self.start_failure = None
        self.heard[replica] = time.monotonic()
        self.starts[replica] += 1
        self.fatal = None

    def engine_answered(self, replica: str, prompts: int, tokens: int, waiting: int) -> None:
        """What a replica's engine has answered since it started, and how many prompts wait there."""
        self.heard[replica] = time.monotonic()
        self.answered[replica] = (prompts, tokens)
        self.waiting[replica] = waiting

    def replica_refused(self, replica: str, error: str, user_error: bool) -> None:
        """A replica could not start its engine; the next attempt may."""
        self.starting.pop(replica, None)
        self.fatal = (error, user_error)

    def storage_waits(self, task: str, cause: str | None) -> None:
        """A read or a write waits because storage fails; no cause: it waits no more."""
        self.waits.pop(task, None)
        if cause is not None:
            self.waits[task] = (cause, time.monotonic())

    def writes_wait(self) -> bool:
        """Whether what is predicted cannot be written at the moment."""
        return any(task.startswith("write ") for task in self.storage)

    @property
    def storage(self) -> dict[str, str]:
        """Why reads and writes wait; those that were killed meanwhile say nothing more, and do not count for long."""
        now = time.monotonic()
        return {task: cause for task, (cause, heard) in self.waits.items() if now - heard < WAIT_SECONDS}

    def storage_lost(self, error: str) -> None:
        """Storage has failed for so long that the run ends."""
        self.lost_storage = error

    def engine_died(self, cause: str) -> None:
        """A replica reports why its engine died, just before it takes its process down. One that is killed cannot."""
        self.causes.append(cause)

    @property
    def deaths(self) -> int:
        """How often a replica has started again, but for those whose node was lost."""
        return self.starts.total() - len(self.starts) - self.lost

    def unit_started(self, unit: str, rows: int, node: str = "") -> bool:
        """Whether a unit that a replica on a node now starts must be read alone, range by range.

        Raises:
            JobError: engines have died too often in this run.
        """
        if self.max_engine_deaths is not None and self.deaths > self.max_engine_deaths:
            cause = self.causes[-1] if self.causes else "the process was killed (out of memory?)"
            message = f"engines died {self.deaths} times (job.max_engine_deaths): {cause}"
            self.fatal = (message, False)
            raise JobError(message)
        attempts = self.attempts.setdefault(unit, UnitAttempts(rows))
        attempts.start(excused=attempts.node in self.lost_nodes)
        attempts.node = node
        self.live[unit] = (0, 0)
        return attempts.starts > SUSPECT

    def next_range(self, unit: str) -> Range | None:
        """The range to read now; from here on its death is blamed on it."""
        attempts = self.attempts[unit]
        attempts.running = attempts.waiting.pop(0) if attempts.waiting else None
        return attempts.running

    def range_done(self, unit: str, predictions: Sequence[Prediction]) -> None:
        """The range that was read came through; it need not be read again if a later one dies."""
        attempts = self.attempts[unit]
        assert attempts.running
        attempts.predictions[attempts.running[0]] = predictions
        attempts.running = None

    def predictions(self, unit: str) -> list[Prediction]:
        """Of all rows of a unit that was read range by range, in order."""
        by_row = self.attempts[unit].predictions
        return [prediction for row in sorted(by_row) for prediction in by_row[row]]

    def rows_done(self, unit: str, rows: float, tokens: int) -> None:
        """Rows finished and tokens spent since the last call for a unit in flight."""
        if unit in self.live:
            rows_before, tokens_before = self.live[unit]
            self.live[unit] = (rows_before + rows, tokens_before + tokens)

    def unit_predicted(self, unit: str) -> None:
        """All rows of the unit are predicted: no later death is of its making."""
        self.attempts.pop(unit, None)

    def unit_written(self, unit: str, tokens: int, statuses: Mapping[str, int]) -> None:
        """The unit has its file, or is given up if it has no statuses."""
        self.live.pop(unit, None)
        self.waits.pop(f"read {unit}", None)  # of a process that was killed while it waited
        self.waits.pop(f"write {unit}", None)
        self.units_written += 1
        self.written = (self.written[0] + sum(statuses.values()), self.written[1] + tokens)
        self.statuses.update(statuses)

    def progress(self) -> RunProgress:
        """The live counters."""
        rows, tokens = (sum(column) for column in zip(self.written, *self.live.values(), strict=True))
        prompts, answered_tokens = (sum(column) for column in zip((0, 0), *self.answered.values(), strict=True))
        return RunProgress(
            rows=rows,
            tokens=tokens,
            statuses=dict(self.statuses),
            replicas=len(self.starts),
            deaths=self.deaths,
            causes=tuple(self.causes),
            fatal=(self.lost_storage, False) if self.lost_storage else self.fatal,
            answered=(prompts, answered_tokens),
            lost=self.lost,
            storage=next(iter(self.storage.values()), None),
        )


_GAUGES = {
    "rows": "Rows read, of those in flight the part that is",
    "rows_by_status": "Rows written, by status",
    "units_written": "Units written or given up",
    "tokens": "Tokens of prompts and answers of these rows",
    "prompts_answered": "Prompts that the engines have answered since they started",
    "prompts_waiting": "Prompts that wait for an answer, inside the engines or before them",
    "replicas": "Replicas that have started",
    "engine_deaths": "Engines that have died",
    "replicas_lost": "Replicas that were lost with their node",
    "storage_waits": "Reads and writes that wait because storage fails",
}


class MeteredTracker(Tracker):
    """A tracker in an actor. Ray exports its counters for Prometheus on its metrics port: ``ray_ner_batch_rows`` ..."""

    def __init__(self, max_engine_deaths: int | None = None) -> None:
        super().__init__(max_engine_deaths)
        self.gauges = {
            name: Gauge(f"ner_batch_{name}", about, ("status",) if name == "rows_by_status" else ())
            for name, about in _GAUGES.items()
        }

    def engine_answered(self, replica: str, prompts: int, tokens: int, waiting: int) -> None:
        """As of any tracker; every replica tells it every two seconds, so it is the pulse of the gauges."""
        super().engine_answered(replica, prompts, tokens, waiting)
        self.export()

    def unit_written(self, unit: str, tokens: int, statuses: Mapping[str, int]) -> None:
        """As of any tracker."""
        super().unit_written(unit, tokens, statuses)
        self.export()

    def storage_waits(self, task: str, cause: str | None) -> None:
        """As of any tracker."""
        super().storage_waits(task, cause)
        self.export()

    def export(self) -> None:
        """Set the gauges; Ray collects them."""
        progress = self.progress()
        values = {
            "rows": progress.rows,
            "units_written": self.units_written,
            "tokens": progress.tokens,
            "prompts_answered": progress.answered[0],
            "prompts_waiting": sum(self.waiting.values()),
            "replicas": progress.replicas,
            "engine_deaths": progress.deaths,
            "replicas_lost": progress.lost,
            "storage_waits": len(self.storage),
        }
        for name, value in values.items():
            self.gauges[name].set(value)
        for status, count in progress.statuses.items():
            self.gauges["rows_by_status"].set(count, tags={"status": status})


class _RemoteCalls:
    """Calls the methods of an actor as if it were here: every call waits for its answer, and raises what it raised.

    So a replica that is about to end has reported why. A call takes about a millisecond; there are some ten a second.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for while this is unpickled
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            try:
                return ray.get(getattr(self._actor, name).remote(*arguments))
            except ray.exceptions.RayTaskError as error:  # its message is pages long
                raise error.cause from None

        return call


def start(max_engine_deaths: int) -> Tracker:
    """A tracker in an actor on the driver's node, so that it outlives every replica and every other node.

    It lives as long as somebody holds the returned object.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": 0, "scheduling_strategy": here}
    return cast(Tracker, _RemoteCalls(ray.remote(MeteredTracker).options(**options).remote(max_engine_deaths)))


class SharedLock:
    """A readers-writer lock, for a suspect unit must not take others down with it. Who waits to be alone goes first."""

    def __init__(self) -> None:
        self._condition = threading.Condition()  # its lock is held by the one who is alone
        self._sharing = 0
        self._exclusive = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Be inside with others."""
        with self._condition:
            self._condition.wait_for(lambda: not self._exclusive)
            self._sharing += 1
        try:
            yield
        finally:
            with self._condition:
                self._sharing -= 1
                self._condition.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be inside alone."""
        with self._condition:
            self._exclusive += 1
            try:
                self._condition.wait_for(lambda: not self._sharing)
                yield
            finally:
                self._exclusive -= 1
                self._condition.notify_all()
