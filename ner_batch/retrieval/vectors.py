"""Vectors on disk and the nearest of them, and kind sentence, which searches by vectors of whole texts.

Up to 200,000 vectors are memory-mapped and scanned. Of more faiss makes about 4 sqrt(n) lists by their nearest
centroid (IVFFlat), and a search reads the most promising ones: as many as at build find 95 % of what the exact scan
finds. Lists, unlike a graph, are the same bytes at each build, and a score is still the exact product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ner_batch.data import Example
from ner_batch.errors import UserError, first_line
from ner_batch.retrieval.encoder import Encoder

EXACT_SEARCH_LIMIT = 200_000
_DENSE, _LISTS = "vectors.npy", "vectors.faiss"
_RECALL, _PROBES = 0.95, 8
_SAMPLE, _DEPTH = 256, 10
SPARE = 8  # candidates searched for beyond those needed, so that ties at the end are broken by number too
_POINTS = 64  # vectors per list that the centroids are learnt from; faiss's own 256 takes four times as long

Numbered = tuple[NDArray[np.float32], NDArray[np.int64]]
Nearest = Callable[[NDArray[np.float32], int], Numbered]
"""A search: of queries (rows, dimension) and a depth, at most the number of vectors, the products and numbers of the
nearest, nearest first, both of shape (rows, depth)."""


class Lists(BaseModel):
    """An index of inverted lists, in the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lists: int
    probes: int
    """Lists read by a search."""
    recall: float
    """Share of the exact scan's ten that a search finds, over 256 of the index's own vectors, each without itself."""


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """What a kind of index wrote beside the examples; the fields of the manifest."""

    dimension: int = 0
    mentions: int | None = None
    lists: Lists | None = None


def write(folder: Path, vectors: NDArray[np.float32], exact_search_limit: int = EXACT_SEARCH_LIMIT) -> StoredVectors:
    """Write L2-normalised vectors; in lists if they are more than ``exact_search_limit``."""
    faiss = _faiss()
    rows, dimension = vectors.shape
    if rows <= exact_search_limit:
        np.save(folder / _DENSE, vectors)
        return StoredVectors(dimension)
    lists = max(1, min(round(4 * rows**0.5), rows // _POINTS))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid, index.cp.min_points_per_centroid, index.cp.spherical = _POINTS, 1, True
    index.train(vectors[:: max(1, rows // (lists * _POINTS))])
    index.add(vectors)
    faiss.write_index(index, str(folder / _LISTS))
    return StoredVectors(dimension, lists=_measured(index, vectors))


def _measured(index: Any, vectors: NDArray[np.float32]) -> Lists:
    """The fewest probes (8, 16, 32 ...) with the recall wanted, all lists at the most."""
    faiss = _faiss()
    sample = np.unique(np.linspace(0, len(vectors) - 1, _SAMPLE).astype(np.int64))
    queries, depth = np.ascontiguousarray(vectors[sample]), min(_DEPTH + 1, len(vectors))
    scanned = faiss.knn(queries, vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)[1].tolist()
    exact = [set(numbers) - {number} for numbers, number in zip(scanned, sample.tolist(), strict=True)]
    probes = min(_PROBES, index.nlist)
    while True:
        probed = index.search(queries, depth, params=faiss.SearchParametersIVF(nprobe=probes))[1].tolist()
        hits = sum(len(nearest.intersection(numbers)) for nearest, numbers in zip(exact, probed, strict=True))
        recall = hits / sum(map(len, exact))
        if recall >= _RECALL or probes == index.nlist:
            return Lists(lists=index.nlist, probes=probes, recall=round(recall, 4))
        probes = min(2 * probes, index.nlist)


def open_nearest(folder: Path, shape: tuple[int, int], lists: Lists | None) -> Nearest:
    """A search over vectors that :func:`write` wrote, of ``shape`` (rows, dimension); a UserError where it differs."""
    faiss = _faiss()
    if lists is None:
        vectors = np.load(folder / _DENSE, mmap_mode="r")
        if vectors.shape != shape or vectors.dtype != np.float32:
            raise UserError(f"{_DENSE} is {vectors.dtype} of shape {vectors.shape}")
        return lambda queries, depth: faiss.knn(queries, vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)
    try:
        index = faiss.read_index(str(folder / _LISTS), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        raise UserError(f"{_LISTS}: {first_line(error)[-200:]}") from None
    if (index.ntotal, index.d) != shape or index.nlist != lists.lists:
        raise UserError(f"{_LISTS} is of shape {(index.ntotal, index.d)} in {index.nlist} lists")
    few, all_of_them = (faiss.SearchParametersIVF(nprobe=count) for count in (lists.probes, index.nlist))

    def nearest(queries: NDArray[np.float32], depth: int) -> Numbered:
        scores, numbers = index.search(queries, depth, params=few)
        short = numbers[:, -1] < 0  # the lists that were read hold fewer than asked for
        if short.any():
            scores[short], numbers[short] = index.search(queries[short], depth, params=all_of_them)
        return scores, numbers

    return nearest


def top_ranked(scores: NDArray[np.float32], numbers: NDArray[np.int64], count: int) -> list[list[int]]:
    """Per row the ``count`` numbers of the highest scores, highest first, ties by the smaller number.

    Both arrays are of shape (rows, candidates). Scores are rounded to five decimals first: the same text scores some
    1e-7 differently in another batch, and must still get the same demonstrations.
    """
    width = int(numbers.max()) + 1
    keys = np.rint(scores * 1e5).astype(np.int64) * width - numbers
    if count < keys.shape[1]:
        best = np.argpartition(keys, -count, axis=1)[:, -count:]
        keys, numbers = np.take_along_axis(keys, best, 1), np.take_along_axis(numbers, best, 1)
    order = np.argsort(-keys, axis=1)
    ranked: list[list[int]] = np.take_along_axis(numbers, order, 1).tolist()
    return ranked


class SentenceSearch:
    """Cosine similarity of whole texts by any sentence-transformers encoder; raises as :func:`open_nearest`."""

    def __init__(self, folder: Path, examples: int, stored: StoredVectors, encoder: Encoder) -> None:
        self.nearest = open_nearest(folder, (examples, stored.dimension), stored.lists)
        self.size, self.encoder = examples, encoder

    @staticmethod
    def write(folder: Path, examples: Sequence[Example], encoder: Encoder, exact_search_limit: int) -> StoredVectors:
        """Write one vector per example."""
        return write(folder, encoder([example.text for example in examples]), exact_search_limit)

    def search(self, texts: Sequence[str], count: int) -> list[list[int]]:
        """For each text the numbers of its ``count`` nearest examples, nearest first."""
        scores, numbers = self.nearest(self.encoder(texts), min(count + SPARE, self.size))
        return top_ranked(scores, numbers, count)


def _faiss() -> Any:
    import faiss  # its stubs are wrong

    return faiss
