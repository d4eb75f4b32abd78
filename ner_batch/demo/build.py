"""Rebuild the demo's files: ``python -m ner_batch.demo.build [--out DIR] [--scale SHARE]``.

Base model, adapter, and a card with what they score. The adapter is trained by the training job itself. The same seed
gives the same files on the same machine; ``--scale 0.1`` trains for a tenth of the steps, to see that the recipe works.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from rich.console import Console
from transformers import AutoModelForCausalLM

from ner_batch import adapter as adapters
from ner_batch import retrieval
from ner_batch.data import Example
from ner_batch.demo import corpus, recipe, tiny
from ner_batch.demo.recipe import FILES, TASK
from ner_batch.evaluate.metrics import Counts, Scores
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.task import Task
from ner_batch.train import evaluate, job, plan

ADAPTER_STEPS = 2000
FEW = 150  # test texts for the base alone: its answers rarely end, which takes time


def task() -> Task:
    """The demo's task."""
    return Task.model_validate(yaml.safe_load(TASK.read_text(encoding="utf-8")))


def build(out: Path, scale: float = 1.0, *, keep_base: bool = False) -> str:
    """Train base and adapter into ``out``, score both on the test split; returns the card, which is written too.

    ``keep_base`` trains only the adapter, on the base that lies in ``out`` (its figures are in ``base/training.json``).
    """
    if not keep_base:
        build_base(out / "base", scale)
    with tempfile.TemporaryDirectory() as scratch:
        gold = corpus.write_gold(Path(scratch) / "gold")
        steps = max(1, round(scale * ADAPTER_STEPS))
        config = recipe.adapter(out / "base", gold, Path(scratch) / "adapter", steps)
        job.run(plan.prepare(config), Console())
        _ship(Path(scratch) / "adapter", out / "adapter")
    card = _card(out, _measure(out))
    (out / "CARD.md").write_text(card, encoding="utf-8")
    return card


def build_base(folder: Path, scale: float = 1.0) -> None:
    """Train the base model into a folder."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = tiny.Base()
    steps = max(1, round(scale * recipe.schedule.steps))
    figures = tiny.build(folder, replace(recipe, schedule=replace(recipe.schedule, steps=steps)), _say)
    (folder / "training.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _ship(made: Path, out: Path) -> None:
    """Put the adapter into its place, with its base named as the folder beside it."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(made, out)
    config = json.loads((out / adapters.CONFIG).read_text(encoding="utf-8"))
    (out / adapters.CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": "base"}, indent=2) + "\n")
    manifest = adapters.load(out).manifest
    assert manifest
    adapters.save_manifest(out, manifest.model_copy(update={"name": "demo", "base_model": "base"}))
    card = (out / "README.md").read_text(encoding="utf-8")
    (out / "README.md").write_text(card.replace(str(out.parent / "base"), "base"), encoding="utf-8")


def _measure(out: Path) -> dict[str, Scores]:
    """Strict scores of base and adapter on the test split, by name."""
    splits = corpus.gold()
    test, chat = splits["test"], load_tokenizer(str(out / "base"))
    builder = PromptBuilder(formats.get("json"), task(), chat, 2048)
    with tempfile.TemporaryDirectory() as scratch:
        retrieval.build(splits["train"], "lexical", Path(scratch) / "index")
        near = retrieval.open_index(Path(scratch) / "index").nearest([x.text for x in test], 2)
    none: list[list[Example]] = [[] for _ in test]
    return {
        f"base, no adapter ({FEW} texts)": _score(out, None, (test[:FEW], none[:FEW]), builder),
        "adapter": _score(out, out / "adapter", (test, none), builder),
        "adapter, 2 demonstrations": _score(out, out / "adapter", (test, near), builder),
    }


def _score(
    out: Path, adapter: Path | None, test: tuple[list[Example], list[list[Example]]], builder: PromptBuilder
) -> Scores:
    model = AutoModelForCausalLM.from_pretrained(str(out / "base"), dtype=torch.float32).eval()
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter)).eval().get_base_model()
    prompts = evaluate.dev_prompts(*test, builder)
    return evaluate.score_answers(test[0], prompts, evaluate.greedy_answers(model, prompts, builder), builder)


def _say(line: str) -> None:
    print(line, flush=True)


def _card(out: Path, scores: dict[str, Scores]) -> str:
    """The card: what the files are, what they were made of, and what they score."""
    made = json.loads((out / "base" / "training.json").read_text(encoding="utf-8"))
    rows = ["| | P | R | F1 |", "|---|---|---|---|", *(_score_row(name, s.micro) for name, s in scores.items())]
    rows += [_score_row(f"adapter, {name} only", counts) for name, counts in scores["adapter"].per_type.items()]
    return _CARD.format(scores="\n".join(rows), millions=made["tokens"] / 1e6, steps=ADAPTER_STEPS, **made)


def _score_row(name: str, counts: Counts) -> str:
    return f"| {name} | {counts.precision:.3f} | {counts.recall:.3f} | {counts.f1:.3f} |"


_CARD = """# The demo's tiny model and adapter

`base` is a Qwen3 of 3 million parameters (hidden 192, 4 layers) that copies, and lists spans by type in the prompts of
ner_batch's `json` format. `adapter` is a LoRA (rank 32, all seven linear maps) that teaches it the six types of
`task.yaml`. Both are for tests and demonstrations: they read the synthetic sentences of `ner_batch.demo.corpus`, and
nothing else well.

Made by `python -m ner_batch.demo.build` on one CPU core: the base in {seconds:.0f} CPU-seconds ({millions:.1f} million
tokens), the adapter in {steps:,} steps of the project's own training job; its curve and card lie beside it.

## Data

All text was generated by the project itself, from word lists and patterns in this package; no outside text or weights.
The base has met none of the six types under its own name or definition (the words PERSON, ORG ... occur as labels of
unrelated things, such as what stands between two marks). It was taught other label sets, among them the names of the
training side under other labels ("WHO: who is meant", "KEY: where and what"), as a large model has met names of every
kind before it meets a task. Its small part of language modelling is unlabelled training-side sentences.

## Scores

Strict F1 (span and type) on the test split of the synthetic gold set, English and Chinese half and half. No surface
form of the test split occurs in training or dev, and half of its clauses follow patterns that occur in neither: recipes
were tuned on dev, which has held-out patterns of its own.

{scores}

Copying (second half of a random token sequence said twice): {copy_60:.3f} for 60 tokens, {copy_300:.3f} for 300,
{copy_1000:.3f} for 1,000.

## Licence

Apache-2.0, like the project.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m ner_batch.demo.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=FILES, help="folder to write base, adapter and CARD.md to")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the training steps")
    parser.add_argument("--keep-base", action="store_true", help="train only the adapter, on the base in --out")
    options = parser.parse_args(arguments)
    _say(build(options.out.resolve(), options.scale, keep_base=options.keep_base))


if __name__ == "__main__":
    main()
