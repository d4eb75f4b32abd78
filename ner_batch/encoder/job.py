"""Unsupervised SimCSE on sentence-transformers' trainer, and the finished folder written whole or not at all.

A sentence is encoded twice, with dropout as the only difference; all others of its batch are negatives (Gao et al.,
2021). On a CPU a run that was stopped and goes on gives the same bytes as one that was not.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from rich.markup import escape
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState

from ner_batch.encoder import model
from ner_batch.encoder.plan import MANIFEST, MARK, Plan, training_settings
from ner_batch.encoder.settings import OptimiserConfig
from ner_batch.errors import JobError
from ner_batch.io import storage
from ner_batch.jobs.progress import PLAIN_SECONDS, ProgressLine, duration
from ner_batch.jobs.record import versions


def run(plan: Plan, console: Console, callbacks: Sequence[TrainerCallback] = (), every: float = PLAIN_SECONDS) -> int:
    """Train, score and write; 0. ``every`` is the number of seconds between two lines of a log.

    A JobError where a gradient is no number any more, or the GPU's memory does not do.
    """
    seed = plan.config.run.seed
    scores: dict[str, dict[str, float]] = {}
    with ProgressLine(console, every) as progress:
        progress.show("scoring the base")
        if len(plan.held_out) > 1:
            scores["before"] = model.scores(plan.model, plan.held_out, seed)
        _train(plan, [*callbacks, _Steps(plan, progress)])
        progress.show("scoring the encoder")
        if scores:
            scores["after"] = model.scores(plan.model, plan.held_out, seed)
        _publish(plan, scores)
    for name, after in scores.get("after", {}).items():
        console.print(f"{name:12} {scores['before'][name]:.4f} before, {after:.4f} after", highlight=False)
    console.print(f"encoder: {escape(plan.config.output)}", highlight=False, soft_wrap=True)
    return 0


def _train(plan: Plan, callbacks: Sequence[TrainerCallback]) -> None:
    """Train the encoder in place, from the newest checkpoint if there is one."""
    optimiser, device, checkpoint = plan.config.optimiser, plan.model.device, plan.newest_checkpoint()
    arguments = _Arguments(
        output_dir=str(plan.checkpoints),
        torch_device=str(device),
        use_cpu=device.type == "cpu",
        bf16=plan.bf16,
        seed=plan.config.run.seed % 2**32,  # numpy's limit
        max_steps=plan.steps,
        per_device_train_batch_size=optimiser.batch,
        dataloader_drop_last=True,
        dataloader_pin_memory=device.type == "cuda",
        optim="adamw_torch",
        learning_rate=optimiser.learning_rate,
        weight_decay=optimiser.weight_decay,
        max_grad_norm=optimiser.clip,
        lr_scheduler_type="linear",
        warmup_steps=round(optimiser.warmup * plan.steps),
        save_strategy="no",  # a checkpoint's own `save_steps` would win over the config's: _Steps says when
        logging_steps=1,
        logging_nan_inf_filter=False,
        log_level="error",
        disable_tqdm=True,
        report_to="none",
    )
    pairs = Dataset.from_dict({"anchor": plan.sentences, "positive": plan.sentences})
    loss = contrastive_loss(plan.model, optimiser)
    trainer = _Trainer(plan.model, arguments, pairs, loss=loss, callbacks=[*callbacks])
    trainer.remove_callback(PrinterCallback)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # the trainer's constructor sets the first
    try:
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    except torch.OutOfMemoryError:
        remedy = "lower optimiser.mini_batch" if optimiser.mini_batch else "set optimiser.mini_batch=16"
        raise JobError(f"out of memory on the GPU: {remedy}") from None
    trainer.accelerator.unwrap_model(plan.model, keep_fp32_wrapper=False)  # no autocast from here on
    plan.model.eval()


def contrastive_loss(encoder: SentenceTransformer, optimiser: OptimiserConfig) -> torch.nn.Module:
    """InfoNCE over cosines; in mini-batches by GradCache (Luyu Gao et al., 2021), which gives the same gradient."""
    scale = 1 / optimiser.temperature
    if optimiser.mini_batch is None:
        return losses.MultipleNegativesRankingLoss(encoder, scale)
    return losses.CachedMultipleNegativesRankingLoss(encoder, scale, mini_batch_size=optimiser.mini_batch)


@dataclass
class _Arguments(SentenceTransformerTrainingArguments):  # type: ignore[misc]
    """On the one device that the encoder is on. The trainer's own choice is the first GPU, or all there are."""

    torch_device: str = "cpu"

    @property
    def device(self) -> torch.device:
        _ = super().device  # sets accelerate up
        return torch.device(self.torch_device)

    @property
    def n_gpu(self) -> int:
        return int(self.device.type != "cpu")


