"""Attention of a packed row: every segment sees the prefix and itself, nothing else.

An attention function of transformers, for every decoder that takes its attention from there (Qwen, Llama, Mistral ...).
"""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from ner_batch.errors import first_line
from ner_batch.train import packing
from ner_batch.train.packing import IGNORED, Pack, Sample

NAME = "segments"

_sdpa = functional.scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class Segments:
    """How a row of ``prefix`` tokens and segments of ``lengths`` is attended: segment by segment, or all at once.

    Attributes:
        bias: what is added to the row's scores, (n, n or up to 7 more): 0 where a token sees another, -inf elsewhere.
            None: segment by segment, which computes nothing in vain, on CPUs and for a row of one. A GPU computes a
            whole row in less time than a CPU core takes to launch a kernel for each of some forty segments a layer.
    """

    prefix: int
    lengths: tuple[int, ...]
    bias: Tensor | None = None


def attend(
    _module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: object, **options: Any
) -> tuple[Tensor, None]:
    """Query (1, heads, n, size), key and value (1, heads or fewer, n, size) to (1, n, heads, size).

    ``options["segments"]`` are the row's :class:`Segments`.
    """
    segments: Segments = options["segments"]
    if segments.bias is not None:
        return _at_once(query, key, value, segments.bias, options.get("scaling")), None
    on_cpu = query.device.type == "cpu"
    # In float32 on a CPU: torch's backward pass in bfloat16 takes longer (12 rows of the tiny model: 3.3, not 1.9 s).
    query, key, value = (x.float() if on_cpu else x for x in (query, key, value))
    with torch.autocast("cpu", enabled=False) if on_cpu else nullcontext():
        return _by_segment(query, key, value, segments, options.get("scaling")), None


def _by_segment(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float | None) -> Tensor:
    """A call of the kernel for the prefix and for every segment."""
    prefix = segments.prefix
    # Split at once: the gradient of a slice is a zeroed copy of the whole row, which cost a fifth of a step.
    sizes = [prefix, *segments.lengths] if prefix else list(segments.lengths)
    queries, keys, values = (x.split(sizes, dim=2) for x in (query, key, value))
    gqa = query.shape[1] != key.shape[1]
    parts = []
    for number, (q, k, v) in enumerate(zip(queries, keys, values, strict=True)):
        behind = prefix if number else 0
        mask = None
        if behind:
            k, v = torch.cat([keys[0], k], dim=2), torch.cat([values[0], v], dim=2)  # noqa: PLW2901
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(behind)
        parts.append(_sdpa(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=gqa))
    return torch.cat(parts, dim=2).transpose(1, 2)


def _at_once(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float | None) -> Tensor:
    """One call of the kernel for the whole row."""
    heads, count = query.shape[1:3]
    # Autocast would bring all to the type of the values too, and copy the bias for every head.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if key.shape[1] != heads:  # kernels that take a bias take no shared keys
        key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
    bias = bias.to(value.dtype)[:, :count].expand(1, heads, -1, -1)
    return _sdpa(query, key, value, attn_mask=bias, scale=scale).transpose(1, 2)


AttentionInterface.register(NAME, attend)


def check_packing(config: PretrainedConfig) -> None:
    """Raises ValueError where samples of one row would not be to this architecture what they are alone.

    Tried on a small twin of it with random weights: layers that pass on a state (recurrent, convolutional, linear
    attention) see across samples whatever attention does, and attention sinks or biases are not in :func:`attend`.
    """
    generator = torch.Generator().manual_seed(0)
    model = _twin(config)
    with torch.no_grad():
        for weight in model.parameters():
            scale = 2 / weight.shape[-1] ** 0.5  # large enough for attention to matter
            weight.copy_(torch.randn(weight.shape, generator=generator) * scale + (weight.dim() == 1))

        def ids(count: int) -> tuple[int, ...]:
            return tuple(torch.randint(3, _SHORT["vocab_size"], (count,), generator=generator).tolist())

        beginning = ids(12)  # of every prompt: what `shared` keeps once
        samples = [Sample(beginning + ids(28), ids(6)) for _ in range(3)]
        own = sum(_own_loss(model, sample) for sample in samples)
        try:
            model.set_attn_implementation(NAME)
            for kind in ("none", "greedy", "shared"):
                rows = packing.pack(samples, kind, 512, random.Random(0))  # noqa: S311 - repeatable
                loss = sum(answer_loss(model, row).item() for row in rows)
                if not abs(loss - own) <= _TOLERANCE * own:
                    raise ValueError(f"samples of a row are not to it what they are alone ({loss:.4f}, not {own:.4f})")
        except (TypeError, RuntimeError) as error:  # it does not know the keyword `segments`, or has other shapes
            raise ValueError(f"its attention is not that of transformers ({first_line(error)})") from error


