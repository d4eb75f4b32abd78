"""The progress line that jobs share: live on a terminal, now and then on a log, and never silent for long."""

import io
import threading

import pytest
from rich.console import Console

from ner_batch.jobs.progress import ProgressLine, duration


class Clock:
    """Stands still until it is told otherwise."""

    now = 100.0

    def __call__(self):
        return self.now


class Log(io.StringIO):
    """A log that can be waited for."""

    def __init__(self, lines):
        super().__init__()
        self.missing, self.full = lines, threading.Event()

    def write(self, text):
        self.missing -= text.count("\n")
        if self.missing <= 0:
            self.full.set()
        return super().write(text)


def test_a_log_gets_a_line_every_ten_seconds():
    """Not at once, not for every call; always the newest text, as it is at that moment, brackets and all."""
    clock, log, calls = Clock(), io.StringIO(), []

    def text():
        calls.append(clock.now)
        return f"[b] at {clock.now:g}"

    with ProgressLine(Console(file=log, width=20), every=10.0, clock=clock) as line:
        for clock.now in (100, 105, 109, 110, 111, 119, 125, 134, 135):
            line.show(text)
    assert log.getvalue().splitlines() == ["[b] at 110", "[b] at 125", "[b] at 135"]
    assert calls == [110, 125, 135]


def test_every_zero_is_a_line_for_every_call():
    """For a log that is to be complete, and for tests."""
    log = io.StringIO()
    with ProgressLine(Console(file=log, width=20), every=0) as line:
        for n in range(5):
            line.show(f"step {n} of a job whose line is longer than the console is wide")
    assert [text.split(" of ")[0] for text in log.getvalue().splitlines()] == [f"step {n}" for n in range(5)]


def test_a_long_step_is_no_silence():
    """One call, then nothing: the line comes again and again, freshly asked, and no more after the end."""
    log, number = Log(lines=3), iter(range(10**9))
    with ProgressLine(Console(file=log), every=0.01) as line:
        line.show(lambda: f"waiting {next(number)}")
        assert log.full.wait(60)
    lines = log.getvalue().splitlines()
    assert lines == [f"waiting {n}" for n in range(len(lines))]
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_a_terminal_has_one_line_that_is_redrawn():
    """The newest text is on it, and it is gone at the end."""
    screen = io.StringIO()
    with ProgressLine(Console(file=screen, force_terminal=True, width=40)) as line:
        line.show("step 1 [of] 3")
        line.show(lambda: "step 2 [of] 3")
    assert "step 2 [of] 3" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[1A\x1b[2K")  # up, and the line erased


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (5360, "89 min"), (5400, "1 h 30 min"), (27600, "7 h 40 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
