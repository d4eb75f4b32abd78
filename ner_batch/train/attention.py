"""Attention of a packed row: every segment sees the prefix and itself, nothing else.

An attention function of transformers, for every decoder that takes its attention from there (Qwen, Llama, Mistral ...).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self

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
    """How a row of ``prefix`` tokens and segments of ``lengths`` is attended: segment by segment, or in ``buckets``."""

    prefix: int
    lengths: tuple[int, ...]
    buckets: Buckets | None = None


@dataclass(frozen=True, slots=True)
class Buckets:
    """Segments of similar length side by side, each padded to the longest of its bucket.

    A row of 40 segments is 40 calls of a kernel a layer, which one CPU core cannot launch as fast as a GPU computes
    them (3,400 tokens/s on an H100). So it is one for each power of two among the lengths. On a CPU, where padding is
    work like any other, attention takes 1.7 times as long so.

    Attributes:
        slots: the token of the row in each slot, bucket by bucket; a padded slot has token 0.
        shapes: of each bucket, segments and slots a segment.
        masks: of each bucket, what a slot sees of prefix and segment, (slots, prefix + slots). A padded slot comes
            after all tokens of its segment, so none of them sees it.
        order: for each token of the row its place among prefix and slots.
    """

    slots: Tensor
    shapes: tuple[tuple[int, int], ...]
    masks: tuple[Tensor, ...]
    order: Tensor

    @classmethod
    def of(cls, prefix: int, lengths: Sequence[int], device: torch.device) -> Self:
        """The buckets of a row's segments."""
        by_size: dict[int, list[int]] = {}
        starts = [prefix + before for before in accumulate(lengths, initial=0)]
        for number, length in enumerate(lengths):
            by_size.setdefault(max(4, (length - 1).bit_length()), []).append(number)  # up to 16 tokens are one size
        order = list(range(starts[-1]))
        slots: list[int] = []
        shapes, masks = [], []
        for _, numbers in sorted(by_size.items()):
            longest = max(lengths[number] for number in numbers)
            for number in numbers:
                start, length = starts[number], lengths[number]
                order[start : start + length] = range(prefix + len(slots), prefix + len(slots) + length)
                slots += [*range(start, start + length), *[0] * (longest - length)]
            shapes.append((len(numbers), longest))
            masks.append(torch.ones(longest, prefix + longest, dtype=torch.bool, device=device).tril(prefix))
        return cls(torch.tensor(slots, device=device), tuple(shapes), tuple(masks), torch.tensor(order, device=device))


def attend(
    _module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: object, **options: Any
) -> tuple[Tensor, None]:
    """Query (1, heads, n, size), key and value (1, heads or fewer, n, size) to (1, n, heads, size).

    ``options["segments"]`` are the row's :class:`Segments`.
    """
    segments: Segments = options["segments"]
    on_cpu = query.device.type == "cpu"
    # In float32 on a CPU: torch's backward pass in bfloat16 takes longer (12 rows of the tiny model: 3.3, not 1.9 s).
    query, key, value = (x.float() if on_cpu else x for x in (query, key, value))
    with torch.autocast("cpu", enabled=False) if on_cpu else nullcontext():
        form = _by_segment if segments.buckets is None else _by_bucket
        return form(query, key, value, segments, options.get("scaling")), None


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


def _by_bucket(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float | None) -> Tensor:
    """A call of the kernel for the prefix and for every bucket."""
    prefix, buckets = segments.prefix, segments.buckets
    assert buckets
    heads, of_keys, size = query.shape[1], key.shape[1], query.shape[3]
    group = heads // of_keys
    key_before, value_before = key[:, :, :prefix], value[:, :, :prefix]
    parts = []
    if prefix:
        q = query[:, :, :prefix]
        part = _sdpa(q, key_before, value_before, is_causal=True, scale=scale, enable_gqa=group > 1)
        parts.append(part[0].transpose(0, 1))
    rows = torch.cat([query[0], key[0], value[0]]).transpose(0, 1).index_select(0, buckets.slots)
    of_buckets = rows.split([count * longest for count, longest in buckets.shapes])
    for slots, (count, longest), mask in zip(of_buckets, buckets.shapes, buckets.masks, strict=True):
        padded = slots.view(count, longest, heads + 2 * of_keys, size).transpose(1, 2)
        q, k, v = padded.split([heads, of_keys, of_keys], dim=1)
        if prefix:
            k = torch.cat([key_before.expand(count, -1, -1, -1), k], dim=2)
            v = torch.cat([value_before.expand(count, -1, -1, -1), v], dim=2)
            # Queries that share a key lie one after another: CUDA's kernels that take a mask take no shared keys.
            q = q.reshape(count, of_keys, group * longest, size)
            part = _sdpa(q, k, v, attn_mask=mask.repeat(group, 1), scale=scale).view(count, heads, longest, size)
        else:
            part = _sdpa(q, k, v, is_causal=True, scale=scale, enable_gqa=group > 1)
        parts.append(part.transpose(1, 2).reshape(count * longest, heads, size))
    return torch.cat(parts).index_select(0, buckets.order)[None]


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
    """How a row is attended on a device: by segment on a CPU, in buckets on a GPU."""
    buckets = None if device.type == "cpu" else Buckets.of(pack.prefix, pack.lengths, device)
    return Segments(pack.prefix, pack.lengths, buckets)


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
