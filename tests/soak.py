"""The extraction job through a bad night: any of its processes is killed every so often, and started again when it ends.

    python tests/soak.py [--rows 200000] [--every 30] [--delay 0.08] [--seed 0] [--folder FOLDER]

A corpus of short rows in uneven shards, the scripted job (scripted.py) on two replicas. First undisturbed, then with kill -9
of a process chosen at random every ``--every`` seconds: the driver, a replica, a worker that reads or writes, the tracker,
or one of Ray's own (raylet, gcs_server). A driver that has ended is started again, as a person or a supervisor would. In
the end every file must have the same bytes as the undisturbed run's. Prints a table for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from faults import ScriptedJob, count_rows, table
from processes import in_session, kill_session
from random_model import save_random_model

KINDS = {
    "driver": r"import scripted",
    "replica": "ray::.*Replica",
    "read or write worker": r"ray::(IDLE|ReadShardUnits|Write)",
    "tracker": "ray::MeteredTracker",
    "raylet": "raylet/raylet",
    "gcs_server": "gcs/gcs_server",
}
STUCK_SECONDS = 300.0
"""A run that writes nothing for so long is taken for hung, which is a failure of the soak."""


def corpus(job: ScriptedJob, rows: int) -> None:
    """Replace the job's corpus by shards of very different sizes, an empty one and one of a single row among them."""
    for path in job.corpus.rglob("*.parquet"):
        path.unlink()
    sizes, size = [0, 1], 7
    while sum(sizes) < rows:
        size = min(size * 3, 20_000, rows - sum(sizes))
        sizes.append(size)
    for number, rows_of_shard in enumerate(sizes):
        name = f"shard-{number:03}"
        pq.write_table(table(name, rows_of_shard), job.corpus / f"{name}.parquet", row_group_size=3000)


def victim(process: subprocess.Popen[str], rng: random.Random) -> tuple[str, int] | None:
    """A process of the session, its kind chosen first, so that Ray's many workers do not draw all the fire."""
    kinds = list(KINDS)
    rng.shuffle(kinds)
    for kind in kinds:
        if pids := in_session(process.pid, KINDS[kind]):
            return kind, rng.choice(pids)
    return None


def disturbed(job: ScriptedJob, arguments: list[str], every: float, rng: random.Random, delay: float) -> Counter[str]:
    """Run the job to its end under fire; how often each kind of process was killed, and the driver started."""
    kills: Counter[str] = Counter()
    while True:
        process = job.start(*arguments, delay=delay)
        kills["starts"] += 1
        files, changed = len(job.files()), time.monotonic()
        next_kill = time.monotonic() + every * rng.uniform(0.5, 1.5)
        while process.poll() is None:
            time.sleep(0.5)
            if (count := len(job.files())) != files:
                files, changed = count, time.monotonic()
            if time.monotonic() - changed > STUCK_SECONDS:
                kill_session(process)
                raise AssertionError(f"nothing was written for {STUCK_SECONDS:.0f} s after {dict(kills)}")
            if time.monotonic() >= next_kill and (target := victim(process, rng)):
                kind, pid = target
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                kills[kind] += 1
                print(f"{files} files; killed {kind} {pid}", flush=True)
                next_kill = time.monotonic() + every * rng.uniform(0.5, 1.5)
        output = process.communicate()[0]
        kill_session(process)
        print(f"the driver ended with {process.returncode}: {output.strip().splitlines()[-1:]}", flush=True)
        if process.returncode == 0:
            return kills
        assert process.returncode in (1, -signal.SIGKILL), output


def main() -> None:
    """Both runs, the comparison, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--every", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.08, help="seconds an answer takes; many are given at once")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        (folder / "model").mkdir(parents=True)
        save_random_model(folder / "model")
        job = ScriptedJob(folder / "job", str(folder / "model"))
        corpus(job, args.rows)
        arguments = ["job.replicas=2", "job.unit_rows=500", "job.num_cpus=0.5", "job.max_engine_deaths=1000"]
        clock = time.monotonic()
        calm = job.start(*arguments, f"output.path={folder / 'calm'}", delay=args.delay)
        output = calm.communicate()[0]
        assert calm.returncode == 0, output
        calm_seconds = time.monotonic() - clock
        for log in job.log.iterdir():
            log.unlink()
        clock = time.monotonic()
        kills = disturbed(job, arguments, args.every, random.Random(args.seed), args.delay)
        seconds = time.monotonic() - clock
        names = {path.name for path in (folder / "calm").glob("*.parquet")}
        assert names == set(job.files())
        differing = [n for n in names if (folder / "calm" / n).read_bytes() != (job.out / n).read_bytes()]
        counts = count_rows(job)
        statuses = yaml.safe_load((job.out / "_manifest.json").read_text())["statuses"]
        print(
            f"\nkilled: {', '.join(f'{count} x {kind}' for kind, count in sorted(kills.items()) if kind != 'starts')}"
        )
        print("| " + " | ".join([*counts, "files", "with other bytes", "starts", "seconds", "undisturbed"]) + " |")
        print("|" + "---:|" * (len(counts) + 5))
        cells = [*counts.values(), len(names), len(differing), kills["starts"], round(seconds), round(calm_seconds)]
        print("| " + " | ".join(f"{cell:,}" for cell in cells) + " |")
        print(f"statuses: {statuses}")
        assert not differing, differing[:3]


if __name__ == "__main__":
    main()
