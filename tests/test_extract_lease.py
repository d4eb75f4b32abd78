"""One run at a time on an output folder, on a disk and in S3: who is refused, who takes over, and when."""

import io
import json
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from s3_server import BUCKET, point_at, s3_server

from ner_batch.errors import JobError, UserError
from ner_batch.extraction import lease
from ner_batch.extraction.lease import Lease
from ner_batch.extraction.status import status
from ner_batch.io import storage

HOLDER = """
import platform, sys, time
from rich.console import Console
if sys.argv[2] != "here":
    platform.node = lambda: sys.argv[2]
from ner_batch.extraction import lease
from ner_batch.jobs.progress import Line
lease.FIRST_RENEWAL_SECONDS = lease.RENEWAL_SECONDS = 0.2
with lease.Lease(sys.argv[1], Console(quiet=True)) as held:
    held.tell(Line("half of it"))
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def server():
    with s3_server() as running:
        yield running


@pytest.fixture(params=["disk", "s3"])
def folder(request, tmp_path, monkeypatch):
    """An output folder on a disk, and one in a bucket."""
    if request.param == "disk":
        return str(tmp_path / "out")
    point_at(monkeypatch, request.getfixturevalue("server")[0])
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def held_by(folder):
    """Starts a process, on this machine or one of another name, that holds the folder."""
    processes = []

    def start(machine):
        command = [sys.executable, "-c", HOLDER, folder, machine]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def console():
    """Nobody looks."""
    return Console(file=io.StringIO(), width=200)


def test_who_comes_second_is_refused_and_who_comes_later_is_not(folder):
    """The refusal names process, machine and remedy; the first run's file is gone with it."""
    with Lease(folder, console()):
        with pytest.raises(UserError, match=rf"process \d+ on .* since 20.*ner-batch status {re.escape(folder)}"):
            Lease(folder, console()).__enter__()
        assert lease.alive(folder, lease.read(folder))
    assert lease.read(folder) is None
    with Lease(folder, console()):
        pass


def test_of_two_at_once_one_remains(folder):
    """Both find the folder free and write; whoever wrote last has it."""
    results = []
    together = threading.Barrier(2)

    def run():
        together.wait()
        try:
            with Lease(folder, console()):
                results.append("held")
                time.sleep(3)
        except UserError:
            results.append("refused")

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["held", "refused"]


def test_a_killed_run_of_this_machine_is_no_obstacle(folder, held_by):
    """Its process is gone, or is another one of the same number: nobody waits."""
    process = held_by("here")
    with pytest.raises(UserError, match=f"process {process.pid} on"):
        Lease(folder, console()).__enter__()
    process.kill()
    wait_for_zombie(process)  # nobody has asked for its end yet
    assert not lease.alive(folder, lease.read(folder))
    start = time.monotonic()
    with Lease(folder, console()):
        assert time.monotonic() - start < lease.LOST_SECONDS / 2
    assert lease.Process(**{**holder_of(process), "pid": psutil.Process().pid}).lives is False


def wait_for_zombie(process):
    """Until a killed process has ended, before its parent has taken note."""
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)


def holder_of(process):
    """What a lease of this machine's would say of a process."""
    own = lease.Process.own()
    return {"host": own.host, "place": own.place, "pid": process.pid, "started": own.started - 1}


def test_a_run_elsewhere_is_watched(folder, held_by, monkeypatch):
    """Its process cannot be seen from here. While it renews its lease it is refused; when it no longer does, it is taken."""
    monkeypatch.setattr(lease, "LOST_SECONDS", 4.0)
    process = held_by("elsewhere")
    watched = console()
    with pytest.raises(UserError, match=f"process {process.pid} on elsewhere"):
        Lease(folder, watched).__enter__()
    assert "a run on elsewhere held it last; looking for 4 s whether it lives" in watched.file.getvalue()
    wait_for_progress(folder)
    process.kill()
    with Lease(folder, console()):
        assert lease.read(folder)["process"]["host"] != "elsewhere"