class _Trainer(SentenceTransformerTrainer):  # type: ignore[misc]
    """Without the model card, which shows sentences of the corpus and asks the hub about the base."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        del state_dict  # of sharded models
        self.model.save(output_dir or self.args.output_dir, create_model_card=False)


class _Steps(TrainerCallback):  # type: ignore[misc]
    """Looks at every step: shows it, ends a run that has no gradient any more, and makes checkpoints whole."""

    def __init__(self, plan: Plan, progress: ProgressLine) -> None:
        self._plan, self._progress = plan, progress
        self._first_step, self._began = 0, 0.0

    def on_train_begin(self, _args: Any, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        self._first_step, self._began = state.global_step, time.monotonic()

    def on_step_end(self, _args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        due = state.global_step % self._plan.config.run.checkpoint_every == 0
        control.should_save = due and state.global_step < self._plan.steps

    def on_log(
        self, _args: Any, state: TrainerState, _control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """Comes before the step's checkpoint, so that none is written of weights that are no numbers."""
        state.log_history.clear()  # every checkpoint would hold the lines of all steps
        if "grad_norm" not in logs:  # the summary at the end
            return
        step, steps = state.global_step, self._plan.steps
        if not math.isfinite(logs["grad_norm"]):
            raise JobError(f"the gradient of step {step} is not finite: lower optimiser.learning_rate")
        left = (steps - step) * (time.monotonic() - self._began) / (step - self._first_step)
        self._progress.show(f"step {step:,} of {steps:,} | loss {logs['loss']:.3f} | ETA {duration(left)}")

    def on_save(self, _args: Any, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """The checkpoint is on the disk, then it is marked, then those before it go: after a power cut too."""
        checkpoint = self._plan.checkpoints / f"checkpoint-{state.global_step}"
        for path in [*checkpoint.rglob("*"), checkpoint]:
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        storage.write_json(str(checkpoint / MARK), {"digest": self._plan.digest, "step": state.global_step})
        for other in self._plan.checkpoints.iterdir():
            if other != checkpoint:
                shutil.rmtree(other)


def _publish(plan: Plan, scores: dict[str, dict[str, float]]) -> None:
    """The folder, made beside its place and renamed; then the checkpoints are of no use any more."""
    manifest = {
        "version": 1,
        "base": plan.config.base.model,
        "base_fingerprint": plan.base_fingerprint,  # digest of a local base, name@revision of one from the hub
        "revision": plan.model.model_card_data.base_model_revision,  # commit of a base from the hub
        "data": plan.data_digest,
        "sentences": len(plan.sentences),
        "held_out": len(plan.held_out),
        "steps": plan.steps,
        "settings": training_settings(plan.config),
        "scores": scores,  # of the held-out sentences, before and after: accuracy, alignment, uniformity
        "versions": versions("ner-batch", "torch", "transformers", "sentence-transformers", "accelerate"),
    }
    with tempfile.TemporaryDirectory(dir=plan.target.parent, prefix=storage.TEMPORARY_PREFIX) as temporary:
        folder = Path(temporary) / "encoder"
        plan.model.save(str(folder), create_model_card=False)
        storage.write_json(str(folder / MANIFEST), manifest)
        folder.rename(plan.target)  # takes the place of an empty folder too
    shutil.rmtree(plan.checkpoints)
