"""The training loop of the demo's models: answer-only loss over packs that share one prefix, on one CPU core.

The prompts of one task begin alike (system message). A pack holds that prefix once and many (question, answer)
branches behind it; each branch sees the prefix and itself, at the positions it would have alone. The loss is
exactly that of the separate sequences, for half the tokens and less.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, Qwen3ForCausalLM


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids of a prompt and of its answer; only the answer is learnt."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """Samples in one row: their common prefix, then one branch a sample, padded to one length.

    ``ids`` and ``positions`` are (1, prefix + branches x length); ``asked`` are the places in the row whose next
    token is learnt, ``targets`` these tokens.
    """

    ids: Tensor
    positions: Tensor
    prefix: int
    branches: int
    asked: Tensor
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
    width = max(_tail(s, prefix) for s in samples)
    ids, positions = list(samples[0].prompt[:prefix]), list(range(prefix))
    asked: list[int] = []
    targets: list[int] = []
    for sample in samples:
        tail = sample.prompt[prefix:] + sample.answer[:-1]
        first = len(ids) + len(sample.prompt) - prefix - 1
        asked += range(first, first + len(sample.answer))
        targets += sample.answer
        ids += [*tail, *[0] * (width - len(tail))]
        positions += range(prefix, prefix + width)
    row = torch.tensor([ids]), torch.tensor([positions])
    return Pack(*row, prefix, len(samples), torch.tensor(asked), torch.tensor(targets))


def _shared(samples: Sequence[Sample]) -> int:
    """Length of the prompts' common prefix; every branch keeps a token of its own."""
    least, greatest = min(s.prompt for s in samples), max(s.prompt for s in samples)
    common = next((i for i, (a, b) in enumerate(zip(least, greatest, strict=False)) if a != b), len(least))
    return min(common, min(len(s.prompt) for s in samples) - 1)


def _tail(sample: Sample, prefix: int) -> int:
    return len(sample.prompt) - prefix + len(sample.answer) - 1


def packs(samples: Sequence[Sample], tokens: int, rng: random.Random) -> list[Pack]:
    """Samples of similar length as packs of at most some ``tokens`` tokens (padding counts), in random order."""
    made, waiting = [], list[Sample]()
    for sample in sorted(samples, key=lambda s: len(s.prompt) + len(s.answer)):
        prefix = _shared([*waiting, sample])
        if waiting and prefix + (len(waiting) + 1) * _tail(sample, prefix) > tokens:
            made.append(pack(waiting))
            waiting = []
        waiting.append(sample)
    made.append(pack(waiting))
    rng.shuffle(made)
    return made


def branched(
    _module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: object, **options: Any
) -> tuple[Tensor, None]:
    """Attention of a packed row, (1, heads, n, size) to (1, n, heads, size); a branch sees the prefix and itself.

    For a prefix of 200 and 12 branches of 90 tokens this is a quarter of the products of one masked row.
    """
    prefix, branches = options["branches"]
    scale = options["scaling"]
    parts = []
    if prefix:
        q, k, v = (x[:, :, :prefix] for x in (query, key, value))
        shared = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        parts.append(shared.transpose(1, 2))
    q, k, v = (x[0, :, prefix:].unflatten(1, (branches, -1)).transpose(0, 1) for x in (query, key, value))
    k, v = (torch.cat([x[:, :, :prefix].expand(branches, -1, -1, -1), own], dim=2) for x, own in ((key, k), (value, v)))
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(prefix)
    own = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    parts.append(own.transpose(1, 2).flatten(0, 1)[None])
    return torch.cat(parts, dim=1), None


AttentionInterface.register("branched", branched)


def loss(model: Qwen3ForCausalLM, batch: Pack) -> Tensor:
    """Mean cross-entropy of the answers' tokens. Logits are computed for these alone."""
    hidden = model.model(
        batch.ids,
        attention_mask={"full_attention": None},
        position_ids=batch.positions,
        use_cache=False,
        branches=(batch.prefix, batch.branches),
    )[0]
    return functional.cross_entropy(model.lm_head(hidden[0, batch.asked]), batch.targets)


def train(
    model: Qwen3ForCausalLM, batches: Iterator[Pack], schedule: Schedule, report: Callable[[str], None]
) -> dict[str, float]:
    """Train, one pack a step; returns the CPU-seconds and tokens used."""
    model.set_attn_implementation("branched")
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(_groups(model, schedule), betas=(0.9, 0.98), weight_decay=schedule.decay)
    peaks = [group["lr"] for group in optimiser.param_groups]
    begun, tokens, recent = time.process_time(), 0, 0.0
    for step in range(schedule.steps):
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * _factor(step / schedule.steps, schedule.warmup)
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(model, batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        tokens += batch.ids.shape[1]
        recent = 0.95 * recent + 0.05 * float(value.detach()) if step else float(value.detach())
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
