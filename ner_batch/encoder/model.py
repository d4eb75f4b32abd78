"""The encoder: loaded, its dropout set and proven, scored without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from sentence_transformers.util import is_sentence_transformer_model
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from ner_batch.encoder.settings import BaseEncoderConfig
from ner_batch.errors import UserError, first_line

_RATES = ("attention_dropout", "activation_dropout", "hidden_dropout", "dropout")  # kept as numbers by some models
_SCORED = 64  # sentences encoded together


def load(base: BaseEncoderConfig, device: str | None) -> SentenceTransformer:
    """The encoder in float32, its dropout set as configured and seen to work.

    Raises:
        UserError: one line: it cannot be loaded, has a pooling of its own, or has no dropout.
    """
    disable_progress_bar()  # bars over the weights of one file would stand between a refusal's lines
    try:
        model = _loaded(base, device).float()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"base.model: {base.model}: cannot be loaded ({first_line(error)})") from None
    if base.pooling and _has_modules(base):
        raise UserError(f"base.pooling: {base.model} has a pooling of its own: leave base.pooling out")
    _set_dropout(model, base.dropout)
    _check_noise(model, base)
    return model


def _has_modules(base: BaseEncoderConfig) -> bool:
    return bool(is_sentence_transformer_model(base.model, revision=base.revision))


def _loaded(base: BaseEncoderConfig, device: str | None) -> SentenceTransformer:
    if _has_modules(base):
        return SentenceTransformer(base.model, revision=base.revision, device=device)
    where: dict[str, Any] = {"revision": base.revision} if base.revision else {}
    transformer = Transformer(base.model, model_kwargs=where, processor_kwargs=where, config_kwargs=where)
    pooling = Pooling(transformer.get_embedding_dimension(), base.pooling or "mean")
    return SentenceTransformer(modules=[transformer, pooling], device=device)


def _set_dropout(model: nn.Module, rate: float | None) -> None:
    """Write the rate into every place that drops out; the saved config keeps the encoder's own."""
    if rate is None:
        return
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name in _RATES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)


def _check_noise(model: SentenceTransformer, base: BaseEncoderConfig) -> None:
    """The same sentence twice must give two vectors, or there is nothing to learn from a pair.

    Tried and not read off the config: where a model keeps its dropout, and whether it uses it, differs.
    """
    first, second = views(model, ["The same sentence twice."] * 2)
    if not torch.equal(first, second):
        return
    remedy = "choose another encoder" if base.dropout else "set base.dropout=0.1"
    raise UserError(f"base.dropout: {base.model} drops nothing out, so a sentence's two vectors are the same: {remedy}")


def features(model: SentenceTransformer, sentences: Sequence[str]) -> dict[str, Any]:
    """The model's input of some sentences, on its device."""
    made = model.preprocess(list(sentences))
    return {name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in made.items()}


def views(model: SentenceTransformer, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Each sentence encoded twice with dropout on: two matrices of L2-normalised vectors, (sentences, dimension)."""
    model.train()
    pairs: tuple[list[Tensor], list[Tensor]] = ([], [])
    for start in range(0, len(sentences), _SCORED):
        given = features(model, sentences[start : start + _SCORED])
        for side in pairs:
            with torch.no_grad():
                side.append(model(dict(given))["sentence_embedding"].float())
    model.eval()
    first, second = (nn.functional.normalize(torch.cat(side), dim=-1) for side in pairs)
    return first, second


def scores(model: SentenceTransformer, sentences: Sequence[str], seed: int) -> dict[str, float]:
    """What can be said of an encoder without labels, from two noisy vectors of each sentence.

    ``accuracy``: share of sentences whose second vector is nearest to their own first one. ``alignment`` (mean squared
    distance of a pair) and ``uniformity`` (log of the mean Gaussian potential of different sentences): Wang and Isola
    (2020), the lower the better, and SimCSE lowers the second while it keeps the first.
    """
    torch.manual_seed(seed)
    first, second = views(model, sentences)
    own = torch.arange(len(first), device=first.device)
    distances = torch.pdist(first.cpu()).square()
    found = {
        "accuracy": (first @ second.T).argmax(dim=1).eq(own).float().mean(),
        "alignment": (first - second).square().sum(dim=1).mean(),
        "uniformity": (-2 * distances).exp().mean().log(),
    }
    return {name: round(float(value), 4) for name, value in found.items()}
