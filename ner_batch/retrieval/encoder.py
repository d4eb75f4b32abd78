"""Encoders: vectors of whole texts, and the states of a text's tokens with their places in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ner_batch.errors import UserError, first_line, require_extra

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH = 64
_BATCH_TOKENS = 2048  # of one forward pass, padding included; 512 Resume texts: 1.2 CPU-s, 1.8 with 8192
_MAX_TOKENS = 512  # a model that takes more reads pieces of this length all the same: attention is quadratic
_OVERLAP = 64  # tokens that two pieces of a long text share; each half is read where it has more context


@dataclass(frozen=True, slots=True)
class TokenStates:
    """A text as an encoder reads it, special tokens left out.

    ``ids`` is of shape (tokens,), ``offsets`` (tokens, 2), code points of the text, and ``states`` (tokens, dimension).
    """

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    states: NDArray[np.float32]


class Encoder:
    """A sentence-transformers or plain Hugging Face model.

    Loaded at its first use: a driver that only checks an index needs none. One thread at a time: tokenizers are changed
    by their own use (padding, truncation) and refuse a second borrower. ``device`` None takes a GPU where there is one.
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

        Nothing is cut: a text longer than the model reads is read in pieces that overlap by 64 tokens (a quarter of
        the piece where pieces are short), and a token's state is taken from the piece that shows more of its
        surroundings.

        Raises:
            UserError: one line: the model cannot be loaded, has no token states, or its tokenizer no offsets.
        """
        if not texts:
            return []
        with self._lock:
            model = self._loaded()
            return _token_states(model[0], list(texts), _tokenizer(model, self._name))

    def commit(self) -> str | None:
        """The commit of a hub model that was loaded, None for a local one."""
        with self._lock:
            card = self._loaded().model_card_data
        revision: str | None = card.base_model_revision  # the card of a later training run would name this encoder
        return revision

    def _loaded(self) -> SentenceTransformer:
        if self._model is None:
            self._model = _load(self._name, self._revision, self._device)
        return self._model


def _load(name: str, revision: str | None, device: str | None) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(name, revision=revision, device=device)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"encoder {name}: cannot be loaded ({first_line(error)})") from None


def _tokenizer(model: SentenceTransformer, name: str) -> Any:
    """The fast tokenizer of a model that has token states; the model is in float32 and frozen afterwards.

    In bfloat16 a text's states differ by some 1e-2 from batch to batch, and so would its demonstrations.
    """
    if getattr(model[0], "auto_model", None) is None:
        raise UserError(f"encoder {name}: has no token states (it begins with a {type(model[0]).__name__})")
    if not getattr(model.tokenizer, "is_fast", False):
        raise UserError(f"encoder {name}: its tokenizer tells no character offsets; a fast one is needed")
    model[0].auto_model.float().eval().requires_grad_(requires_grad=False)
    return model.tokenizer


# --- texts in pieces ---


@dataclass(frozen=True, slots=True)
class _Piece:
    """A run of tokens that goes through the model at once; ``kept`` of its positions are read, the rest is overlap."""

    text: int
    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]]
    kept: Sequence[int]


def _token_states(module: Any, texts: list[str], tokenizer: Any) -> list[TokenStates]:
    pieces = list(_pieces(tokenizer, texts, _length(module)))
    states: list[NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(pieces)
    for batch in _batches([len(piece.ids) for piece in pieces]):
        for number, state in zip(batch, _forward(module, tokenizer, [pieces[i].ids for i in batch]), strict=True):
            states[number] = state[list(pieces[number].kept)]
    return _joined(pieces, states, len(texts))


def _length(module: Any) -> int:
    """Tokens of a piece, special ones included: what the model states, at most 512."""
    return min(int(module.max_seq_length or _MAX_TOKENS), _MAX_TOKENS)


def _pieces(tokenizer: Any, texts: list[str], length: int) -> Iterator[_Piece]:
    special = tokenizer.num_special_tokens_to_add()
    stride = min(_OVERLAP, max(length - special, 0) // 4)
    tokenizer.truncation_side = "right"
    cut = tokenizer(
        texts,
        truncation=True,
        max_length=length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    owners = cut["overflow_to_sample_mapping"]
    for i, owner in enumerate(owners):
        inner = [p for p, is_special in enumerate(cut["special_tokens_mask"][i]) if not is_special]
        first, last = i == 0 or owners[i - 1] != owner, i + 1 == len(owners) or owners[i + 1] != owner
        kept = inner[0 if first else stride // 2 : len(inner) if last else len(inner) - (stride - stride // 2)]
        yield _Piece(owner, cut["input_ids"][i], cut["offset_mapping"][i], kept)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Pieces of similar length together, as many as fit a forward pass."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[number] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _forward(module: Any, tokenizer: Any, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """States of the last layer, shape (rows, longest, dimension); rows are padded on the right."""
    from transformers import BatchEncoding

    width = max(1, *map(len, rows))
    pad = tokenizer.pad_token_id or 0
    ids = [[*row, *[pad] * (width - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    features = BatchEncoding({"input_ids": ids, "attention_mask": mask}, tensor_type="pt")
    output = module.auto_model(**features.to(module.auto_model.device))
    return np.asarray(output.last_hidden_state.float().cpu().numpy(), np.float32)


def _joined(pieces: Sequence[_Piece], states: Sequence[NDArray[np.float32]], texts: int) -> list[TokenStates]:
    """The pieces of each text put together again; every text has at least one, if only an empty one."""
    counts = [0] * texts
    for piece in pieces:
        counts[piece.text] += 1
    ends = list(accumulate(counts))
    found = []
    for end, count in zip(ends, counts, strict=True):
        mine = range(end - count, end)
        ids = [pieces[i].ids[p] for i in mine for p in pieces[i].kept]
        offsets = [pieces[i].offsets[p] for i in mine for p in pieces[i].kept]
        found.append(
            TokenStates(
                np.asarray(ids, np.int64),
                np.asarray(offsets, np.int64).reshape(-1, 2),
                np.concatenate([states[i] for i in mine]),
            )
        )
    return found
