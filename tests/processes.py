"""Processes of a test's own session: found, and ended when a killed driver has left them behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def in_session(pid: int, words: str = ".") -> list[int]:
    """Processes of the session of ``pid`` whose command line has the words."""
    listed = subprocess.run(["pgrep", "-s", str(pid), "-f", words], capture_output=True, text=True).stdout.split()
    return [int(line) for line in listed]


def kill_session(process: subprocess.Popen[str]) -> None:
    """End what a killed driver leaves behind (Ray notices within seconds; the test need not wait)."""
    for pid in in_session(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def parquet_files(folder: Path) -> dict[str, int]:
    """Names and times of writing of the output files in a folder.

    A job that is starting tries whether it can write: it makes the folder and removes it again, at any moment of a
    listing.
    """
    try:
        return {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(folder) if entry.name.endswith(".parquet")}
    except FileNotFoundError:
        return {}


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 180) -> None:
    """Return when the condition holds; a job that ends before, or takes longer, is an error."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"the job ended with {process.returncode}: {process.communicate()[0]}")
        if time.monotonic() > end:
            kill_session(process)
            raise AssertionError(f"not seen within {seconds} s")
        time.sleep(0.01)
