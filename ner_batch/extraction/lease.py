"""One run at a time on an output folder: a file beside the data, which the run that holds it renews while it lives.

The file says who runs where since when, and how far the run is (`ner-batch status` shows it). A killed run leaves it
behind. Who would take over knows that the run is gone where its process is (same machine), or by watching that nothing
renews the file; so no clocks are compared for it. Every place that stores files will do; no locks of its own are
needed.
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

from rich.console import Console

from ner_batch.errors import JobError, UserError
from ner_batch.io import outage, storage
from ner_batch.jobs.progress import Line

FILE = "_running.json"
RENEWAL_SECONDS = 20.0
LOST_SECONDS = 60.0
"""A lease that nobody renews for so long is free."""
FIRST_RENEWAL_SECONDS = 3.0
LAST_SECONDS = 5.0
"""For each thing to put in order after a run that has failed."""
SETTLED_SECONDS = 0.3
"""Between writing a lease and looking whether it stands, at least."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a machine.

    ``place`` tells apart machines, their starts, and containers; ``started`` processes of the same number: in ticks of
    the kernel's clock, which nobody sets.
    """

    host: str
    place: str
    pid: int
    started: int

    @classmethod
    def own(cls) -> Self:
        """The process that asks."""
        boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
        parts = [platform.node()]
        parts += [boot.read_text().strip()] if boot.is_file() else []
        parts += [str(namespace.readlink())] if namespace.is_symlink() else []
        return cls(platform.node(), " ".join(parts), os.getpid(), _kernel_state(os.getpid())[0])

    @property
    def lives(self) -> bool | None:
        """Whether the process lives; None where it cannot be known from here."""
        if self.place != Process.own().place:
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # of another user, who may hide it
            return None
        started, state = _kernel_state(self.pid)
        return started == self.started and state != "Z"


def _kernel_state(pid: int) -> tuple[int, str]:
    """When a process started, in ticks since the machine did, and its state, Z where it has ended; (0, "") unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:  # no Linux
        return 0, ""
    return int(fields[19]), fields[0]


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

    def tell(self, line: Line) -> Line:
        """Put a line about the run beside the data with the next renewal; the same line."""
        self.progress = line.text
        return line

    def __enter__(self) -> Self:
        self._wait_until_free()
        clock = time.monotonic()
        self._write()
        # Of two that write at once the later stays. Who comes to write later than this is found out when renewing.
        time.sleep(min(RENEWAL_SECONDS, max(SETTLED_SECONDS, 3 * (time.monotonic() - clock))))
        if (holder := read(self.folder)) and holder["token"] != self.token:
            raise _held(self.folder, holder)
        self._renewer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._ended.set()
        # Where storage does not answer, a run that has failed does not wait for it.
        limit = RENEWAL_SECONDS if kind is None else LAST_SECONDS
        self._renewer.join(limit)
        outage.try_for(limit, self._leave)
        if self.taken:
            raise JobError(f"{self.folder}: another run has taken it meanwhile (was this one halted?); nothing is lost")

    def _leave(self) -> None:
        """Remove the file, if it is ours."""
        self._look()
        if not self.taken:
            storage.remove(self.uri)

    def _look(self) -> None:
        """Note where another run has the folder."""
        try:
            holder = read(self.folder)
        except (OSError, UserError):  # a store out of reach for a while; units meet it too, and say so
            storage.forget_connections()
        else:
            self.taken = self.taken or (holder is not None and holder["token"] != self.token)

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
        """Renew the file until the run ends, at first soon. Where another run has it, this one is interrupted."""
        pause = FIRST_RENEWAL_SECONDS
        while not self._ended.wait(pause):
            pause = RENEWAL_SECONDS
            self._look()
            if self.taken:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return
            with suppress(OSError, UserError):
                self._write()


def read(folder: str) -> dict[str, Any] | None:
    """What the lease of a folder says; None where there is none.

    Raises:
        UserError: the folder cannot be read, or the file is not a lease.
    """
    uri = storage.join(folder, FILE)
    try:
        content = storage.read_json(uri)
        Process(**content["process"])
        datetime.fromisoformat(content["renewed"]) - datetime.now(UTC)
        texts = [content[name] for name in ("token", "started", "progress")]
        numbers = [content["process"][name] for name in ("pid", "started")]
        if all(isinstance(text, str) for text in texts) and all(type(number) is int for number in numbers):
            return dict(content)
    except UserError:
        if not storage.exists(uri):
            return None
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(f"{uri}: not a lease of a run: delete it if no run writes to {folder}")


def alive(folder: str, holder: Mapping[str, Any]) -> bool:
    """Whether the run that a lease tells of is there: its process where it can be seen.

    Else whether the lease is new by our clock, and where it is not, or comes from the future, whether it is renewed
    while we wait.
    """
    lives = Process(**holder["process"]).lives
    if lives is not None:
        return lives
    age = (datetime.now(UTC) - datetime.fromisoformat(holder["renewed"])).total_seconds()
    if 0 <= age < LOST_SECONDS:
        return True
    until = time.monotonic() + 1.25 * RENEWAL_SECONDS
    while time.monotonic() < until:
        time.sleep(1)
        if (now := read(folder)) != holder:
            return now is not None
    return False


def _held(folder: str, holder: Mapping[str, Any]) -> UserError:
    process = holder["process"]
    return UserError(
        f"output.path: {folder} is being written by process {process['pid']} on {process['host']} since "
        f"{holder['started']}: wait for it (ner-batch status {folder}), stop it, or choose another folder"
    )
