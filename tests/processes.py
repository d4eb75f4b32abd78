"""Processes of a test's own session: found, and ended when a killed driver has left them behind."""

from __future__ import annotations

import os
import signal
import subprocess


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
