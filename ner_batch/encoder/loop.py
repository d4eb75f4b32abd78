"""Training steps: the same sentences twice, dropout as the only difference, in-batch negatives (Gao et al., 2021).

A step is a function of the seed and its number, so a run that goes on from a checkpoint gives the same bytes.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.util import cos_sim
from torch import Tensor

from ner_batch.encoder.model import features
from ner_batch.encoder.settings import OptimiserConfig
from ner_batch.errors import JobError, UserError
from ner_batch.io import storage

Tell = Callable[[int, int, float], None]
"""(step, steps, loss of the step)."""


@dataclass(frozen=True, slots=True)
class Course:
    """What the weights follow from, beside the encoder. ``digest`` names all of it, for a checkpoint to be known by."""

    sentences: tuple[str, ...]
    steps: int
    optimiser: OptimiserConfig
    seed: int
    mixed: bool
    digest: str

    def batch(self, step: int) -> list[str]:
        """The sentences of a step counted from 0; an epoch's last few that fill no batch are left out."""
        epoch, place = divmod(step, len(self.sentences) // self.optimiser.batch)
        order = _order(len(self.sentences), f"{self.seed}-{epoch}")
        return [self.sentences[n] for n in order[place * self.optimiser.batch :][: self.optimiser.batch]]

    def rate(self, step: int) -> float:
        """Learning rate of a step counted from 0."""
        warm = max(1, round(self.optimiser.warmup * self.steps))
        share = (step + 1) / warm if step < warm else (self.steps - step) / max(1, self.steps - warm)
        return self.optimiser.learning_rate * share


@lru_cache(maxsize=1)
def _order(size: int, seed: str) -> Sequence[int]:
    return random.Random(seed).sample(range(size), size)  # noqa: S311 - repeatable, not secret


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run keeps its state: one file, and how many steps lie between two writes."""

    path: Path
    every: int

    def read(self, digest: str) -> dict[str, object] | None:
        """The state, None if there is none.

        Raises:
            UserError: it belongs to a run with another config, text or encoder, or cannot be read.
        """
        if not self.path.exists():
            return None
        try:
            state: dict[str, object] = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - zip, pickle and torch errors of all kinds
            raise UserError(f"{self.path}: not a checkpoint ({type(error).__name__}): remove it") from None
        if state.get("digest") != digest:
            raise UserError(
                f"{self.path}: belongs to a run with another config, text or encoder: remove it, or name another output"
            )
        return state

    def write(self, state: dict[str, object]) -> None:
        """Replace the file, whole or not at all."""
        content = io.BytesIO()
        torch.save(state, content)
        storage.write_bytes(str(self.path), content.getvalue())


class Trainer:
    """Trains an encoder in place."""

    def __init__(self, model: SentenceTransformer, course: Course) -> None:
        self.model, self.course = model, course
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.AdamW(self.weights, weight_decay=course.optimiser.weight_decay)
        self.loss = _loss(model, course.optimiser)
        self.step = 0

    def run(self, checkpoint: Checkpoint, tell: Tell) -> None:
        """Train to the last step, from the checkpoint if there is one.

        Raises:
            JobError: the loss is no number any more, or the GPU's memory does not do.
        """
        self._restore(checkpoint)
        self.model.train()
        with _mixed(self.model) if self.course.mixed else nullcontext():
            while self.step < self.course.steps:
                loss = self._step()
                self.step += 1
                if self.step % checkpoint.every == 0 and self.step < self.course.steps:
                    checkpoint.write(self._state())
                tell(self.step, self.course.steps, loss)
        self.model.eval()

    def _step(self) -> float:
        """One optimiser step; its loss."""
        torch.manual_seed(hash((self.course.seed, self.step)))  # dropout, after a restart too
        given = features(self.model, self.course.batch(self.step))
        try:
            loss = self.loss([dict(given), dict(given)], None)
            loss.backward()
        except torch.OutOfMemoryError:
            raise JobError("out of memory on the GPU: set optimiser.mini_batch, at first to 16") from None
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights, self.course.optimiser.clip))
        if not math.isfinite(norm):
            raise JobError(f"the gradient of step {self.step + 1} is not finite: lower optimiser.learning_rate")
        for group in self.optimiser.param_groups:
            group["lr"] = self.course.rate(self.step)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())

    def _state(self) -> dict[str, object]:
        parts = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        return {"digest": self.course.digest, "step": self.step, **parts}

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.read(self.course.digest)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = int(str(state["step"]))


@contextmanager
def _mixed(model: SentenceTransformer) -> Iterator[None]:
    """Matrix products in bfloat16, in the encoder alone (as accelerate has it), GradCache's second pass included."""
    plain = model[0].forward
    model[0].forward = torch.autocast(model.device.type, torch.bfloat16)(plain)
    try:
        yield
    finally:
        del model[0].forward


def _loss(model: SentenceTransformer, optimiser: OptimiserConfig) -> torch.nn.Module:
    scale = 1 / optimiser.temperature
    if optimiser.mini_batch is None:
        return losses.MultipleNegativesRankingLoss(model, scale, _cosine)
    return losses.CachedMultipleNegativesRankingLoss(model, scale, _cosine, optimiser.mini_batch)


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """In float32: divided by the temperature, bfloat16's steps of 0.004 would be 0.08."""
    return cos_sim(first.float(), second.float())
