"""How random, lexical and sentence indexes find their examples: vectors written once, and a search over them.

All searches are exact up to 200,000 examples, lexical ones always. Per query over 50,000 examples, in batches of 256,
one core: lexical 1.3 ms; sentence 0.9 ms of 768 dimensions, and 5.4 ms one by one, for each call reads all vectors
(``tests/benchmarks/bench_retrieval.py``).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ner_batch.errors import UserError
from ner_batch.retrieval import vectors
from ner_batch.retrieval.encoder import Encoder
from ner_batch.retrieval.vectors import Lists, Nearest

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Search = Callable[[Sequence[str], int], Sequence[Sequence[int]]]
"""(texts, count) -> for each text the numbers of its ``count`` nearest examples, nearest first."""

_SPARSE, _IDF = "vectors.npz", "idf.npy"


def random_search(size: int, seed: int) -> Search:
    """A draw that depends on seed and text alone, so a run that was resumed asks the same prompts."""

    def draw(text: str, count: int) -> list[int]:
        digest = hashlib.sha256(f"{seed}\0{text}".encode()).digest()
        return random.Random(digest).sample(range(size), count)  # noqa: S311 - a draw to repeat, not a secret

    return lambda texts, count: [draw(text, count) for text in texts]


def ranked(scores: NDArray[np.float32], numbers: NDArray[np.int64], count: int) -> list[list[int]]:
    """Per row the ``count`` numbers of the highest scores, highest first, ties by the smaller number.

    Scores are rounded to five decimals first: the same text scores some 1e-7 differently in another batch, and must
    still get the same demonstrations.
    """
    width = int(numbers.max()) + 1
    keys = np.rint(scores * 1e5).astype(np.int64) * width - numbers
    if count < keys.shape[1]:
        best = np.argpartition(keys, -count, axis=1)[:, -count:]
        keys, numbers = np.take_along_axis(keys, best, 1), np.take_along_axis(numbers, best, 1)
    order = np.argsort(-keys, axis=1)
    ranked: list[list[int]] = np.take_along_axis(numbers, order, 1).tolist()
    return ranked


# --- lexical ---

_FEATURES = 2**20  # 4 MiB of weights; 2**18 is as good on 8,000 examples and fuller on more
QUERY_BLOCK = 32  # texts scored together: 32 x 50,000 examples is 6 MB of scores


def ngram_counts(texts: Sequence[str]) -> csr_matrix:
    """Term frequencies of character 1- to 3-grams, damped as 1 + log(tf); hashed, so there is no vocabulary to keep.

    Characters serve Chinese and English alike. Case stays: it marks names (GUM, k=4: 10.6 % of a text's gold mentions
    occur in its demonstrations, 7.9 % in lower case). Damping keeps long examples from winning on spaces and vowels
    (GUM 6.6 to 10.6 %; Resume 40.9 to 41.5 %).
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        analyzer="char",
        ngram_range=(1, 3),
        lowercase=False,
        n_features=_FEATURES,
        alternate_sign=False,
        norm=None,
        dtype=np.float32,
    )
    counts = vectorizer.transform(texts)
    counts.data = 1 + np.log(counts.data)
    return counts


def idf(counts: csr_matrix) -> NDArray[np.float32]:
    """Smoothed inverse document frequency per feature; 0 for those in over a quarter of many examples.

    They hardly rank anything (Resume, mean overlap of entity types: 0.787 with and 0.789 without the cut) and fill
    more than half of the postings that a search must read.
    """
    size = counts.shape[0]
    frequency = np.bincount(counts.indices, minlength=_FEATURES)
    weights = np.log((1 + size) / (1 + frequency)) + 1
    weights[frequency > max(size / 4, 1000)] = 0
    return np.asarray(weights, np.float32)


def weighted(counts: csr_matrix, weights: NDArray[np.float32]) -> csr_matrix:
    """L2-normalised vectors of counts; ``counts`` is used up."""
    from sklearn.preprocessing import normalize

    counts.data *= weights[counts.indices]
    counts.eliminate_zeros()
    return normalize(counts, copy=False)


def write_lexical(folder: Path, texts: Sequence[str]) -> int:
    """Vectors as postings, features x examples: a search reads the rows of the query's own n-grams only."""
    from scipy.sparse import save_npz

    counts = ngram_counts(texts)
    weights = idf(counts)
    np.save(folder / _IDF, weights)
    save_npz(folder / _SPARSE, weighted(counts, weights).T.tocsr(), compressed=False)
    return _FEATURES


def lexical_search(folder: Path, examples: int) -> Search:
    """Cosine similarity of n-gram vectors, every example scored."""
    from scipy.sparse import load_npz

    weights, postings = np.load(folder / _IDF), load_npz(folder / _SPARSE)
    if postings.shape != (_FEATURES, examples) or weights.shape != (_FEATURES,):
        raise UserError(f"{_SPARSE} is of shape {postings.shape}, {_IDF} of {weights.shape}")
    numbers = np.arange(examples)[None, :]

    def search(texts: Sequence[str], count: int) -> list[list[int]]:
        found: list[list[int]] = []
        for start in range(0, len(texts), QUERY_BLOCK):
            queries = weighted(ngram_counts(texts[start : start + QUERY_BLOCK]), weights)
            scores = (queries @ postings).toarray()
            found += ranked(scores, np.broadcast_to(numbers, scores.shape), count)
        return found

    return search


# --- sentence ---

_ENCODED = 8192  # texts sorted by length and encoded at a time; their vectors go to the disk
_SPARE = 8  # candidates beyond those asked for, so that ties at the end are broken by number too


def write_sentence(
    folder: Path, texts: Sequence[str], encoder: Encoder, flat_up_to: int = vectors.FLAT_UP_TO
) -> tuple[int, Lists | None]:
    """Write one vector per text; returns their dimension, and how they are listed if they are many."""
    batches = (encoder(texts[start : start + _ENCODED]) for start in range(0, len(texts), _ENCODED))
    return vectors.write(folder, batches, flat_up_to)


def sentence_search(nearest: Nearest, size: int, encoder: Encoder) -> Search:
    """Cosine similarity, by the search of :mod:`ner_batch.retrieval.vectors`."""

    def search(texts: Sequence[str], count: int) -> list[list[int]]:
        scores, numbers = nearest(encoder(texts), min(count + _SPARE, size))
        return ranked(scores, numbers, count)

    return search
