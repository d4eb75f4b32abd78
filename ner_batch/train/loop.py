"""What every worker of the training job runs: steps, dev scores, checkpoints.

Which rows a step sees depends on the seed and its number alone; the workers share them out. Gradients are summed over
all workers and divided by all learnt tokens, so a token weighs the same wherever it stands.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.evaluate.metrics import Counts
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.train import attention, evaluate
from ner_batch.train import model as models
from ner_batch.train.evaluate import DevPrompt
from ner_batch.train.packing import Pack
from ner_batch.train.plan import Plan
from ner_batch.train.settings import OptimiserConfig

LAST, BEST, OPTIMISER, STATE = "last.safetensors", "best.safetensors", "optimiser.pt", "state.json"
Metrics = dict[str, float]
SMOOTHED = 10  # steps that one reported loss is the mean of


@dataclass(slots=True)
class TrainingState:
    """Where a run is: ``epoch_step`` of ``epoch`` comes next. ``losses``: (loss, learnt tokens) of the last steps."""

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_f1: float = -1.0
    best_step: int = 0
    evaluations_without_gain: int = 0
    stopped_early: bool = False
    losses: list[list[float]] = field(default_factory=list)
    history: list[Metrics] = field(default_factory=list)


def train(config: dict[str, Any]) -> None:
    """Train to the last step, or until dev F1 has not risen for long enough. Ray Train's entry point.

    ``config`` has ``plan`` and ``progress``, a queue for the number of every step and what was measured after it; while
    dev is read, ``answered`` alone, the share of its prompts. A UserError where a gradient is not finite, or no sample
    of an epoch fits.
    """
    plan: Plan = config["plan"]
    settings, schedule = plan.config, plan.schedule
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    torch.use_deterministic_algorithms(device.type == "cpu")

    builder = plan.builder()
    model = models.load(settings.base, settings.lora, device, settings.run.seed)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = make_optimiser(weights, settings.optimiser)
    state, best_weights = load_checkpoint(model, optimiser)
    scheduler = make_scheduler(optimiser, settings.optimiser, schedule.steps, state.step)
    dev_examples = plan.dev.examples[rank::workers]
    dev_prompts = evaluate.dev_prompts(dev_examples, plan.dev.demonstrations(plan.dev_k)[rank::workers], builder)

    def show_answered(answered: int) -> None:  # on a CPU reading dev takes minutes
        config["progress"].put((state.step, {"answered": answered / len(dev_prompts)}))

    mixed = models.computes_bfloat16(settings.base, device)
    model.train()
    for rows in remaining_steps(plan, builder, state):
        start_time = time.monotonic()
        torch.manual_seed(hash((settings.run.seed, state.step, rank)))  # dropout, after a restart too
        loss = backward(model, rows[rank::workers], mixed=mixed)
        learnt = sum(row.learnt for row in rows)
        learning_rate = scheduler.get_last_lr()[0]
        norm = gather_gradients(weights, learnt, settings.optimiser.clip)
        if not math.isfinite(norm):
            raise UserError(f"the gradient of step {state.step + 1} is not finite: lower optimiser.learning_rate")
        optimiser.step()
        scheduler.step()
        optimiser.zero_grad(set_to_none=True)

        state.step += 1
        state.tokens += sum(len(row.ids) for row in rows)
        state.seconds += time.monotonic() - start_time
        state.losses = [*state.losses[1 - SMOOTHED :], [loss, learnt]]
        is_last = state.step == schedule.steps
        measured: Metrics = {}
        if is_last or state.step % SMOOTHED == 0:
            measured["loss"] = sum(loss for loss, _ in state.losses) / sum(learnt for _, learnt in state.losses)
        if is_last or state.step % schedule.evaluate_every == 0:
            measured["f1"] = validate(model, dev_examples, dev_prompts, builder, show_answered if rank == 0 else None)
            if note_f1(state, measured["f1"], settings.evaluation.patience):
                best_weights = models.weights(model)
        if measured:
            speed = state.tokens / max(state.seconds, 1e-9)
            measured |= {"epoch": state.epoch, "learning_rate": learning_rate, "tokens_per_second": speed}
            state.history.append({"step": state.step, **measured})
        if rank == 0:
            config["progress"].put((state.step, measured))
        if is_last or state.stopped_early or state.step % schedule.checkpoint_every == 0:
            save_checkpoint(state, model, best_weights, optimiser)


def make_optimiser(weights: Sequence[Tensor], config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW; ``initial_lr`` is what a scheduler that begins in the middle multiplies."""
    group = {"params": list(weights), "lr": config.learning_rate, "initial_lr": config.learning_rate}
    return torch.optim.AdamW([group], weight_decay=config.weight_decay)


