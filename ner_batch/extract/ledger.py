"""Who died doing what: retries, and the search for the row that kills engines.

An engine that dies takes its process down, and Ray starts the units it had in flight again. A unit that has seen
``SUSPECT`` deaths is read alone, in ranges of rows; a range that dies is halved, until the poisoned row stands alone
and is given up as ``failed``. One poisoned row among n costs about ``SUSPECT + log2 n`` deaths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

SUSPECT = 2

Range = tuple[int, int]
"""Rows [start, stop) of a unit."""


@dataclass(slots=True)
class Case:
    """What is known of one unit."""

    rows: int
    deaths: int = 0
    running: Range | None = None
    todo: list[Range] = field(default_factory=list)
    poisoned: list[int] = field(default_factory=list)
    kept: dict[Range, Any] = field(default_factory=dict)
    started: bool = False

    def begin(self) -> None:
        """A replica starts (or starts again) with the unit: whatever ran before has died."""
        if self.started:
            self.deaths += 1
        self.started = True
        died, self.running = self.running, None
        if died is not None:
            self.todo = _halves(died) + self.todo
            if died[1] - died[0] == 1:
                self.poisoned.append(died[0])
        elif self.deaths == SUSPECT and self.rows:
            self.todo = [(0, self.rows)]

    @property
    def suspect(self) -> bool:
        """Whether the unit must be read alone, range by range."""
        return self.deaths >= SUSPECT

    def next_range(self) -> Range | None:
        """The range to read now; from here on its death is blamed on it."""
        self.running = self.todo.pop(0) if self.todo else None
        return self.running

    def keep(self, done: Range, predictions: Any) -> None:
        """A range came through; its predictions need not be made again if a later range dies."""
        self.kept[done] = predictions
        self.running = None


def _halves(span: Range) -> list[Range]:
    start, stop = span
    middle = (start + stop) // 2
    return [] if stop - start == 1 else [(start, middle), (middle, stop)]


@dataclass(frozen=True, slots=True)
class Report:
    """Rows finished and tokens spent so far, in units still in flight too; replicas started; why engines died."""

    rows: int
    tokens: int
    statuses: Mapping[str, int]
    """Rows by status, of the units that are written."""
    starts: int
    causes: tuple[str, ...]


class Ledger:
    """The cases of one run and its live counters: a Ray actor beside the driver, so that it outlives every replica."""

    def __init__(self) -> None:
        self.cases: dict[str, Case] = {}
        self.live: dict[str, tuple[int, int]] = {}
        self.written = (0, 0)
        self.statuses: Counter[str] = Counter()
        self.starts = 0
        self.causes: list[str] = []

    def begin(self, unit: str, rows: int) -> bool:
        """Whether a unit that a replica now starts must be read alone, range by range."""
        case = self.cases.setdefault(unit, Case(rows))
        case.begin()
        self.live[unit] = (0, 0)
        return case.suspect

    def next_range(self, unit: str) -> Range | None:
        """See :meth:`Case.next_range`."""
        return self.cases[unit].next_range()

    def keep(self, unit: str, done: Range, predictions: Any) -> None:
        """See :meth:`Case.keep`."""
        self.cases[unit].keep(done, predictions)

    def findings(self, unit: str) -> tuple[dict[Range, Any], list[int]]:
        """(predictions by range, poisoned rows) of a unit read range by range."""
        case = self.cases[unit]
        return case.kept, case.poisoned

    def done(self, unit: str, tokens: int, statuses: Mapping[str, int]) -> None:
        """The unit is written, or given up if it has no statuses: forget its case and count it."""
        self.cases.pop(unit, None)
        self.live.pop(unit, None)
        self.written = (self.written[0] + sum(statuses.values()), self.written[1] + tokens)
        self.statuses.update(statuses)

    def progress(self, unit: str, rows: int, tokens: int) -> None:
        """Rows finished and tokens spent since the last report of a unit in flight."""
        if unit in self.live:
            before = self.live[unit]
            self.live[unit] = (before[0] + rows, before[1] + tokens)

    def hello(self) -> None:
        """A replica has started, for the first time or again."""
        self.starts += 1

    def died(self, cause: str) -> None:
        """A replica reports why its engine died, just before it takes its process down. One that is killed cannot."""
        self.causes.append(cause)

    def report(self) -> Report:
        """The live counters."""
        rows, tokens = (sum(column) for column in zip(self.written, *self.live.values(), strict=True))
        return Report(rows, tokens, dict(self.statuses), self.starts, tuple(self.causes))


def start() -> Any:
    """A ledger actor on this node; the handle is passed to every replica."""
    return ray.remote(Ledger).options(num_cpus=0, max_restarts=0).remote()
