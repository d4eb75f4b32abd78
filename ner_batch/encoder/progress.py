"""What the person at the terminal sees: a bar with the time left, or a plain line every ten seconds elsewhere."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0
_SMOOTHING = 0.95  # of the loss that is shown


class Line:
    """Progress of reading, then of training. Use as a context manager."""

    def __init__(self, console: Console, what: str) -> None:
        columns = (TextColumn(what), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self._task = self._progress.add_task("", total=None)
        self._what = what
        self._loss: float | None = None
        self._first: int | None = None
        self._begun = self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._progress.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.console.is_terminal:  # elsewhere it would print an empty line
            self._progress.stop()

    def show(self, done: int, total: int, loss: float | None = None) -> None:
        """The newest figures."""
        self._first = done if self._first is None else self._first
        if loss is not None:
            self._loss = loss if self._loss is None else _SMOOTHING * self._loss + (1 - _SMOOTHING) * loss
        words = "" if self._loss is None else f"loss {self._loss:.3f}"
        self._progress.update(self._task, completed=done, total=total, description=words)
        now = time.monotonic()
        if not self._progress.console.is_terminal and now - self._last >= PLAIN_SECONDS:
            self._last = now
            left = (total - done) * (now - self._begun) / max(1, done - self._first)
            told = f"{self._what} {done:,} of {total:,}  {words}  {left / 60:,.1f} min left"
            self._progress.console.print(told, highlight=False, soft_wrap=True)
