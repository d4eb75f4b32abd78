"""Memory of the driver, and the time until the first unit is written, by the number of units of a corpus.

    PYTHONPATH=tests python tests/benchmarks/bench_units.py [UNITS ...]

Units of one row, out of one shard; the job over the scripted engine runs until 200 of them are written and is killed then.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from faults import ScriptedJob, table
from processes import kill_session, wait_until
from random_model import save_random_model

WRITTEN = 200


def written(job: ScriptedJob, count: int) -> bool:
    """Whether so many units have their file."""
    return len(job.files()) >= count


def peak_megabytes(pid: int) -> int:
    """The most memory that a process has held."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) // 1024


def main() -> None:
    """A row of the table for each number of units."""
    print(
        "| units | driver, MB at most | s until a unit is written | s until 200 are |\n|---:|---:|---:|---:|",
        flush=True,
    )
    for units in [int(word) for word in sys.argv[1:]] or [1_000, 20_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            model.mkdir()
            save_random_model(model)
            job = ScriptedJob(Path(folder) / "job", str(model))
            for path in job.corpus.rglob("*.parquet"):
                path.unlink()
            pq.write_table(table("x", units, "row {} of Bob"), job.corpus / "x.parquet", row_group_size=10_000)
            start = time.monotonic()
            process = job.start("job.unit_rows=1")
            seconds = []
            for count in (1, WRITTEN):
                wait_until(partial(written, job, count), process, 1800)
                seconds.append(time.monotonic() - start)
            megabytes = peak_megabytes(process.pid)
            os.kill(process.pid, signal.SIGKILL)
            kill_session(process)
            print(f"| {units:,} | {megabytes:,} | {seconds[0]:.0f} | {seconds[1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
