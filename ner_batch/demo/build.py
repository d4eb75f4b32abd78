"""Rebuild the demo's files: ``python -m ner_batch.demo.build --data DIR [--out DIR] [--epochs N]``.

DIR has NCBI-disease as ``train.parquet``, ``dev.parquet`` and ``test.parquet`` (id, text, entities), its tokens joined
by single spaces. Written are the same sentences in natural spacing, and an adapter for SmolLM2-135M-Instruct that the
project's own training job has trained on them: by its speed some twenty minutes on an H100, six hours on two CPU cores
with AMX.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console

from ner_batch import adapter as adapters
from ner_batch.data import Example
from ner_batch.demo import models, recipe
from ner_batch.io.examples import examples_table, read_examples
from ner_batch.train import job, plan

SPLITS = ("train", "dev", "test")
# Spaces that a writer would not have put: before punctuation, behind opening brackets, around hyphens and slashes.
_SPACE_OF_TOKENS = re.compile(r" (?=[,.;:?!)\]}%])|(?<=[(\[{]) |(?<=[-/']) | (?=[-/'])")


def natural(example: Example) -> Example:
    """The example without the spaces that only separate tokens; its entities move along."""
    spaces = [match.start() for match in _SPACE_OF_TOKENS.finditer(example.text)]
    text = _SPACE_OF_TOKENS.sub("", example.text)
    moved = []
    for entity in example.entities:
        start, end = (place - bisect_left(spaces, place) for place in (entity.start, entity.end))
        moved.append(replace(entity, start=start, end=end, text=text[start:end]))
    return replace(example, text=text, entities=tuple(moved))


def write_gold(data: Path, out: Path) -> None:
    """The splits in natural spacing."""
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        examples = [natural(example) for example in read_examples(str(data / f"{split}.parquet"))]
        table = examples_table(examples)
        pq.write_table(table, out / f"{split}.parquet", compression="zstd", compression_level=19)


def train(gold: Path, out: Path, epochs: float, console: Console) -> None:
    """Train an adapter from nothing on all of the gold, and put it at ``out``, in bfloat16."""
    with tempfile.TemporaryDirectory() as scratch:
        config = recipe.training(
            models.language_model(),
            models.encoder(),
            gold,
            Path(scratch) / "adapter",
            lora={"r": 8, "alpha": 16, "dropout": 0.05},
            optimiser={"learning_rate": 1e-3, "epochs": epochs, "batch_tokens": 4096},
            packing={"kind": "shared", "tokens": 2048},
            evaluation={"examples": 923},
            run={"name": "demo-adapter", "storage": f"{scratch}/runs"},
            serving={"prompts": 0},
        )
        work = plan.prepare(config)
        for line in work.report:
            console.print(line, highlight=False, soft_wrap=True)
        job.run(work, console)
        ship(Path(scratch) / "adapter", out)


def ship(trained: Path, out: Path) -> None:
    """Put an adapter into its place: half as large, its base named as on the hub."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(trained, out)
    weights = load_file(trained / adapters.WEIGHTS)
    save_file({name: weight.to(torch.bfloat16) for name, weight in weights.items()}, out / adapters.WEIGHTS)
    base = f"HuggingFaceTB/{models.LANGUAGE_MODEL}"
    manifest = adapters.load(out).manifest
    assert manifest
    card = (out / "README.md").read_text(encoding="utf-8")
    (out / "README.md").write_text(card.replace(manifest.base_model, base), encoding="utf-8")
    config = json.loads((out / adapters.CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    (out / adapters.CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    adapters.save_manifest(out, manifest.model_copy(update={"name": "diseases", "base_model": base}))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m ner_batch.demo.build", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of NCBI-disease")
    parser.add_argument("--out", type=Path, default=recipe.FILES, help="folder to write gold and adapter to")
    parser.add_argument("--epochs", type=float, default=6.0, help="times that the gold is read; 0: write gold alone")
    options = parser.parse_args(arguments)
    write_gold(options.data, options.out / "gold")
    if options.epochs:
        train(options.out / "gold", options.out / "adapter", options.epochs, Console())


if __name__ == "__main__":
    main()