def wait_for_progress(folder):
    """Until what the run tells has come with a renewal."""
    while (holder := lease.read(folder)) is None or holder["progress"] != "half of it":
        time.sleep(0.1)


def content_of(of_process, **changes):
    """What the lease of a process that this machine had says."""
    now = datetime.now(UTC).isoformat()
    content = {"token": "other", "process": holder_of(of_process), "started": now, "renewed": now, "progress": ""}
    return content | changes


def test_a_run_that_was_halted_and_lost_its_folder_ends(tmp_path, monkeypatch):
    """It is interrupted, says why, and leaves the other's lease alone."""
    monkeypatch.setattr(lease, "FIRST_RENEWAL_SECONDS", 0.2)
    folder = str(tmp_path)
    other = content_of(psutil.Process())

    def run():
        with Lease(folder, console()):
            storage.write_json(storage.join(folder, lease.FILE), other)
            time.sleep(60)

    start = time.monotonic()
    with pytest.raises(JobError, match="another run has taken it"):
        run()
    assert time.monotonic() - start < 30
    assert json.loads((Path(folder) / lease.FILE).read_text()) == other


def test_two_that_write_at_once_and_slowly_are_told_apart(tmp_path, monkeypatch):
    """The second one's write takes longer than the first waits: that one is ended by its first look."""
    monkeypatch.setattr(lease, "FIRST_RENEWAL_SECONDS", 0.5)
    folder = str(tmp_path)
    threading.Timer(1.0, storage.write_json, (storage.join(folder, lease.FILE), content_of(psutil.Process()))).start()
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.5)

    def run():
        with Lease(folder, console()):
            time.sleep(60)

    with pytest.raises(JobError, match="another run has taken it"):
        run()
    assert lease.read(folder)["token"] == "other"


@pytest.mark.parametrize("hours", [-72, 72])
def test_clocks_that_differ_deceive_nobody(tmp_path, monkeypatch, hours):
    """Of a run elsewhere, whose clock is three days ahead or behind: it lives if it renews its lease while we watch."""
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 2.0)
    folder = str(tmp_path)
    process = {**holder_of(psutil.Process()), "place": "elsewhere"}

    def write(**changes):
        renewed = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
        storage.write_json(
            storage.join(folder, lease.FILE), content_of(psutil.Process(), process=process, renewed=renewed, **changes)
        )

    write()
    assert not lease.alive(folder, lease.read(folder))
    threading.Timer(0.5, write, kwargs={"progress": "half of it"}).start()
    assert lease.alive(folder, lease.read(folder))


def test_a_process_of_another_user_is_not_seen(monkeypatch):
    """It may be hidden: nothing is known of it."""

    def kill(*_):
        raise PermissionError

    monkeypatch.setattr(lease.os, "kill", kill)
    assert lease.Process.own().lives is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '"a"',
        "null",
        json.dumps({"token": "a"}),
        json.dumps({**content_of(psutil.Process()), "process": None}),
        json.dumps({**content_of(psutil.Process()), "process": {**holder_of(psutil.Process()), "pid": "12"}}),
        json.dumps({**content_of(psutil.Process()), "renewed": "yesterday"}),
        json.dumps({**content_of(psutil.Process()), "renewed": "2026-01-01T00:00:00"}),
    ],
)
def test_what_is_no_lease_is_said(tmp_path, content):
    """One line with the remedy, from a run that would begin and from the status."""
    (tmp_path / lease.FILE).write_text(content)
    with pytest.raises(UserError, match=r"not a lease of a run: delete it if no run writes to"):
        Lease(str(tmp_path), console()).__enter__()


@pytest.mark.parametrize("content", ["{}", "[]", '{"state": "complete"}', '{"state": 1, "rows_in": 1, "units": 1}'])
def test_what_is_no_manifest_is_said(tmp_path, content):
    """A file of that name of somebody else's."""
    (tmp_path / "_manifest.json").write_text(content)
    with pytest.raises(UserError, match="not a manifest of an extraction"):
        status(str(tmp_path))
