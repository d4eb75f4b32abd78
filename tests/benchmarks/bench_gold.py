"""A public gold set end to end: an adapter for the tiny base, then base and adapter on the whole test split.

    python tests/benchmarks/bench_gold.py resume|weibo|msra [--out FOLDER] [a.b=value ...]

Trains as tests/benchmarks/gold/train.yaml says (overrides go to `ner-batch train`), reads the test split with
`ner-batch extract`, once with the adapter and once with the bare base, and prints strict scores, statuses and seconds.
The sets are looked for in NER_BATCH_DATA. A training that is there already is not repeated.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.dataset as pads

from ner_batch.data import Entity
from ner_batch.evaluate.metrics import Counts, score

HERE = Path(__file__).parent
DATA = Path(os.environ.get("NER_BATCH_DATA", HERE.parents[2] / "shared" / "data"))
STEPS = {"resume": 6000, "weibo": 2000, "msra": 6000}


def call(verb: str, *arguments: str) -> float:
    """Run a command of ours; seconds."""
    begun = time.monotonic()
    command = str(Path(sys.executable).with_name("ner-batch"))
    subprocess.run([command, verb, *arguments], check=True, env={"OMP_NUM_THREADS": "1"} | os.environ)
    return time.monotonic() - begun


def train(name: str, out: Path, overrides: list[str]) -> float:
    """Train the adapter; seconds."""
    gold = DATA / name
    dev = [f"gold.dev={gold}/dev.parquet"] if (gold / "dev.parquet").exists() else ["gold.dev_share=0.01"]
    places = [f"task={HERE}/gold/{name}.yaml", f"gold.train={gold}/train.parquet", f"output={out}/adapter", *dev]
    run = [f"run.name={name}", f"run.storage={out}/runs", f"optimiser.steps={STEPS[name]}"]
    return call("train", str(HERE / "gold" / "train.yaml"), *places, *run, *overrides)


def extract(name: str, out: Path, reader: str) -> tuple[float, list[dict]]:
    """The rows of the test split as the adapter or the base reads them, and the seconds it took."""
    which = {"adapter": f"adapter={out}/adapter", "base": f"task={HERE}/gold/{name}.yaml"}[reader]
    text = [f"input.path={DATA}/{name}/test.parquet", f"output.path={out}/{reader}-test"]
    seconds = call("extract", str(HERE / "gold" / "extract.yaml"), *text, which)
    return seconds, pads.dataset(out / f"{reader}-test", format="parquet").to_table().to_pylist()


def scores(rows: list[dict]) -> Counts:
    """Strict scores of the rows' entities against their gold."""
    keys = ("start", "end", "type", "text")
    read = [[[Entity(*(e[k] for k in keys)) for e in row[c]] for row in rows] for c in ("gold_entities", "entities")]
    return score(*read).micro


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=STEPS)
    parser.add_argument("--out", type=Path, default=Path("gold-output"))
    options, overrides = parser.parse_known_args()
    out = options.out.resolve() / options.name
    trained = out / "adapter" / "ner_batch.json"
    told = [f"training {train(options.name, out, overrides):,.0f} s"] if not trained.exists() else []
    for reader in ("adapter", "base"):
        seconds, rows = extract(options.name, out, reader)
        micro = scores(rows)
        real = all(r["text"][e["start"] : e["end"]] == e["text"] for r in rows for e in r["entities"])
        told.append(
            f"{reader}: P {micro.precision:.3f} R {micro.recall:.3f} F1 {micro.f1:.3f}; {len(rows):,} rows "
            f"{dict(Counter(r['status'] for r in rows))} in {seconds:,.0f} s; "
            f"{sum(len(r['ungrounded']) for r in rows):,} ungrounded; spans {'all real' if real else 'WRONG'}"
        )
    print("\n".join(told))


if __name__ == "__main__":
    main()
