"""1,000 small shards in S3: listed with their footers, then read, against an S3 server on this machine.

    python tests/benchmarks/bench_storage.py                       # this checkout alone
    python tests/benchmarks/bench_storage.py --before ../old       # paired with another checkout, interleaved

One server for all; each round is a process per checkout, in alternating order, which lists the shards twice (the first
time with imports and the question for the bucket) and reads every unit. Printed are medians and the ratio new : old,
of the seconds and, for a busy machine, of the CPU seconds of client and server together.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from s3_server import BUCKET, CREDENTIALS, s3_server  # noqa: E402

CHILD = """
import sys, time
start = time.perf_counter()
try:
    from ner_batch.io.listing import list_shards, read_unit
from ner_batch.io.shards import plan_units
except ImportError:  # where they lay before
    try:
        from ner_batch.io.listing import list_shards
        from ner_batch.io.shards import plan_units
        from ner_batch.io.rows import read_unit
    except ImportError:
        from ner_batch.shards import list_shards, plan_units
        from ner_batch.rows import read_unit
list_shards(sys.argv[1], "text")
first = time.perf_counter()
listing = list_shards(sys.argv[1], "text")
listed = time.perf_counter()
rows = sum(read_unit(unit).num_rows for unit in plan_units(listing.shards, 4000, 2**30))
read = time.perf_counter()
assert rows == int(sys.argv[2]), rows
print(first - start, listed - first, read - listed, time.process_time())
"""
STEPS = (
    "first listing, with imports",
    "listing with footers",
    "reading every unit",
    "CPU of client and server, all steps",
)


def measured(checkout: Path, endpoint: str, rows: int) -> list[float]:
    """Seconds of each of :data:`STEPS`, in a process of its own."""
    environment = os.environ | CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", CHILD, f"s3://{BUCKET}/in", str(rows)]
    worked = time.process_time()  # the server is a thread of this process
    output = subprocess.run(command, env=environment, cwd=checkout, check=True, capture_output=True, text=True).stdout
    *seconds, client = [float(value) for value in output.split()]
    return [*seconds, client + time.process_time() - worked]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=1000)
    arguments = parser.parse_args()
    checkouts = {"new": ROOT} | ({"old": arguments.before.resolve()} if arguments.before else {})
    seconds: dict[str, list[list[float]]] = {name: [] for name in checkouts}
    with s3_server() as (endpoint, client):
        for number in range(arguments.shards):
            sink = io.BytesIO()
            pq.write_table(pa.table({"text": [f"text {number} {row}" for row in range(20)], "id": range(20)}), sink)
            client.put_object(Bucket=BUCKET, Key=f"in/part-{number:05d}.parquet", Body=sink.getvalue())
        for number in range(arguments.rounds):
            order = list(checkouts) if number % 2 else list(checkouts)[::-1]
            for name in order:
                seconds[name].append(measured(checkouts[name], endpoint, 20 * arguments.shards))
                print(f"round {number} {name}: " + "  ".join(f"{value:.2f}" for value in seconds[name][-1]), flush=True)
    for index, step in enumerate(STEPS):
        medians = {name: statistics.median(values[index] for values in runs) for name, runs in seconds.items()}
        line = "  ".join(f"{name} {median:.2f} s" for name, median in medians.items())
        if "old" in medians:
            ratios = [new[index] / old[index] for new, old in zip(seconds["new"], seconds["old"], strict=True)]
            line += f"  ratio {statistics.median(ratios):.2f}"
        print(f"{step}: {line}")


if __name__ == "__main__":
    main()
