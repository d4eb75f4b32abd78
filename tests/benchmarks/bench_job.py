"""The whole extraction job of two checkouts, in turns: rows/s while it reads, and the ratio round by round.

    python tests/benchmarks/bench_job.py --before CHECKOUT [--rounds 10] [--rows 2000] [--unit-rows 50] [--replicas 1]
        [--k 0] [--gpu]

CHECKOUT is another working tree of this repository (`git worktree add CHECKOUT REVISION`). Both read the same Resume
sentences (NER_BATCH_DATA) with the demo's model and adapter. The rate leaves out the starts of Ray and engines; the
seconds of the whole command are printed beside it. With --gpu the replicas share one GPU and compute in bfloat16.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).parents[2]
UNITS_IN_FLIGHT = 4  # the default of both
CLI = "from ner_batch.cli import main; main()"


def run(checkout: Path, *arguments: str) -> float:
    """A verb of a checkout's command line; its seconds."""
    env = os.environ | {
        "PYTHONPATH": f"{checkout}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    clock = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CLI, *arguments], env=env, capture_output=True, text=True, check=False, cwd=checkout
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {done.stdout}{done.stderr}")
    return time.monotonic() - clock


def rate(out: Path, in_flight: int) -> float:
    """Rows per second from when as many units have finished as are in flight at once, to the last.

    Until then all that is in flight is read together, and when the first of it ends says nothing of speed.
    """
    moments = sorted((path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in out.glob("*.parquet"))
    return sum(rows for _, rows in moments[in_flight:]) / (moments[-1][0] - moments[in_flight - 1][0])


def config(checkout: Path, folder: Path, args: argparse.Namespace) -> Path:
    """The job of a checkout: its own model, adapter and index, the same rows."""
    files = checkout / "tests" / "data" / "tiny"
    if not files.is_dir():  # a checkout from before the demo had a real model
        files = checkout / "ner_batch" / "demo" / "files"
    if args.gpu:
        device: dict[str, Any] = {"dtype": "bfloat16", "gpu_memory_utilization": 0.8 / args.replicas}
        share = {"num_gpus": 1 / args.replicas}
    else:
        device = {"dtype": "float32", "cpu_kv_cache_gib": 1}
        share = {"num_cpus": 1 if args.replicas < 2 else 0.5}
    values = {
        "input": {"path": str(folder / "corpus.parquet")},
        "output": {"path": "set in every round"},
        "engine": {
            "model": str(files / "base"),
            "max_model_len": 2048,
            "max_num_seqs": 64,
            "enforce_eager": True,
            **device,
        },
        "adapter": str(files / "adapter"),
        "decoding": "free",
        "windows": {"max_tokens": 128},
        "job": {"unit_rows": args.unit_rows, "replicas": args.replicas, **share},
    }
    if args.k:
        index = folder / f"index-{checkout.name}"
        index_values = {"examples": str(args.data / "resume" / "train.parquet"), "out": str(index), "kind": "lexical"}
        (folder / "index.yaml").write_text(yaml.safe_dump(index_values))
        run(checkout, "index", str(folder / "index.yaml"))
        values["retrieval"] = {"index": str(index), "k": args.k}
    path = folder / f"{checkout.name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def main() -> None:
    """Run the rounds and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--k", type=int, default=0)
    parser.add_argument("--unit-rows", type=int, default=50)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--data", type=Path, default=os.environ.get("NER_BATCH_DATA"))
    args = parser.parse_args()
    checkouts = {"before": args.before.resolve(), "after": ROOT}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table = pq.read_table(args.data / "resume" / "train.parquet", columns=["id", "text"])
        pq.write_table(table.slice(0, args.rows), folder / "corpus.parquet")
        configs = {name: config(checkout, folder, args) for name, checkout in checkouts.items()}
        rates: dict[str, list[float]] = {name: [] for name in checkouts}
        seconds: dict[str, list[float]] = {name: [] for name in checkouts}
        for number in range(args.rounds):
            for name in sorted(checkouts, reverse=number % 2 == 0):
                out = folder / f"out-{name}-{number}"
                seconds[name].append(run(checkouts[name], "extract", str(configs[name]), f"output.path={out}"))
                rates[name].append(rate(out, args.replicas * UNITS_IN_FLIGHT))
            ratio = rates["after"][-1] / rates["before"][-1]
            print(
                f"round {number + 1}: {rates['before'][-1]:.1f} {rates['after'][-1]:.1f} rows/s, {ratio:.3f}",
                flush=True,
            )
    ratios = [after / before for before, after in zip(rates["before"], rates["after"], strict=True)]
    whole = [before / after for before, after in zip(seconds["before"], seconds["after"], strict=True)]
    for name in checkouts:
        print(
            f"{name:7} median {statistics.median(rates[name]):7.1f} rows/s, {statistics.median(seconds[name]):6.1f} s in all"
        )
    print(f"after / before: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) of rows/s;")
    print(f"whole command: median {statistics.median(whole):.3f} ({min(whole):.3f} to {max(whole):.3f})")


if __name__ == "__main__":
    main()
