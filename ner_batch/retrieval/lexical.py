"""Kinds without a model to fetch: random, the papers' baseline, and lexical, TF-IDF of character n-grams."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.retrieval.vectors import StoredVectors, top_ranked

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

QUERY_BLOCK = 32  # texts scored together: 32 x 50,000 examples is 6 MB of scores

_FEATURES = 2**20  # 4 MiB of weights; 2**18 is as good on 8,000 examples and fuller on more
_POSTINGS, _IDF = "vectors.npz", "idf.npy"


class RandomSearch:
    """A draw out of ``size`` that depends on seed and text alone, so that a resumed run asks the same prompts."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    def search(self, texts: Sequence[str], count: int) -> list[list[int]]:
        """For each text the numbers of ``count`` examples."""
        digests = [hashlib.sha256(f"{self.seed}\0{text}".encode()).digest() for text in texts]
        return [random.Random(digest).sample(range(self.size), count) for digest in digests]  # noqa: S311 - repeatable


class NgramTfidf:
    """L2-normalised TF-IDF vectors of character 1- to 3-grams; hashed, so there is no vocabulary to keep.

    Characters serve Chinese and English alike; case marks names (GUM, k=4: 10.6 % of a text's gold mentions occur in
    its demonstrations, 7.9 % in lower case). Term frequencies are damped, or long examples win (GUM 6.6 %).
    ``idf`` is that of an earlier fit, float32 of shape (2**20,).
    """

    def __init__(self, idf: NDArray[np.float32] | None = None) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        self._hashing = HashingVectorizer(
            analyzer="char",
            ngram_range=(1, 3),
            lowercase=False,
            n_features=_FEATURES,
            alternate_sign=False,
            norm=None,
            dtype=np.float32,
        )
        self.tfidf = TfidfTransformer(sublinear_tf=True)
        if idf is not None:
            self.tfidf.idf_ = idf

    def fit_transform(self, texts: Sequence[str]) -> csr_matrix:
        """Learn the document frequencies of the texts; returns their vectors, shape (texts, 2**20)."""
        counts = self._hashing.transform(texts)
        self.tfidf.fit(counts)
        # N-grams in over a quarter of many texts are more than half of the postings, and hardly rank anything.
        frequency = np.bincount(counts.indices, minlength=_FEATURES)
        self.tfidf.idf_[frequency > max(counts.shape[0] / 4, 1000)] = 0
        return self._weighted(counts)

    def transform(self, texts: Sequence[str]) -> csr_matrix:
        """The vectors of texts by the document frequencies of the fit."""
        return self._weighted(self._hashing.transform(texts))

    def _weighted(self, counts: csr_matrix) -> csr_matrix:
        vectors = self.tfidf.transform(counts, copy=False)
        vectors.eliminate_zeros()
        return vectors


class LexicalSearch:
    """Cosine similarity of the n-gram vectors that :meth:`write` wrote; a UserError where they do not fit."""

    def __init__(self, folder: Path, examples: int) -> None:
        from scipy.sparse import load_npz

        idf, self.postings = np.load(folder / _IDF), load_npz(folder / _POSTINGS)
        if self.postings.shape != (_FEATURES, examples) or idf.shape != (_FEATURES,):
            raise UserError(f"{_POSTINGS} is of shape {self.postings.shape}, {_IDF} of {idf.shape}")
        self.tfidf = NgramTfidf(idf)

    @staticmethod
    def write(folder: Path, examples: Sequence[Example]) -> StoredVectors:
        """Write the vectors of examples."""
        from scipy.sparse import save_npz

        tfidf = NgramTfidf()
        vectors = tfidf.fit_transform([example.text for example in examples])
        np.save(folder / _IDF, tfidf.tfidf.idf_.astype(np.float32))
        # Features x examples: a search reads the rows of the query's own n-grams only.
        save_npz(folder / _POSTINGS, vectors.T.tocsr(), compressed=False)
        return StoredVectors(dimension=_FEATURES)

    def search(self, texts: Sequence[str], count: int) -> list[list[int]]:
        """For each text the numbers of its ``count`` nearest examples, nearest first."""
        numbers = np.arange(self.postings.shape[1])[None, :]
        nearest: list[list[int]] = []
        for start in range(0, len(texts), QUERY_BLOCK):
            scores = (self.tfidf.transform(texts[start : start + QUERY_BLOCK]) @ self.postings).toarray()
            nearest += top_ranked(scores, np.broadcast_to(numbers, scores.shape), count)
        return nearest