_TOLERANCE = 3e-6  # of a loss; rounding in float32 made 3e-7 of it, the least of the others (Falcon-H1) 1e-5
_MOST_NUMBERS = 10**9  # weights of a twin: 4 GB
# Sizes of a twin, by the names that configs have for them: of one that is short, and of one that is narrow too.
_SHORT: dict[str, Any] = {
    "vocab_size": 128,
    "num_hidden_layers": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SMALL: dict[str, Any] = _SHORT | {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "d_model": 64,
    "n_embd": 64,
    "n_heads": 4,
    "n_head": 4,
    "n_layers": 4,
    "n_layer": 4,
}


def _twin(config: PretrainedConfig) -> PreTrainedModel:
    """A model of the same architecture, small where its config allows it: a layer of every kind, in their order."""
    text = config.get_text_config()
    own_values = {k: v for k, v in text.to_dict().items() if k not in ("quantization_config", "torch_dtype", "dtype")}
    problem: Exception | None = None
    for sizes in (_SMALL, _SHORT):
        values = own_values | {name: size for name, size in sizes.items() if own_values.get(name) is not None}
        if kinds := list(dict.fromkeys(own_values.get("layer_types") or ())):
            values["layer_types"] = (kinds * 4)[: max(4, len(kinds))]
            values["num_hidden_layers"] = len(values["layer_types"])
        if own_values.get("num_key_value_heads") == own_values.get("num_attention_heads"):
            values["num_key_value_heads"] = values.get("num_attention_heads")
        try:
            twin = type(text).from_dict(values)
            with torch.device("meta"):
                numbers = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(twin).parameters())
            if numbers > _MOST_NUMBERS:
                raise ValueError(f"it would have {numbers:,} weights")  # noqa: TRY301 - told below like any other
            return AutoModelForCausalLM.from_config(twin, dtype=torch.float32).eval()
        except Exception as error:  # noqa: BLE001 - whatever a config's class makes of sizes that are not its own
            problem = error
    assert problem
    raise ValueError(f"no small model of its kind can be made ({first_line(problem)})") from problem


def _own_loss(model: PreTrainedModel, sample: Sample) -> float:
    """A sample's loss with the attention that the model has itself."""
    model.set_attn_implementation("eager")
    ids = torch.tensor([[*sample.prompt, *sample.answer]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(sample.prompt) - 1 : -1]
    return float(functional.cross_entropy(logits.float(), torch.tensor(sample.answer), reduction="sum"))


def segments_of(pack: Pack, device: torch.device) -> Segments:
    """How a row is attended on a device: by segment on a CPU, and where there is one alone; else at once."""
    alone = not pack.prefix and len(pack.lengths) == 1
    return Segments(pack.prefix, pack.lengths, None if alone or device.type == "cpu" else score_bias(pack, device))


def score_bias(pack: Pack, device: torch.device) -> Tensor:
    """0 where a token of a row sees another, -inf elsewhere, in bfloat16, which has both exactly.

    (n, n), and columns of -inf up to a multiple of 8: a kernel takes rows that begin at 16 bytes, and each layer would
    copy others.
    """
    numbers = [0] * pack.prefix + [i for i, length in enumerate(pack.lengths, 1) for _ in range(length)]
    segment, count = torch.tensor(numbers, device=device), len(numbers)
    sees = ((segment[:, None] == segment) | (segment == 0)).tril()
    bias = torch.full((count, -(-count // 8) * 8), -torch.inf, dtype=torch.bfloat16, device=device)
    bias[:, :count].masked_fill_(sees, 0)
    return bias


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
        segments=segments_of(pack, device),
    ).logits
    targets = torch.tensor([pack.labels[place] for place in learnt], device=device)
    return functional.cross_entropy(logits[0].float(), targets, reduction="sum")
