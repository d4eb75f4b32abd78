"""Encoders: vectors of whole texts, and the states of a text's tokens with their places in it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ner_batch.engine.device import disable_cudnn_attention
from ner_batch.errors import UserError, first_line, require_extra

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH = 64
_BATCH_TOKENS = 2048  # of one forward pass, padding included; 512 Resume texts: 1.2 CPU-s, 1.8 with 8192
_MAX_TOKENS = 512  # a model that takes more reads pieces of this length all the same: attention is quadratic
_OVERLAP = 64  # tokens that two pieces of a long text share; each half is read where it has more context


@dataclass(frozen=True, slots=True)
class TokenStates:
    """A text as an encoder reads it, special tokens left out."""

    offsets: NDArray[np.int64]  # (tokens, 2), code points of the text
    states: NDArray[np.float32]  # (tokens, dimension)


class Encoder:
    """A sentence-transformers or plain Hugging Face model.

    Loaded at its first use: a driver that only checks an index needs none. One thread at a time: tokenizers are changed
    by their own use (padding, truncation) and refuse a second borrower. ``device`` None takes a GPU where there is one.
    Loading it switches cuDNN's attention off in this process (see :func:`disable_cudnn_attention`).
    """

    def __init__(self, name: str, revision: str | None = None, device: str | None = None) -> None:
        if name:  # kinds without an encoder have one without a name
            require_extra("encoder", "sentence_transformers", purpose=f"encoder {name}")
        self._name, self._revision, self._device = name, revision, device
        self._lock = threading.Lock()
        self._model: SentenceTransformer | None = None

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts to L2-normalised vectors, shape (texts, dimension)."""
        with self._lock:
            model = self._loaded()
            vectors = model.encode(list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
        return np.ascontiguousarray(vectors, np.float32)

    def tokens(self, texts: Sequence[str]) -> list[TokenStates]:
        """The tokens of each text with the states of the model's last layer, in float32; no prompt of the model's own.

        Nothing is cut: a long text is read in overlapping pieces, and a token's state is taken from the piece that
        shows more of its surroundings. Raises UserError where the model cannot be loaded, has no token states, or its
        tokenizer no offsets.
        """
        if not texts:
            return []
        with self._lock:
            model = self._loaded()
            if getattr(model[0], "auto_model", None) is None:
                begins = type(model[0]).__name__
                raise UserError(f"encoder {self._name}: has no token states (it begins with a {begins})")
            if not getattr(model.tokenizer, "is_fast", False):
                raise UserError(f"encoder {self._name}: its tokenizer tells no character offsets; a fast one is needed")
            # In bfloat16 a text's states differ by some 1e-2 from batch to batch, and so would its demonstrations.
            model[0].auto_model.float().eval().requires_grad_(requires_grad=False)
            return _token_states(model[0], model.tokenizer, list(texts))

    def commit(self) -> str | None:
        """The commit of a hub model that was loaded, None for a local one."""
        with self._lock:
            revision: str | None = self._loaded().model_card_data.base_model_revision
        return revision

    def _loaded(self) -> SentenceTransformer:
        if self._model is None:
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging

            disable_cudnn_attention()
            logging.disable_progress_bar()  # it would stand among the lines of an error, and in every replica's log
            try:
                self._model = SentenceTransformer(self._name, revision=self._revision, device=self._device)
            except (OSError, ValueError, KeyError) as error:
                raise UserError(f"encoder {self._name}: cannot be loaded ({first_line(error)})") from None
        return self._model


def _token_states(module: Any, tokenizer: Any, texts: list[str]) -> list[TokenStates]:
    length = min(int(module.max_seq_length or _MAX_TOKENS), _MAX_TOKENS)
    overlap = min(_OVERLAP, max(length - tokenizer.num_special_tokens_to_add(), 0) // 4)
    tokenizer.truncation_side = "right"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    pieces = tokenizer(
        texts,
        truncation=True,
        max_length=length,
        stride=overlap,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    states = _states(module, tokenizer, pieces["input_ids"])
    owners = pieces["overflow_to_sample_mapping"]
    offsets_of: list[list[NDArray[np.int64]]] = [[] for _ in texts]
    states_of: list[list[NDArray[np.float32]]] = [[] for _ in texts]
    for i, owner in enumerate(owners):  # every text has a piece, if only one without tokens
        inner = np.flatnonzero(np.asarray(pieces["special_tokens_mask"][i]) == 0)
        first, last = i == 0 or owners[i - 1] != owner, i + 1 == len(owners) or owners[i + 1] != owner
        begin, end = 0 if first else overlap // 2, len(inner) if last else len(inner) - (overlap - overlap // 2)
        tokens_of_piece = inner[begin:end]
        offsets_of[owner].append(np.asarray(pieces["offset_mapping"][i], np.int64).reshape(-1, 2)[tokens_of_piece])
        states_of[owner].append(states[i][tokens_of_piece])
    return [
        TokenStates(np.concatenate(offsets), np.concatenate(rows))
        for offsets, rows in zip(offsets_of, states_of, strict=True)
    ]


def _states(module: Any, tokenizer: Any, pieces: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
    """States of the model's last layer, shape (tokens, dimension) for each piece; alike lengths are read together."""
    batches: list[list[int]] = [[]]
    for number in sorted(range(len(pieces)), key=lambda number: len(pieces[number])):
        if batches[-1] and (len(batches[-1]) + 1) * len(pieces[number]) > _BATCH_TOKENS:
            batches.append([])
        batches[-1].append(number)
    states: dict[int, NDArray[np.float32]] = {}
    for batch in batches:
        rows = [pieces[number] for number in batch]
        width = max(1, *map(len, rows))
        padded = tokenizer.pad({"input_ids": rows}, padding="max_length", max_length=width, padding_side="right")
        output = module.auto_model(**padded.convert_to_tensors("pt").to(module.auto_model.device))
        for number, row, state in zip(batch, rows, output.last_hidden_state.float().cpu().numpy(), strict=True):
            states[number] = state[: len(row)]
    return [states[number] for number in range(len(pieces))]
