"""The training loop of the tiny base model: answer-only loss over rows that share their prompts' beginning."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen3ForCausalLM

from ner_batch.train import attention
from ner_batch.train.packing import Pack


@dataclass(frozen=True, slots=True)
class Schedule:
    """Optimiser settings. Length is in steps and not in seconds, so that a seed gives the same weights again."""

    steps: int
    rate: float
    embeddings: float = 1.0  # their share of the rate
    circuit: float = 1.0  # the share of the first two layers' attention, where the induction circuit is
    warmup: float = 0.03
    decay: float = 0.01


def train(
    model: Qwen3ForCausalLM, rows: Iterator[Pack], schedule: Schedule, report: Callable[[str], None]
) -> dict[str, float]:
    """Train, one row a step; returns the CPU-seconds and tokens used."""
    model.set_attn_implementation(attention.NAME)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(_groups(model, schedule), betas=(0.9, 0.98), weight_decay=schedule.decay)
    peaks = [group["lr"] for group in optimiser.param_groups]
    begun, tokens, recent = time.process_time(), 0, 0.0
    for step in range(schedule.steps):
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * _factor(step / schedule.steps, schedule.warmup)
        row = next(rows)
        with torch.autocast("cpu", torch.bfloat16):
            loss = attention.answer_loss(model, row) / row.learnt
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        tokens += len(row.ids)
        recent = 0.95 * recent + 0.05 * float(loss.detach()) if step else float(loss.detach())
        if step % 50 == 49:
            report(f"{time.process_time() - begun:5.0f} s  step {step + 1}  loss {recent:.3f}  {tokens} tokens")
    model.set_attn_implementation("sdpa")
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
