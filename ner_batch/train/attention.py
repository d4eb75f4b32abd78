"""Attention of a packed row: every segment sees the prefix and itself, nothing else.

An attention function of transformers, for every decoder that takes its attention from there (Qwen, Llama, Mistral ...).
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from ner_batch.train.packing import IGNORED, Pack

NAME = "segments"


def attend(
    _module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: object, **options: Any
) -> tuple[Tensor, None]:
    """Query (1, heads, n, size), key and value (1, heads or fewer, n, size) to (1, n, heads, size).

    ``options["segments"]`` is (prefix, lengths), as in :class:`~ner_batch.train.packing.Pack`.
    """
    prefix, lengths = options["segments"]
    on_cpu = query.device.type == "cpu"
    # In float32 on a CPU: torch's backward pass in bfloat16 takes longer (12 rows of the tiny model: 3.3, not 1.9 s).
    inputs = [x.float() if on_cpu else x for x in (query, key, value)]
    # Split at once: the gradient of a slice is a zeroed copy of the whole row, which cost a fifth of a step.
    sizes = [prefix, *lengths] if prefix else list(lengths)
    queries, keys, values = (x.split(sizes, dim=2) for x in inputs)
    parts = []
    with torch.autocast("cpu", enabled=False) if on_cpu else nullcontext():
        for number, (q, k, v) in enumerate(zip(queries, keys, values, strict=True)):
            behind = prefix if number else 0
            mask = None
            if behind:
                k, v = torch.cat([keys[0], k], dim=2), torch.cat([values[0], v], dim=2)  # noqa: PLW2901
                mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(behind)
            gqa = q.shape[1] != k.shape[1]
            parts.append(
                functional.scaled_dot_product_attention(
                    q, k, v, attn_mask=mask, is_causal=mask is None, scale=options.get("scaling"), enable_gqa=gqa
                )
            )
    return torch.cat(parts, dim=2).transpose(1, 2), None


AttentionInterface.register(NAME, attend)


def answer_loss(model: PreTrainedModel, pack: Pack) -> Tensor:
    """Sum of the cross-entropies of the learnt tokens. Logits are computed for these alone.

    The model's attention must be :data:`NAME` (``model.set_attn_implementation(NAME)``).
    """
    device = model.device
    learnt = [place for place, label in enumerate(pack.labels) if label != IGNORED]
    logits = model(
        input_ids=torch.tensor([pack.ids], device=device),
        position_ids=torch.tensor([pack.positions], device=device),
        use_cache=False,
        logits_to_keep=torch.tensor(learnt, device=device) - 1,
        segments=(pack.prefix, pack.lengths),
    ).logits
    targets = torch.tensor([pack.labels[place] for place in learnt], device=device)
    return functional.cross_entropy(logits[0].float(), targets, reduction="sum")