def make_scheduler(optimiser: torch.optim.Optimizer, config: OptimiserConfig, steps: int, step: int) -> LambdaLR:
    """Linear warm-up, then a cosine towards zero; ``step`` steps of ``steps`` are done."""
    warmup = max(1, round(config.warmup * steps))
    # Its first and its last rate are 0, and such a step would be lost: ours are those between.
    return get_scheduler("cosine", optimiser, warmup, steps + 1, scheduler_specific_kwargs={"last_epoch": step})


def remaining_steps(plan: Plan, builder: PromptBuilder, state: TrainingState) -> Iterator[list[Pack]]:
    """The rows of each step that is left; the state moves on with them.

    The next epoch's rows are made in a thread while the present one trains: 0.6 to 1.3 ms of CPU a sample.
    """
    size, steps = plan.layout.rows_per_step, plan.schedule.steps
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(plan.epoch_rows, builder, state.epoch)
        while state.step < steps and not state.stopped_early:
            rows = following.result()
            if not rows:
                raise UserError(f"no sample of epoch {state.epoch} fits base.max_model_len: raise it")
            if state.step - state.epoch_step - (-len(rows) // size) < steps:
                following = thread.submit(plan.epoch_rows, builder, state.epoch + 1)
            for first in range(state.epoch_step * size, len(rows), size):
                state.epoch_step += 1
                yield rows[first : first + size]
                if state.step == steps or state.stopped_early:
                    return
            state.epoch, state.epoch_step = state.epoch + 1, 0


def backward(model: PeftModel, rows: Sequence[Pack], mixed: bool) -> float:
    """Add the gradients of rows; the sum of their losses over all workers. ``mixed``: products in bfloat16."""
    total = torch.zeros((), device=model.device)
    for row in rows:
        if row.learnt:
            with torch.autocast(model.device.type, torch.bfloat16, enabled=mixed):
                loss = attention.answer_loss(model.get_base_model(), row)
            loss.backward()
            total += loss.detach()
    return float(_summed(total))


def gather_gradients(weights: Sequence[Tensor], learnt: int, clip: float) -> float:
    """Sum the gradients of all workers, divide by all learnt tokens, clip; the norm before clipping."""
    zeros = (w.grad if w.grad is not None else torch.zeros_like(w) for w in weights)
    flat = _summed(torch.cat([gradient.flatten() for gradient in zeros])) / max(1, learnt)
    norm = float(flat.norm())
    flat *= min(1.0, clip / (norm + 1e-6))
    for weight, gradient in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
        weight.grad = gradient.view_as(weight)
    return norm


def _summed(value: Tensor) -> Tensor:
    """The sum over all workers."""
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(value)
    return value


def validate(
    model: PeftModel,
    examples: Sequence[Example],
    prompts: Sequence[DevPrompt],
    builder: PromptBuilder,
    before_batch: Callable[[int], object] | None,
) -> float:
    """Strict span F1 of greedy answers, over the dev examples of all workers."""
    answers = evaluate.answers_in_training(model, prompts, builder, before_batch)
    counts = evaluate.score_answers(examples, prompts, answers, builder).micro
    total = _summed(torch.tensor([counts.correct, counts.predicted, counts.gold], device=model.device))
    return Counts(*(int(n) for n in total)).f1


def note_f1(state: TrainingState, f1: float, patience: int | None) -> bool:
    """Count an evaluation; whether it is the best so far. Training stops early after ``patience`` that are not."""
    is_best = f1 > state.best_f1
    if is_best:
        state.best_f1, state.best_step = f1, state.step
    state.evaluations_without_gain = 0 if is_best else state.evaluations_without_gain + 1
    state.stopped_early = patience is not None and state.evaluations_without_gain >= patience
    return is_best


def save_checkpoint(
    state: TrainingState, model: PeftModel, best_weights: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> None:
    """A checkpoint; every worker reports, the first one writes."""
    metrics = {"step": state.step, "f1": state.best_f1}
    if ray.train.get_context().get_world_rank() > 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = models.weights(model)
        save_file(weights, Path(folder) / LAST)
        save_file(best_weights or weights, Path(folder) / BEST)
        torch.save(optimiser.state_dict(), Path(folder) / OPTIMISER)
        (Path(folder) / STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def load_checkpoint(model: PeftModel, optimiser: torch.optim.Optimizer) -> tuple[TrainingState, dict[str, Tensor]]:
    """The newest checkpoint, put into model and optimiser: its state and the best weights; else a beginning's."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return TrainingState(), {}
    with checkpoint.as_directory() as folder:
        set_peft_model_state_dict(model, load_file(Path(folder) / LAST))
        optimiser.load_state_dict(torch.load(Path(folder) / OPTIMISER, map_location=model.device))
        return load_result(folder)


def load_result(folder: str) -> tuple[TrainingState, dict[str, Tensor]]:
    """The state and the best weights in a checkpoint's folder."""
    state = TrainingState(**json.loads((Path(folder) / STATE).read_text(encoding="utf-8")))
    return state, load_file(Path(folder) / BEST)
