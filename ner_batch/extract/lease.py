"""One run at a time on an output folder: a file beside the data, which the run that holds it renews while it lives.

The file says who runs where since when, and how far the run is (`ner-batch status` shows it). A killed run leaves it
behind. Another process knows that the run is gone where its process is (same machine), or by watching that nothing
renews the file; so no clocks are compared. Every place that stores files will do: no store's own locks are needed.
"""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import psutil
from rich.console import Console

from ner_batch.errors import JobError, UserError
from ner_batch.io import storage

FILE = "_running.json"
RENEWAL_SECONDS = 20.0
LOST_SECONDS = 60.0
"""A lease that nobody renews for so long is free."""
SETTLED_SECONDS = {"local": 0.2, "remote": 2.0}
"""Between writing a lease and looking whether it stands: of two that write at once the later stays."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process on a machine; ``place`` tells machines and containers apart, ``started`` reused process numbers."""

    host: str
    place: str
    pid: int
    started: float

    @classmethod
    def own(cls) -> Self:
        """The process that asks."""
        namespace = Path("/proc/self/ns/pid")
        place = f"{platform.node()} {namespace.readlink() if namespace.is_symlink() else ''}"
        return cls(platform.node(), place, os.getpid(), psutil.Process().create_time())

    @property
    def lives(self) -> bool | None:
        """Whether the process lives; None where it cannot be known from here."""
        if self.place != Process.own().place:
            return None
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class Lease:
    """The right to write an output folder, for as long as the context is open.

    Raises:
        UserError: another run holds it.
        JobError: at the end, if another run has taken it meanwhile, because this one was halted for a minute or more.
    """

    def __init__(self, folder: str, console: Console) -> None:
        self.uri = storage.join(folder, FILE)
        self.folder, self.console = folder, console
        self.progress = ""
        self.token = uuid.uuid4().hex
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.taken = False
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)

    def tell(self, progress: str) -> str:
        """Put a line about the run beside the data with the next renewal; the same line."""
        self.progress = progress
        return progress

    def __enter__(self) -> Self:
        self._wait_until_free()
        self._write()
        time.sleep(SETTLED_SECONDS["local" if storage.local_path(self.folder) else "remote"])
        if (holder := read(self.folder)) and holder["token"] != self.token:
            raise _held(self.folder, holder)
        self._renewer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._ended.set()
        self._renewer.join()
        if self.taken:
            raise JobError(f"{self.folder}: another run has taken it while this one was halted; nothing is lost")
        with suppress(OSError):
            storage.remove(self.uri)

    def _wait_until_free(self) -> None:
        """Return once nobody holds the folder. Raises UserError where somebody does."""
        holder = read(self.folder)
        if holder is None:
            return
        lives = Process(**holder["process"]).lives
        if lives:
            raise _held(self.folder, holder)
        if lives is None:
            self.console.print(
                f"{self.folder}: a run on {holder['process']['host']} held it last; looking for {LOST_SECONDS:.0f} s "
                "whether it lives",
                highlight=False,
            )
            until = time.monotonic() + LOST_SECONDS
            while time.monotonic() < until:
                time.sleep(1)
                now = read(self.folder)
                if now is None:
                    return
                if now != holder:
                    raise _held(self.folder, now)

    def _write(self) -> None:
        content = {
            "token": self.token,
            "process": asdict(Process.own()),
            "started": self.started,
            "renewed": datetime.now(UTC).isoformat(timespec="seconds"),
            "progress": self.progress,
        }
        storage.write_json(self.uri, content)

    def _renew(self) -> None:
        """Renew the file until the run ends. Where another run has it, this one is interrupted."""
        while not self._ended.wait(RENEWAL_SECONDS):
            try:
                holder = read(self.folder)
                if holder and holder["token"] != self.token:
                    self.taken = True
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    return
                self._write()
            except (OSError, UserError):  # a store out of reach for a while; units meet it too, and say so
                continue


def read(folder: str) -> dict[str, Any] | None:
    """What the lease of a folder says; None where there is none, or one that is being written this moment.

    Raises:
        UserError: the folder cannot be read.
    """
    uri = storage.join(folder, FILE)
    if not storage.exists(uri):
        return None
    try:
        content: dict[str, Any] = storage.read_json(uri)
    except UserError:
        if storage.exists(uri):
            raise
        return None  # its run has ended in this moment
    return content


def alive(holder: Mapping[str, Any]) -> bool:
    """Whether the run that a lease tells of is there: its process where it can be seen, else by when it was renewed."""
    lives = Process(**holder["process"]).lives
    age = (datetime.now(UTC) - datetime.fromisoformat(holder["renewed"])).total_seconds()
    return age < LOST_SECONDS if lives is None else lives


def _held(folder: str, holder: Mapping[str, Any]) -> UserError:
    process = holder["process"]
    return UserError(
        f"output.path: {folder} is being written by process {process['pid']} on {process['host']} since "
        f"{holder['started']}: wait for it (ner-batch status {folder}), stop it, or choose another folder"
    )
