"""How long one replica works at the end while another has nothing to do, with documents of very different lengths.

    PYTHONPATH=tests python tests/benchmarks/bench_tail.py

Short notes, and three reports of hundreds of windows, each a unit, in a shard that is listed last; the job on two replicas over the scripted engine,
whose answers take the same time each. Once with the units in the order of the listing, once as the job orders them. Prints
how long before the last answer the other replica gave its last, and the whole job's seconds.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from faults import ScriptedJob, finish, table
from random_model import save_random_model

NOTE = "row {} of Bob"
REPORT = "row {} of Bob. " + "Alice met Carol in the long corridor of the old house and they talked. " * 1500


AS_LISTED = "from ner_batch.extraction import job; job.large_first = lambda units, _: units; "


def run(folder: Path, model: str, order: str) -> tuple[float, float]:
    """The corpus through the job; ``order`` is code that runs before. Seconds of one idle replica, and of the job."""
    job = ScriptedJob(folder, model)
    for path in job.corpus.rglob("*.parquet"):
        path.unlink()
    for number in range(20):
        pq.write_table(table(f"notes-{number}", 400, NOTE), job.corpus / f"a-notes-{number:02}.parquet")
    pq.write_table(table("reports", 4, REPORT), job.corpus / "z-reports.parquet")
    settings = [
        "job.replicas=2",
        "job.num_cpus=0.5",
        "job.unit_rows=20",
        "job.unit_bytes=100000",
        "windows.max_tokens=64",
    ]
    start = time.monotonic()
    finish(
        job.start(*settings, code=f"{order}import scripted; scripted.main()", delay=0.01, NER_BATCH_SCRIPTED_SERIAL="1")
    )
    seconds = time.monotonic() - start
    first, last = sorted(log.stat().st_mtime for log in job.log.iterdir())
    return last - first, seconds


def main() -> None:
    """A row for each order."""
    print("| order of units | one replica idle at the end, s | the job, s |\n|---|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        model.mkdir()
        save_random_model(model)
        for name, order in (("as listed", AS_LISTED), ("the largest first, the smallest last", "")):
            idle, seconds = run(Path(folder) / name, str(model), order)
            print(f"| {name} | {idle:.1f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
