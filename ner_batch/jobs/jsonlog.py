"""A job's log for programs: a JSON object a line, where a person would read the line itself."""

from __future__ import annotations

import io
import json
import sys
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

from rich.text import Text

Level = Literal["info", "error", "critical"]


class JsonLines(io.TextIOBase):
    """A stream for a rich Console: a line that is printed becomes `{"time", "level", "message"}`, an empty one nothing.

    ``time`` is UTC in ISO 8601. What other libraries print to ``stream`` themselves stays as it is.
    """

    def __init__(self, stream: TextIO, level: Level = "info") -> None:
        self._stream, self._level = stream, level
        self._rest = ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Part of a line, or several."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                if message := Text.from_ansi(line).plain.strip(" ─"):  # of a rule, its title
                    self.emit(message)
        return len(text)

    def emit(self, message: str, **fields: Any) -> None:
        """One object, with fields of its own."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "level": self._level, "message": message, **fields}, default=str)
        with self._lock:
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def flush(self) -> None:
        """Every line is flushed as it is written."""


def log_exceptions(stream: TextIO) -> None:
    """Write an exception that ends the process, with its traceback, as one object, `{..., "traceback"}`."""
    lines = JsonLines(stream, "critical")

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        lines.emit(traceback.format_exception_only(error)[-1].strip(), traceback=text)

    sys.excepthook = hook
