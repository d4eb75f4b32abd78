"""What the person at the terminal sees: one live line on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console
from rich.live import Live

# Plain lines this far apart keep an overnight log readable: 14 hours are 5,000 lines.
PLAIN_SECONDS = 10.0


@dataclass(slots=True)
class Tally:
    """Rows and tokens so far. ``before`` are rows that an earlier run has finished; they do not count for speed."""

    rows: int
    before: int = 0
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    tokens: int = 0
    deaths: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    first: tuple[float, int, int] | None = None
    """When the first rows were seen, how many, with how many tokens: speed is counted from there, without the start."""

    def line(self) -> str:
        """Rows done / total, rows/s, tokens/s, ETA, outcomes."""
        if not self.done:
            waited = duration(time.monotonic() - self.started)
            state = f"{self.tokens:,} tokens, no row finished yet" if self.tokens else "engines are starting"
            return f"{self.before:,} of {self.rows:,} rows | {waited}: {state}"
        since, rows_then, tokens_then = self.first = self.first or (time.monotonic(), self.done, self.tokens)
        seconds = time.monotonic() - since
        parts = [f"{self.before + self.done:,} of {self.rows:,} rows"]
        if self.done > rows_then:
            speed = (self.done - rows_then) / seconds
            parts.append(f"{speed:,.1f} rows/s")
            parts.append(f"{(self.tokens - tokens_then) / seconds:,.0f} tokens/s")
            parts.append(f"ETA {duration((self.rows - self.before - self.done) / speed)}")
        parts += [f"{count:,} {status}" for status, count in sorted(self.statuses.items()) if status != "ok"]
        parts += [f"engine restarted {self.deaths} times"] if self.deaths else []
        return " | ".join(parts)


def duration(seconds: float) -> str:
    """A span of time for a person: 45 s, 12 min, 7 h 40 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class ProgressLine:
    """Shows a tally. Use as a context manager; call :meth:`show` as often as you like."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.__exit__(None, None, None)

    def show(self, tally: Tally) -> None:
        """Update the live line, or print one if the last is old enough."""
        if self._live:
            self._live.update(tally.line())
        elif time.monotonic() - self._last >= PLAIN_SECONDS:
            self._last = time.monotonic()
            self.console.print(tally.line(), highlight=False, soft_wrap=True)
