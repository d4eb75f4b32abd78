"""The training loop of the demo's models: answer-only loss over packs that share one prefix, on one CPU core.

The prompts of one task begin alike (system message). A pack holds that prefix once and many (question, answer) branches behind
it; each branch sees the prefix and itself, at the positions it would have alone. The loss is exactly that of the separate
sequences, for half the tokens and less.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Qwen3ForCausalLM


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids of a prompt and of its answer; only the answer is learnt."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """Samples in one row behind their common prefix: ids, positions (1, n), mask (1, 1, n, n) and what to predict where."""

    ids: Tensor
    positions: Tensor
    mask: Tensor
    asked: Tensor  # indices into the row whose next token is learnt
    targets: Tensor


@dataclass(frozen=True, slots=True)
class Schedule:
    """Optimiser settings. Length is in steps and not in seconds, so that a seed gives the same weights again."""

    steps: int
    rate: float
    embeddings: float = 1.0  # their share of the rate
    circuit: float = 1.0  # the share of the first two layers' attention, where the induction circuit is
    warmup: float = 0.03
    decay: float = 0.01


def pack(samples: Sequence[Sample]) -> Pack:
    """One row for samples that should share a long prefix (they may share none)."""
    prefix = _shared(samples)
    ids, positions, branch = list(samples[0].prompt[:prefix]), list(range(prefix)), [0] * prefix
    asked, targets = [], []
    for number, sample in enumerate(samples, start=1):
        tail = sample.prompt[prefix:] + sample.answer[:-1]
        first = len(ids) + len(sample.prompt) - prefix - 1
        asked += range(first, first + len(sample.answer))
        targets += sample.answer
        ids += tail
        positions += range(prefix, prefix + len(tail))
        branch += [number] * len(tail)
    return Pack(torch.tensor([ids]), torch.tensor([positions]), _mask(branch), torch.tensor(asked), torch.tensor(targets))


def _shared(samples: Sequence[Sample]) -> int:
    """Length of the prompts' common prefix; every branch keeps a token of its own."""
    return min(len(commonprefix([s.prompt for s in samples])), min(len(s.prompt) for s in samples) - 1)


def _mask(branch: Sequence[int]) -> Tensor:
    """Causal, and between branches closed: a query sees its own branch and the prefix (branch 0)."""
    of = torch.tensor(branch)
    allowed = ((of[:, None] == of[None, :]) | (of[None, :] == 0)).tril()
    return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]


def packs(samples: Iterable[Sample], tokens: int) -> Iterator[Pack]:
    """Consecutive samples as packs of at most about ``tokens`` tokens."""
    waiting: list[Sample] = []
    for sample in samples:
        grown = [*waiting, sample]
        if waiting and _size(grown) > tokens:
            yield pack(waiting)
            grown = [sample]
        waiting = grown
    if waiting:
        yield pack(waiting)


def _size(samples: Sequence[Sample]) -> int:
    prefix = _shared(samples)
    return prefix + sum(len(s.prompt) + len(s.answer) - prefix for s in samples)


def loss(model: Qwen3ForCausalLM, batch: Pack) -> Tensor:
    """Mean cross-entropy of the answers' tokens. Logits are computed for these alone."""
    hidden = model.model(batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False)[0]
    return functional.cross_entropy(model.lm_head(hidden[0, batch.asked]), batch.targets)


def train(
    model: Qwen3ForCausalLM, batches: Iterator[Pack], schedule: Schedule, report: Callable[[str], None]
) -> dict[str, float]:
    """Train, one pack a step; returns the CPU-seconds and tokens used."""
    weights = [p for p in model.parameters() if p.requires_grad]
    groups = _groups(model, schedule)
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=schedule.decay)
    begun, tokens, recent = time.process_time(), 0, 0.0
    for step in range(schedule.steps):
        for group, start in zip(optimiser.param_groups, groups, strict=True):
            group["lr"] = start["lr"] * _factor(step / schedule.steps, schedule.warmup)
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        tokens += batch.ids.shape[1]
        recent = 0.98 * recent + 0.02 * float(value.detach()) if step else float(value.detach())
        if step % 100 == 99:
            report(f"{time.process_time() - begun:5.0f} s  step {step + 1}  loss {recent:.3f}  {tokens} tokens")
    return {"seconds": time.process_time() - begun, "tokens": tokens}


def _groups(model: Qwen3ForCausalLM, schedule: Schedule) -> list[dict[str, Any]]:
    """Parameter groups with their peak rates: embeddings, attention of the first two layers, and the rest."""
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        early = "layers.0.self_attn" in name or "layers.1.self_attn" in name
        share = schedule.embeddings if "embed_tokens" in name else schedule.circuit if early else 1.0
        if weight.requires_grad:
            groups.setdefault(share * schedule.rate, []).append(weight)
    return [{"params": weights, "lr": rate} for rate, weights in groups.items()]


def _factor(share: float, warmup: float) -> float:
    """Learning-rate factor after a share of the steps: linear warm-up, then a cosine to zero."""
    if share < warmup:
        return (share + 0.001) / (warmup + 0.001)
    return 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))
