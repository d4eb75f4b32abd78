"""The encoder: loaded, its dropout set and seen to work, described for a digest, scored without labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from sentence_transformers.util import batch_to_device, is_sentence_transformer_model
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from ner_batch.encoder.settings import BaseEncoderConfig
from ner_batch.engine.device import disable_cudnn_attention
from ner_batch.errors import UserError, first_line

_RATES = ("attention_dropout", "activation_dropout", "hidden_dropout", "dropout")  # kept as numbers by some models
_SCORED = 64  # sentences encoded together
_COUNTED = 10_000  # sentences whose tokens are counted together


def load(base: BaseEncoderConfig, device: str | None) -> SentenceTransformer:
    """The encoder in float32, its dropout set as configured and seen to work; else a UserError of one line."""
    disable_cudnn_attention()
    disable_progress_bar()  # bars over the weights of one file would stand between a refusal's lines
    try:
        has_modules = is_sentence_transformer_model(base.model, revision=base.revision)
        if has_modules:
            model = SentenceTransformer(base.model, revision=base.revision, device=device)
        else:
            parts = ("model_kwargs", "processor_kwargs", "config_kwargs")
            transformer = Transformer(base.model, **{part: {"revision": base.revision or "main"} for part in parts})
            pooling = Pooling(transformer.get_embedding_dimension(), base.pooling or "mean")
            model = SentenceTransformer(modules=[transformer, pooling], device=device)
        model = model.float()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"base.model: {base.model}: cannot be loaded ({first_line(error)})") from None
    if base.pooling and has_modules:
        raise UserError(f"base.pooling: {base.model} has a pooling of its own: leave base.pooling out")
    if base.dropout is not None:
        _set_dropout(model, base.dropout)
    # Tried and not read off the config: where a model keeps its dropout, and whether it uses it, differs.
    first, second = views(model, ["The same sentence twice."] * 2)
    if torch.equal(first, second):
        remedy = "choose another encoder" if base.dropout else "set base.dropout=0.1"
        raise UserError(
            f"base.dropout: {base.model} drops nothing out, so a sentence's two vectors are the same: {remedy}"
        )
    return model


def _set_dropout(model: nn.Module, rate: float) -> None:
    """Write the rate into every place that drops out; the saved config keeps the encoder's own."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name in _RATES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)


def structure(model: SentenceTransformer) -> list[Any]:
    """What a base's fingerprint does not tell: length, modules, and the weights behind the first one; for JSON."""
    weights = hashlib.sha256()
    for module in list(model)[1:]:
        for name, weight in module.state_dict().items():
            weights.update(name.encode() + weight.cpu().numpy().tobytes())
    modules = [[type(module).__name__, module.get_config_dict()] for module in model]
    return [model.max_seq_length, json.loads(json.dumps(modules, default=str)), weights.hexdigest()]


def count_tokens(model: SentenceTransformer, texts: Sequence[str]) -> list[int]:
    """Numbers of tokens, counted in parts: a tokenizer's answer takes many times the memory of the text."""
    counts: list[int] = []
    for start in range(0, len(texts), _COUNTED):
        part = list(texts[start : start + _COUNTED])
        counts += map(len, model.tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"])
    return counts


def views(model: SentenceTransformer, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Each sentence encoded twice with dropout on: two matrices of L2-normalised vectors, (sentences, dimension)."""
    model.train()
    pairs = []
    for start in range(0, len(sentences), _SCORED):
        inputs = batch_to_device(model.preprocess(list(sentences[start : start + _SCORED])), model.device)
        with torch.no_grad():
            pairs.append([model(dict(inputs))["sentence_embedding"].float() for _ in range(2)])
    model.eval()
    first, second = (nn.functional.normalize(torch.cat(side), dim=-1) for side in zip(*pairs, strict=True))
    return first, second


def scores(model: SentenceTransformer, sentences: Sequence[str], seed: int) -> dict[str, float]:
    """What can be said of an encoder without labels, from two noisy vectors of each sentence.

    ``accuracy``: share of sentences whose second vector is nearest to their own first one (recall at 1).
    ``alignment`` and ``uniformity``: Wang and Isola (2020), the lower the better; SimCSE lowers the second.
    """
    torch.manual_seed(seed)
    first, second = (side.cpu() for side in views(model, sentences))
    values = {
        "accuracy": (first @ second.T).argmax(dim=1).eq(torch.arange(len(first))).float().mean(),
        "alignment": (first - second).square().sum(dim=1).mean(),
        "uniformity": (-2 * torch.pdist(first).square()).exp().mean().log(),
    }
    return {name: round(float(value), 4) for name, value in values.items()}
