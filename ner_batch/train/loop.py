"""What every worker of the training job runs: steps, dev scores, checkpoints.

A step is a function of the seed and its number: which rows it sees does not depend on restarts or on the number of
workers, only how they are shared out. Gradients are summed over all workers and divided by all learnt tokens, so a
token weighs the same wherever it stands.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed

from ner_batch.errors import UserError
from ner_batch.evaluate.metrics import Counts
from ner_batch.train import evaluation, segments
from ner_batch.train import model as models
from ner_batch.train.packing import Pack
from ner_batch.train.plan import Plan
from ner_batch.train.settings import OptimiserConfig

LAST, BEST, OPTIMISER, STATE = "last.safetensors", "best.safetensors", "optimiser.pt", "state.json"
SMOOTHED = 10  # steps that one reported loss is the mean of


@dataclass(slots=True)
class State:
    """Where a run is. ``epoch`` and ``place`` say which step of which epoch comes next; F1 is of dev."""

    step: int = 0
    epoch: int = 0
    place: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_f1: float = -1.0
    best_step: int = 0
    without_gain: int = 0
    over: bool = False
    recent: list[list[float]] = field(default_factory=list)  # (loss, learnt tokens) of the last steps
    history: list[dict[str, float]] = field(default_factory=list)


def train(config: dict[str, Any]) -> None:
    """Ray Train's entry point: ``plan`` and ``board``, the actor that the driver reads progress from."""
    Worker(config["plan"], config["board"]).run()


