"""Does choosing texts to annotate pay? The review loop of docs/exchange.md with corrections out of gold, against a random draw.

    python tests/benchmarks/bench_review.py MODEL OUT [--seeds 0 1 2]

For each seed: an adapter from some sentences of NCBI-disease; it reads others; of those as many are chosen by uncertainty, and
as many at random; both go through Prodigy's file and come back with gold's entities in the place of a person's; an adapter on
the first sentences and these each, with the same steps; all three on the same test sentences. A step that has its output is not
done again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent.parent
FILES = ROOT / "ner_batch" / "demo" / "files"
FIRST, POOL, CHOSEN, TEST = 64, 300, 64, 150
TRAINING = {
    "base": {"max_model_len": 512},
    "lora": {"r": 8, "alpha": 16},
    "optimiser": {"learning_rate": 1.0e-3, "steps": 60, "batch_tokens": 1024},
    "packing": {"kind": "shared", "tokens": 1024},
    "evaluation": {"every": 60, "examples": 4},
    "run": {"report_to": "none", "checkpoint_every": 60},
    "serving": {"prompts": 0},
}
ENGINE = {"max_model_len": 2048, "max_num_seqs": 32, "cpu_kv_cache_gib": 1, "enforce_eager": True}


def command(*arguments: str | Path) -> str:
    """A command as a person types it; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "ner_batch", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}"
    return done.stdout


def train(gold: Path, out: Path, model: str, seed: int) -> None:
    """An adapter from a folder of gold."""
    if (out / "ner_batch.json").exists():
        return
    config = out.with_suffix(".train.yaml")
    values = TRAINING | {
        "base": TRAINING["base"] | {"model": model},
        "task": str(FILES / "task.yaml"),
        "gold": {"train": str(gold), "dev": str(FILES / "gold" / "dev.parquet")},
        "output": str(out),
        "run": TRAINING["run"] | {"name": out.name, "storage": str(out.parent / "runs"), "seed": seed},
    }
    config.write_text(json.dumps(values))
    command("train", config)


def extract(rows: Path, out: Path, model: str, adapter: Path, *, score: bool = False) -> None:
    """What an adapter reads in a file of gold, whose entities come along as `gold`."""
    config = out.with_suffix(".extract.yaml")
    values = {
        "input": {"path": str(rows), "rename": {"entities": "gold"}},
        "output": {"path": str(out)},
        "engine": ENGINE | {"model": model},
        "adapter": str(adapter),
        "score": score,
    }
    config.write_text(json.dumps(values))
    command("extract", config)


def strict_f1(entities: Path) -> float:
    """Strict F1 of span and type, pooled over the rows."""
    table = pq.ParquetDataset(entities).read(columns=["gold", "entities"]).to_pylist()
    spans = [[{(e["start"], e["end"], e["type"]) for e in row[name]} for name in ("gold", "entities")] for row in table]
    correct = sum(len(gold & predicted) for gold, predicted in spans)
    return 2 * correct / max(1, sum(len(gold) + len(predicted) for gold, predicted in spans))


def review(chosen: Path, gold_by_text: dict[str, list], reviewed: Path) -> None:
    """What a person would save in Prodigy who corrects every text to what gold says."""
    lines = []
    for line in chosen.read_text().splitlines():
        row = json.loads(line)
        spans = [{"start": e["start"], "end": e["end"], "label": e["type"]} for e in gold_by_text[row["text"]]]
        lines.append(json.dumps(row | {"spans": spans, "tokens": None, "answer": "accept"}))
    reviewed.write_text("".join(f"{line}\n" for line in lines))


def main() -> None:
    """Go through the loop for every seed; print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    train_set, test = pq.read_table(FILES / "gold" / "train.parquet"), pq.read_table(FILES / "gold" / "test.parquet")
    print("| seed | first sentences | + uncertain | + random | entities of the first, uncertain, random |")
    print("|---|---:|---:|---:|---|", flush=True)
    for seed in arguments.seeds:
        folder = arguments.out / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        start = seed * (FIRST + POOL)
        first, pool = train_set.slice(start, FIRST), train_set.slice(start + FIRST, POOL)
        (folder / "first").mkdir(exist_ok=True)
        pq.write_table(first, folder / "first" / "gold.parquet")
        pq.write_table(pool, folder / "pool.parquet")
        pq.write_table(test.slice(0, TEST), folder / "test.parquet")
        gold_by_text = dict(zip(pool["text"].to_pylist(), pool["entities"].to_pylist(), strict=True))
        train(folder / "first", folder / "adapter-first", arguments.model, seed)
        extract(folder / "pool.parquet", folder / "entities", arguments.model, folder / "adapter-first", score=True)
        scores, counts = [], [sum(map(len, first["entities"].to_pylist()))]
        for by in ("first", "uncertain", "random"):
            if by != "first":
                chosen, reviewed = folder / f"{by}.jsonl", folder / f"{by}-reviewed.jsonl"
                gold = folder / by
                if not gold.exists():
                    choice = [
                        "--select",
                        by,
                        "--count",
                        str(CHOSEN),
                        *(["--seed", str(seed)] if by == "random" else []),
                    ]
                    command("export", "prodigy", folder / "entities", chosen, *choice)
                    review(chosen, gold_by_text, reviewed)
                    gold.mkdir()
                    pq.write_table(first, gold / "first.parquet")
                    command("import", "prodigy", reviewed, gold / "reviewed.parquet")
                added = pq.read_table(gold / "reviewed.parquet")
                counts.append(sum(map(len, added["entities"].to_pylist())))
                train(gold, folder / f"adapter-{by}", arguments.model, seed)
            extract(folder / "test.parquet", folder / f"test-{by}", arguments.model, folder / f"adapter-{by}")
            scores.append(strict_f1(folder / f"test-{by}"))
        row = " | ".join(f"{score:.3f}" for score in scores)
        print(f"| {seed} | {row} | {', '.join(map(str, counts))} |", flush=True)


if __name__ == "__main__":
    main()
