"""A column of spans as arrays, and the plain part of the comparison: what is identical on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of many rows, sorted by row, start, end and type, each once; equal lengths.

    ``types`` are indices into a list of names. ``scores`` are NaN where there are none.
    """

    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    types: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, mask: np.ndarray) -> Spans:
        """Some of them."""
        return Spans(*(getattr(self, name)[mask] for name in self.__slots__))


def type_names(columns: Sequence[pa.ChunkedArray]) -> list[str]:
    """All types in some columns of spans, sorted."""
    found = [pc.unique(pc.struct_field(column.combine_chunks().flatten(), "type")) for column in columns]
    return sorted({name for names in found for name in names.to_pylist()})


def spans_of(column: pa.ChunkedArray, types: Sequence[str]) -> Spans:
    """A column of spans as arrays; of one span and type twice in a row the higher score stays."""
    array = column.combine_chunks()
    rows = np.repeat(np.arange(len(array)), pc.list_value_length(array).to_numpy())
    values = array.flatten()
    starts, ends = (pc.struct_field(values, name).to_numpy() for name in ("start", "end"))
    kinds = pc.index_in(pc.struct_field(values, "type"), value_set=pa.array(types, pa.string())).to_numpy()
    scores = pc.fill_null(pc.struct_field(values, "score"), float("nan")).to_numpy()
    order = np.lexsort((-scores, kinds, ends, starts, rows))  # NaN comes last
    spans = Spans(rows, starts, ends, kinds, scores).only(order)
    return spans.only(~_repeats(spans.rows, spans.starts, spans.ends, spans.types))


def identical(gold: Spans, predicted: Spans) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the gold and of the predicted spans that the other side has too, with their type."""
    keys = [np.concatenate([getattr(s, n) for s in (gold, predicted)]) for n in ("types", "ends", "starts", "rows")]
    order = np.lexsort(keys)
    second = np.flatnonzero(_repeats(*(key[order] for key in keys)))
    both = np.zeros(len(order), bool)
    both[order[second]] = both[order[second - 1]] = True  # each side has a span once, so a repeat is of both sides
    return both[: len(gold)], both[len(gold) :]


def _repeats(*keys: np.ndarray) -> np.ndarray:
    """Where all keys are those of the entry before."""
    same = np.ones(len(keys[0]), bool)
    same[:1] = False
    for key in keys:
        same[1:] &= key[1:] == key[:-1]
    return same