def rate(step: int, steps: int, optimiser: OptimiserConfig) -> float:
    """Learning rate of a step counted from 0: linear warm-up, then a cosine towards zero."""
    warm = max(1, round(optimiser.warmup * steps))
    if step < warm:
        return optimiser.learning_rate * (step + 1) / warm
    return optimiser.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class Worker:
    """One of the processes that train together."""

    def __init__(self, plan: Plan, board: Any) -> None:
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.plan, self.board, self.builder = plan, board, plan.builder()
        self.device = ray.train.torch.get_device()
        torch.use_deterministic_algorithms(self.device.type == "cpu")
        self.model = models.load(plan.config.base, plan.config.lora, self.device, plan.config.run.seed)
        self.weights = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.weights, weight_decay=plan.config.optimiser.weight_decay)
        self.best: dict[str, Tensor] = {}
        self.state = State()
        self._restore()
        self.questions = self._dev_share()

    def run(self) -> None:
        """Train to the last step, or until dev F1 has not risen for long enough."""
        every = self.plan.config.run.checkpoint_every
        self.model.train()
        for packs in self._steps():
            self._step(packs)
            last = self.state.step == self.plan.steps
            if last or self.state.step % self.plan.config.evaluation.every == 0:
                self._evaluate()
            if last or self.state.over or self.state.step % every == 0:
                self._save()
            if self.state.over:
                break

    def _steps(self) -> Iterator[list[Pack]]:
        """The rows of each step that is left, from where the state stands."""
        size = self.plan.rows.per_step
        while self.state.step < self.plan.steps and not self.state.over:
            packs = self.plan.packs(self.builder, self.state.epoch)
            if not packs:
                raise UserError(f"no sample of epoch {self.state.epoch} fits base.max_model_len: raise it")
            steps = [packs[i : i + size] for i in range(0, len(packs), size)]
            for rows in steps[self.state.place :]:
                self.state.place += 1
                yield rows
                if self.state.step == self.plan.steps:
                    return
            self.state.epoch, self.state.place = self.state.epoch + 1, 0

    def _step(self, packs: list[Pack]) -> None:
        """One optimiser step over the rows of all workers."""
        begun = time.monotonic()
        torch.manual_seed(hash((self.plan.config.run.seed, self.state.step, self.rank)))  # dropout, after a restart too
        loss = torch.zeros((), device=self.device)
        for row in packs[self.rank :: self.world]:
            if row.learnt:
                loss += self._backward(row)
        learnt = sum(row.learnt for row in packs)
        loss = self._summed(loss)
        self._apply(learnt)
        self.state.step += 1
        self.state.tokens += sum(len(row.ids) for row in packs)
        self.state.seconds += time.monotonic() - begun
        self.state.recent = [*self.state.recent[1 - SMOOTHED :], [float(loss), learnt]]
        if self.state.step % SMOOTHED == 0 or self.state.step == self.plan.steps:
            total, count = (sum(part) for part in zip(*self.state.recent, strict=True))
            self._tell(loss=total / count)

    def _backward(self, row: Pack) -> Tensor:
        mixed = self.plan.config.base.compute == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            loss = segments.answer_loss(self.model.get_base_model(), row)
        loss.backward()
        return loss.detach()

    def _summed(self, value: Tensor) -> Tensor:
        if self.world > 1:
            distributed.all_reduce(value)
        return value

    def _apply(self, learnt: int) -> None:
        """Sum the gradients of all workers, divide by all learnt tokens, clip, step."""
        zeros = (w.grad if w.grad is not None else torch.zeros_like(w) for w in self.weights)
        flat = self._summed(torch.cat([grad.flatten() for grad in zeros])) / max(1, learnt)
        norm = float(flat.norm())
        if not math.isfinite(norm):
            raise UserError(f"the gradient of step {self.state.step + 1} is not finite: lower optimiser.learning_rate")
        flat *= min(1.0, self.plan.config.optimiser.clip / (norm + 1e-6))
        for weight, grad in zip(self.weights, flat.split([w.numel() for w in self.weights]), strict=True):
            weight.grad = grad.view_as(weight)
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.state.step, self.plan.steps, self.plan.config.optimiser)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def _dev_share(self) -> list[evaluation.Question]:
        """This worker's share of the dev prompts."""
        dev = self.plan.dev
        near = dev.shown(self.plan.dev_k)
        mine = range(self.rank, len(dev.examples), self.world)
        self.mine = [dev.examples[i] for i in mine]
        return evaluation.questions(self.mine, [near[i] for i in mine], self.builder)

    def _evaluate(self) -> None:
        """Strict span F1 on dev; the best weights are kept."""
        said = evaluation.answer(self.model, self.questions, self.builder)
        counts = evaluation.scores(self.mine, self.questions, said, self.builder).micro
        total = self._summed(torch.tensor([counts.correct, counts.predicted, counts.gold], device=self.device))
        f1 = Counts(*(int(n) for n in total)).f1
        better = f1 > self.state.best_f1
        self.state.without_gain = 0 if better else self.state.without_gain + 1
        if better:
            self.state.best_f1, self.state.best_step, self.best = f1, self.state.step, models.weights(self.model)
        patience = self.plan.config.evaluation.patience
        self.state.over = patience is not None and self.state.without_gain >= patience
        self._tell(f1=f1)

    def _tell(self, **measured: float) -> None:
        """Add to the history, and show it to the driver."""
        told = {"step": self.state.step, "epoch": self.state.epoch, **measured}
        told["rate"] = rate(self.state.step - 1, self.plan.steps, self.plan.config.optimiser)
        told["tokens_per_second"] = self.state.tokens / max(self.state.seconds, 1e-9)
        self.state.history.append({name: float(value) for name, value in told.items()})
        if self.rank == 0:
            self.board.tell.remote(self.state.history[-1], self.plan.steps)

    def _save(self) -> None:
        """A checkpoint; every worker reports, the first one writes."""
        metrics = {"step": self.state.step, "f1": self.state.best_f1}
        if self.rank:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            now = models.weights(self.model)
            save_file(now, Path(folder) / LAST)
            save_file(self.best or now, Path(folder) / BEST)
            torch.save(self.optimiser.state_dict(), Path(folder) / OPTIMISER)
            (Path(folder) / STATE).write_text(json.dumps(asdict(self.state)), encoding="utf-8")
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _restore(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return
        with checkpoint.as_directory() as folder:
            models.set_weights(self.model, load_file(Path(folder) / LAST))
            self.best = load_file(Path(folder) / BEST)
            self.optimiser.load_state_dict(torch.load(Path(folder) / OPTIMISER, map_location=self.device))
            self.state = State(**json.loads((Path(folder) / STATE).read_text(encoding="utf-8")))
