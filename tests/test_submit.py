"""`ray job submit` against a Ray head started here, with Ray's token authentication on, as 2.60 has it by default."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from processes import kill_session
from tiny import ADAPTER, BASE, gold

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]
ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def free_port():
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def head():
    """A Ray head with two CPUs and a token; gives (dashboard address, environment). Ended by process group, by pid."""
    token = "0123456789abcdef" * 2
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_process_group_cleanup_enabled": "1",
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    port = free_port()
    # A short path: Ray's sockets lie below it, and a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        command = [BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=true"]
        # The agent's port is fixed (52365) unless told; another Ray on this machine holds it, and submissions then fail.
        ports = [f"--port={free_port()}", "--dashboard-agent-listen-port=0"]
        ports += [f"--dashboard-port={port}", "--dashboard-host=127.0.0.1"]
        process = subprocess.Popen(
            [*command, *ports, f"--temp-dir={folder}"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/api/version", token)
            yield f"http://127.0.0.1:{port}", environment
        finally:
            kill_session(process)  # SIGTERM ends it too, after half a minute


def wait_for(url, token):
    """Until the dashboard answers."""
    deadline = time.monotonic() + 120
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    while True:
        try:
            urllib.request.urlopen(request, timeout=5)
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.5)
        else:
            return


def submit(address, environment, *entrypoint):
    """`ray job submit --working-dir . -- ...` from the repository. The dashboard answers before its agent is there."""
    command = [BIN / "ray", "job", "submit", "--address", address, "--working-dir", ".", "--", *entrypoint]
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


def test_the_shipped_job_runs_as_a_submitted_job(head, tmp_path, tiny_model):
    """The README's command, on the shipped config: entities come out, and a relative output is refused in one line."""
    address, environment = head
    texts = [example.text for example in gold("test")[:60]]
    pq.write_table(pa.table({"doc_id": [str(i) for i in range(60)], "text": texts}), tmp_path / "in.parquet")
    models = [f"engine.model={BASE}", f"adapter={ADAPTER}"]  # the demo's own lie in demo-output once it has run
    job = ["python", "jobs/extract.py", "jobs/extract.yaml", f"input.path={tmp_path / 'in.parquet'}", *models]
    done = submit(address, environment, *job, f"output.path={tmp_path / 'out'}", "retrieval.index=null")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rows in 60 = rows out 60 = " in done.stdout
    rows = pads.dataset(tmp_path / "out", format="parquet").to_table().to_pylist()
    assert sum(len(row["entities"]) for row in rows) > 30
    assert all(row["text"][e["start"] : e["end"]] == e["text"] for row in rows for e in row["entities"])
    refused = submit(address, environment, *job, "output.path=out", "retrieval.index=null")
    assert refused.returncode != 0
    assert "error: output.path: out would land in the job's copy of the working directory" in refused.stdout
    without = {k: v for k, v in environment.items() if k != "RAY_AUTH_TOKEN"} | {"HOME": str(tmp_path)}
    assert submit(address, without, "python", "--version").returncode != 0
