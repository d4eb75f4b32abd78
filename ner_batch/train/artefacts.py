"""What a finished training leaves: the adapter directory with its manifest, card and curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from ner_batch import adapter as adapters
from ner_batch.adapter import AdapterManifest
from ner_batch.io import storage
from ner_batch.io.examples import examples_digest
from ner_batch.jobs import record
from ner_batch.jobs.plots import canvas, png
from ner_batch.train.loop import Metrics, TrainingState
from ner_batch.train.model import lora_config
from ner_batch.train.plan import Plan
from ner_batch.train.serving import Agreement

CURVE, CARD = "curve.png", "README.md"


def write(folder: Path, plan: Plan, state: TrainingState, weights: Mapping[str, Tensor]) -> None:
    """Write PEFT's files, ``ner_batch.json``, a model card and the curve into a local folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = lora_config(plan.config.lora)
    config.base_model_name_or_path, config.revision = plan.config.base.model, plan.config.base.revision
    config.inference_mode = True
    config.target_modules = sorted(plan.config.lora.targets)  # PEFT makes a set of them: another order in every run
    config.save_pretrained(str(folder))
    save_file(dict(weights), folder / adapters.WEIGHTS)
    adapters.save_manifest(folder, _manifest(plan, state))
    if template := plan.config.base.chat_template:
        (folder / adapters.CHAT_TEMPLATE).write_text(template, encoding="utf-8")
    (folder / CURVE).write_bytes(_curve(state.history))
    (folder / CARD).write_text(_card(plan, state), encoding="utf-8")


def add_calibration(folder: Path, agreement: Agreement) -> None:
    """Add to the manifest what was fitted to the served adapter's answers."""
    before = adapters.load(folder).manifest
    assert before
    fitted = {"calibration": agreement.calibration, "verification": agreement.verification}
    adapters.save_manifest(folder, before.model_copy(update=fitted))


def publish(folder: Path, output: str) -> None:
    """Copy the adapter to its place; ``ner_batch.json`` last, for it says that the rest is there."""
    with storage.explained(output):
        for path in sorted(folder.iterdir(), key=lambda path: path.name == adapters.MANIFEST):
            storage.write_bytes(storage.join(output, path.name), path.read_bytes())


def _manifest(plan: Plan, state: TrainingState) -> AdapterManifest:
    config = plan.config
    shares = config.demonstrations.shares
    return AdapterManifest(
        name=Path(config.output).name,
        format=config.format,
        task=plan.task,
        prompt_fingerprint=plan.builder().fingerprint(),
        base_model=config.base.model,
        base_revision=config.base.revision,
        base_fingerprint=plan.base_fingerprint,
        retrieval=(("none",) if 0 in shares else ()) + config.demonstrations.kind,
        k=max(shares),
        training_data=examples_digest(plan.train.examples),
        scores={"dev span F1": round(state.best_f1, 4)},
        versions=record.versions("ner-batch", "torch", "transformers", "peft", "ray"),
    )


def _curve(history: Sequence[Metrics]) -> bytes:
    """Loss and dev F1 over the steps, as a PNG."""
    figure, left = canvas(8, 4.5)
    loss = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    f1 = [(entry["step"], entry["f1"]) for entry in history if "f1" in entry]
    left.plot(*zip(*loss, strict=True), ".-", color="tab:blue", label="training loss per answer token")
    left.set(xlabel="optimiser step", ylabel="loss", ylim=(0, None))
    right = left.twinx()
    right.plot(*zip(*f1, strict=True), "o-", color="tab:orange", label="dev span F1")
    right.set(ylabel="F1", ylim=(0, 1))
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return png(figure)


def _card(plan: Plan, state: TrainingState) -> str:
    config, task = plan.config, plan.task
    lines = "\n".join(f"- `{name}`: {task.definition(name)}" for name in task.names)
    report = "\n".join(f"- {line}" for line in plan.report)
    best = f"{state.best_f1:.3f} at step {state.best_step:,}"
    return f"""---
base_model: {config.base.model}
library_name: peft
tags: [named-entity-recognition, lora, ner_batch]
---

# {Path(config.output).name}

A LoRA adapter (rank {config.lora.r}, alpha {config.lora.alpha}) that answers in the `{config.format}`
format of ner_batch.
`ner_batch.json` beside it holds the prompt it was trained with; `ner-batch extract` reads it from there.

## Labels ({task.name}, {task.language})

{lines}

## Training

{report}
- learning rate {config.optimiser.learning_rate:g}, seed {config.run.seed}
- {state.step:,} steps done, {state.tokens:,} tokens
- strict span F1 on dev ({len(plan.dev.examples):,} windows, generated greedily): {best}

![training loss and dev F1]({CURVE})

## Limits

It reads texts like those it was trained on. The dev score chose the checkpoint, so it flatters; measure on a test set.
"""
