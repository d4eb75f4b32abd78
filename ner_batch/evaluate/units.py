"""What the bootstrap draws: rows, as counts that add up.

A resample of a million rows is a million draws; but rows with the same counts are interchangeable, so it is enough to
know how many rows have which counts. That histogram adds up over shards, and drawing from it (multinomially) is the
ordinary bootstrap over rows, not an approximation. Where rows are so many and so long that each has counts of its own,
they are put into :data:`GROUPS` groups by a hash of their ids, and groups are drawn: random groups of rows vary among
each other as rows do, and the memory is bounded.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

GROUPS = 65_536
MOST_ROWS = 200_000
"""Rows beyond which groups are drawn: 200,000 rows that all differ take some 50 MB."""
CORRECT, PREDICTED, GOLD = range(3)
EXACT, PARTIAL, TYPE = range(3)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the counts of one row lie in an array of shape (runs, len(types) + 1, 3).

    Slot i holds correct, predicted and gold entities of ``types[i]``. The last slot holds, of all types, what the
    schemes count: exact, partial (twice: a whole is 2, a part 1) and type.
    """

    types: tuple[str, ...]
    runs: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one row's counts."""
        return self.runs, len(self.types) + 1, 3

    def widen(self, counts: np.ndarray, wider: Layout) -> np.ndarray:
        """Counts (n, *shape) as (n, *wider.shape); ``wider`` knows all of our types."""
        if self == wider:
            return counts
        slots = [wider.types.index(name) for name in self.types] + [len(wider.types)]
        out = np.zeros((len(counts), *wider.shape), counts.dtype)
        out[:, :, slots] = counts
        return out


@dataclass(frozen=True, slots=True)
class Units:
    """What is drawn: by the bytes of its counts (int32, in the layout), how many rows have them; or groups of rows.

    ``a + b`` is both together. Equal rows in other shards or another order give equal units.
    """

    layout: Layout
    histogram: Mapping[bytes, int]
    groups: np.ndarray | None = None

    def __add__(self, other: Units) -> Units:
        layout = Layout(
            tuple(sorted({*self.layout.types, *other.layout.types})), max(self.layout.runs, other.layout.runs)
        )
        if self.groups is not None and other.groups is not None:
            one, two = self.layout.widen(self.groups, layout), other.layout.widen(other.groups, layout)
            return Units(layout, {}, one + two)
        return Units(layout, Counter(self._as(layout)) + Counter(other._as(layout)))

    def _as(self, layout: Layout) -> Mapping[bytes, int]:
        if layout == self.layout:
            return self.histogram
        counts, times = self.arrays()
        return dict(zip(_keys(self.layout.widen(counts, layout).astype(np.int32)), times.tolist(), strict=True))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts of shape (n, *layout.shape), and how often each is there, shape (n,); in an order of its own."""
        if self.groups is not None:
            return self.groups, np.ones(len(self.groups), np.int64)
        keys = sorted(self.histogram)
        flat = np.frombuffer(b"".join(keys), np.int32).reshape(len(keys), *self.layout.shape)
        return flat, np.array([self.histogram[key] for key in keys], np.int64)

    def total(self) -> np.ndarray:
        """The counts of all rows, shape ``layout.shape``."""
        counts, times = self.arrays()
        summed: np.ndarray = np.tensordot(times, counts.astype(np.int64), 1)
        return summed


def units_of(counts: np.ndarray, layout: Layout, ids: Sequence[str], *, grouped: bool) -> Units:
    """Rows with counts of shape (n, *layout.shape) and their ids as units."""
    if not grouped:
        return Units(layout, Counter(_keys(counts.astype(np.int32))))
    groups = np.zeros((GROUPS, *layout.shape), np.int32)
    np.add.at(groups, np.fromiter((zlib.crc32(i.encode()) % GROUPS for i in ids), np.int64, len(counts)), counts)
    return Units(layout, {}, groups)


def _keys(counts: np.ndarray) -> list[bytes]:
    """The bytes of each row's counts."""
    if not len(counts):
        return []
    flat = np.ascontiguousarray(counts.reshape(len(counts), -1))
    keys: list[bytes] = flat.view(f"V{flat.dtype.itemsize * flat.shape[1]}").ravel().tolist()
    return keys
