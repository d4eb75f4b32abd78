"""Kind sentence: cosine similarity of whole texts by any sentence-transformers encoder.

Exact up to 200,000 examples. 0.9 ms a query over 50,000 examples of 768 dimensions, in batches of 256 on one core, and
5.4 ms one by one, for each call reads all vectors (``tests/benchmarks/bench_retrieval.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from ner_batch.data import Example
from ner_batch.retrieval import vectors
from ner_batch.retrieval.encoder import Encoder
from ner_batch.retrieval.vectors import Nearest, StoredVectors, top_ranked

_SPARE = 8  # candidates beyond those asked for, so that ties at the end are broken by number too


class SentenceSearch:
    """Cosine similarity, by the search of :mod:`ner_batch.retrieval.vectors`."""

    def __init__(self, nearest: Nearest, size: int, encoder: Encoder) -> None:
        self.nearest = nearest
        self.size = size
        self.encoder = encoder

    @classmethod
    def write(
        cls, folder: Path, examples: Sequence[Example], encoder: Encoder, exact_search_limit: int
    ) -> StoredVectors:
        """Write one vector per example."""
        return vectors.write(folder, encoder([example.text for example in examples]), exact_search_limit)

    @classmethod
    def open(cls, folder: Path, examples: int, stored: StoredVectors, encoder: Encoder) -> Self:
        """Open what :meth:`write` wrote. Raises UserError where it is of another shape, or torn."""
        return cls(vectors.open_nearest(folder, (examples, stored.dimension), stored.lists), examples, encoder)

    def search(self, texts: Sequence[str], count: int) -> list[list[int]]:
        """For each text the numbers of its ``count`` nearest examples, nearest first."""
        scores, numbers = self.nearest(self.encoder(texts), min(count + _SPARE, self.size))
        return top_ranked(scores, numbers, count)
