"""What a person sees of a job that runs: one live line on a terminal, a plain line every ten seconds on a log."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ner_batch.jobs.jsonlog import JsonLines

PLAIN_SECONDS = 10.0
"""Lines this far apart keep an overnight log readable: 14 hours are 5,000 lines."""


@dataclass(frozen=True, slots=True)
class Line:
    """How far a job is: for a person, and in figures for a log of JSON."""

    text: str
    figures: Mapping[str, object] = field(default_factory=dict)


class ProgressLine:
    """The newest text about a job, as often as it is worth reading. Use as a context manager.

    On a terminal it is redrawn in place. On a log it is printed by the first :meth:`show` that comes ``every`` seconds
    or more after the last line (0: by all), and again while none comes: a log is never silent for longer than one and a
    half times ``every``. ``clock`` is seconds from any fixed moment.
    """

    def __init__(
        self, console: Console, every: float = PLAIN_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._every, self._clock = console, every, clock
        self._newest: str | Callable[[], str | Line] = ""
        self._printed = clock()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._live: Live | None = None
        self._repeater: threading.Thread | None = None
        if console.is_terminal and not isinstance(
            console.file, JsonLines | LastLine
        ):  # FORCE_COLOR makes any a terminal
            self._live = Live(console=console, get_renderable=self._text, refresh_per_second=4, transient=True)
        elif every > 0:
            self._repeater = threading.Thread(target=self._repeat, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._printed = self._clock()
        if self._live:
            self._live.start()
        if self._repeater:
            self._repeater.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()
        if self._repeater:
            self._end.set()
            self._repeater.join()

    def show(self, newest: str | Callable[[], str | Line]) -> None:
        """The newest line. A callable is asked when the line is shown, which may be in another thread."""
        self._newest = newest
        if not self._live:
            self._print_if_due()

    def _line(self) -> Line:
        line = self._newest() if callable(self._newest) else self._newest
        return Line(line) if isinstance(line, str) else line

    def _text(self) -> Text:
        return Text(self._line().text)

    def _print_if_due(self) -> None:
        with self._lock:
            now = self._clock()
            if self._newest and now - self._printed >= self._every:
                self._printed = now
                line, stream = self._line(), self._console.file
                if isinstance(stream, JsonLines):
                    stream.emit(line.text, **line.figures)
                else:
                    self._console.print(Text(line.text), highlight=False, soft_wrap=True)

    def _repeat(self) -> None:
        while not self._end.wait(self._every / 2):
            self._print_if_due()


class LastLine(io.TextIOBase):
    """A stream that keeps the newest line that is not blank, for those who want to see nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = self._rest = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Part of a line, or several."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            self._line = next((line for line in reversed(lines) if line.strip()), self._line)
        return len(text)

    def flush(self) -> None:
        """Nothing is written yet."""

    def print(self) -> None:
        """Write the line, if there was any."""
        line = self._rest if self._rest.strip() else self._line
        if line:
            self._stream.write(f"{line}\n")
            self._stream.flush()


def duration(seconds: float) -> str:
    """A span of time for a person: 45 s, 12 min, 7 h 40 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
