"""Demonstrations of verification: the gold mentions and non-mentions most like the entity asked about.

After GPT-NER (Wang et al., 2025), whose self-verification looks for them by kNN; here with as many false claims as true
ones, and hard ones. What can be claimed is a surface of an example:

1. its gold mentions;
2. near misses: of every gold mention two runs of words with one edge moved (:func:`.examples.shift_boundary`);
3. coincidences: gold mentions of other examples that stand in this one between word boundaries and are none here, at
   most four an example, the longest first.

A surface that stands in an example more than once is there once, at its first gold place, because the question is about
words, not about a place. Claimed as type T it is true where the example has (surface, T) as gold, and false otherwise:
so other examples' mentions of the same words under another type are false claims too.

Likeness is lexical, without any model: cosines of damped TF-IDF of character n-grams (:class:`.NgramTfidf`), that of
the surface between its edges and that of its context, weighted. It is exact. Ties go to the earlier example.

Over Resume's 3,803 distinct training texts a pool has 48,260 places, takes 1.6 CPU-seconds and 32 MB, and answers a
question in 0.8 CPU-ms; all three grow with the places. The likeness alone tells true claims about dev from near misses
with an AUROC of 0.96 on Resume, 0.87 on Weibo and 0.88 on GUM; without context 0.92, 0.86 and 0.86, with 16 code points
of it on either side 0.94, 0.87 and 0.86: what stands next to a mention says most about its edges. Measured, with the
words that are shown, by ``tests/benchmarks/bench_mention.py``.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ner_batch.data import Entity, Example
from ner_batch.retrieval.lexical import QUERY_BLOCK, NgramTfidf
from ner_batch.retrieval.vectors import top_ranked
from ner_batch.text import boundaries
from ner_batch.verification.examples import VerificationExample, shift_boundary, word_edges

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SCHEME = "mentions 2"  # part of a run's fingerprint: change it with anything that changes which claims are shown
CONTEXT = 4  # code points on either side
SURFACE = 0.7  # of the likeness; the rest is the context's
NEAR_MISSES = 2  # per gold mention
COINCIDENCES = 4  # per example
_EDGE = "\x02"  # stands at the edges of surfaces and in the place of the surface in its context
_SCORES = 2**22  # held at a time, 16 MiB; fewer questions are scored together where there is more to claim
_LEFT_OUT = -1.0


@dataclass(frozen=True, slots=True)
class MentionQuery:
    """An entity of a text that is asked about.

    ``origin`` is the text that its text was made of, where it was changed for training.
    """

    text: str
    entity: Entity
    origin: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    """A surface that can be claimed, where it stands; its type is left open."""

    text: str
    entity: Entity


class Pool:
    """All that can be claimed about gold examples. Safe to search from several threads."""

    def __init__(self, examples: Iterable[Example]) -> None:
        distinct: dict[str, Example] = {}
        for example in examples:
            distinct.setdefault(example.text.strip(), example)
        self.places: list[_Place] = []
        self._own: dict[str, slice] = {}
        self._true: dict[str, list[int]] = defaultdict(list)
        surfaces = _SurfaceFinder(e.text for x in distinct.values() for e in x.entities)
        for stripped, example in distinct.items():
            begin = len(self.places)
            self._add(example, surfaces)
            self._own[stripped] = slice(begin, len(self.places))
        self._likeness = _Likeness(self.places) if self.places else None

    def _add(self, example: Example, surfaces: _SurfaceFinder) -> None:
        types: dict[str, dict[str, None]] = defaultdict(dict)
        for entity in example.entities:
            types[entity.text][entity.type] = None
        for surface, entity in _claimable(example, surfaces).items():
            for label in types.get(surface, ()):
                self._true[label].append(len(self.places))
            self.places.append(_Place(example.text, entity))

    def nearest(self, queries: Sequence[MentionQuery], k: int) -> list[list[VerificationExample]]:
        """Up to ``k`` examples per query under the type asked about, the nearest LAST; see :meth:`Index.nearest`.

        Half of them are true and half false; of an odd number the kind whose next one is nearer has one more. Where
        one kind runs short the other does too: one-sided demonstrations would tell the answer. None is about
        the text itself or its origin, outer white space aside. What else is asked makes no difference.
        """
        demonstrations: list[list[VerificationExample]] = [[] for _ in queries]
        if k == 0 or self._likeness is None:
            return demonstrations
        numbers_by_type: dict[str, list[int]] = defaultdict(list)
        for number, query in enumerate(queries):
            numbers_by_type[query.entity.type].append(number)
        size = min(QUERY_BLOCK, max(1, _SCORES // len(self.places)))
        for label, numbers in numbers_by_type.items():
            for start in range(0, len(numbers), size):
                block = numbers[start : start + size]
                scores = self._scores(self._likeness, [queries[i] for i in block])
                for i, examples in zip(block, self._examples(scores, label, k), strict=True):
                    demonstrations[i] = examples
        return demonstrations

    def _scores(self, likeness: _Likeness, queries: Sequence[MentionQuery]) -> NDArray[np.float32]:
        """How like every place is to each query, below 0 where it is of the query's own text."""
        scores = likeness.scores(queries)
        for row, query in zip(scores, queries, strict=True):
            for text in (query.text, query.origin):
                row[self._own.get(text.strip(), slice(0))] = _LEFT_OUT
        return scores

    def _examples(self, scores: NDArray[np.float32], label: str, k: int) -> Iterator[list[VerificationExample]]:
        most = -(-k // 2)
        gold = np.asarray(self._true.get(label, ()), np.int64)
        positives = _best(scores[:, gold], gold, most)
        scores[:, gold] = _LEFT_OUT
        negatives = _best(scores, np.arange(len(self.places)), most)
        for true, false in zip(positives, negatives, strict=True):
            places = [(self.places[number], is_true) for _, number, is_true in _halves(true, false, k)]
            yield [VerificationExample(p.text, replace(p.entity, type=label), is_true) for p, is_true in places]


Hit = tuple[float, int]
"""(minus the score, number) of a place: hits in order are the nearest first."""


def _best(scores: NDArray[np.float32], numbers: NDArray[np.int64], count: int) -> list[list[Hit]]:
    """Per row the ``count`` nearest of the places ``numbers``, nearest first, without those that are left out."""
    if not len(numbers):
        return [[] for _ in scores]
    columns = np.broadcast_to(np.arange(len(numbers)), scores.shape)
    order = top_ranked(scores, columns, min(count, len(numbers)))
    return [
        [(-round(float(row[i]) * 1e5), int(numbers[i])) for i in best if row[i] >= 0]
        for row, best in zip(scores, order, strict=True)
    ]


def _halves(true: Sequence[Hit], false: Sequence[Hit], k: int) -> list[tuple[float, int, bool]]:
    """``k // 2`` of both, fewer where one kind has fewer, and where k is odd one more; the nearest last."""
    yes, no = [(*hit, True) for hit in true], [(*hit, False) for hit in false]
    half = min(k // 2, len(yes), len(no))
    more = sorted([*yes[half:], *no[half:]])[: k % 2]
    return sorted([*yes[:half], *no[:half], *more], reverse=True)


# --- what can be claimed ---


class _SurfaceFinder:
    """Gold surfaces, found wherever they stand between word boundaries."""

    def __init__(self, surfaces: Iterable[str]) -> None:
        self.known = {surface for surface in surfaces if surface.strip()}
        self.lengths: dict[str, set[int]] = defaultdict(set)  # by the first two code points
        for surface in self.known:
            self.lengths[surface[:2]].add(len(surface))

    def places(self, text: str) -> Iterator[Entity]:
        """All places of all surfaces in a text, without a type."""
        cuts = boundaries.cuts(text)
        for start in (i for i in range(len(text)) if cuts[i]):
            for beginning in dict.fromkeys((text[start], text[start : start + 2])):
                for end in (start + length for length in self.lengths.get(beginning, ())):
                    surface = text[start:end]
                    if end <= len(text) and cuts[end] and surface in self.known:
                        yield Entity(start, end, "", surface)


def _claimable(example: Example, surfaces: _SurfaceFinder) -> dict[str, Entity]:
    """A place for every surface of an example that can be claimed."""
    gold = [entity for entity in example.entities if entity.text.strip()]
    claimable: dict[str, Entity] = {}
    for entity in chain(gold, _near_misses(example.text, gold)):
        claimable.setdefault(entity.text, entity)
    others = {e.text: e for e in sorted(surfaces.places(example.text), reverse=True) if e.text not in claimable}
    longest = sorted(others.values(), key=lambda e: (-len(e.text), e.start))
    return {**claimable, **{e.text: e for e in longest[:COINCIDENCES]}}


def _near_misses(text: str, gold: Sequence[Entity]) -> Iterator[Entity]:
    edges, surfaces = word_edges(text), {entity.text for entity in gold}
    for entity in gold:
        candidates = list({e.text: e for e in shift_boundary(text, entity, edges) if e.text not in surfaces}.values())
        draw = random.Random(f"{text}\0{entity.start}\0{entity.end}")  # noqa: S311 - repeatable, not secret
        yield from draw.sample(candidates, min(NEAR_MISSES, len(candidates)))


# --- likeness ---


class _Likeness:
    """Vectors of places: the surface's n-grams, then the context's. Kept as postings, features x places."""

    def __init__(self, places: Sequence[_Place]) -> None:
        self.surface_tfidf, self.context_tfidf = NgramTfidf(), NgramTfidf()
        surfaces = self.surface_tfidf.fit_transform(_surfaces(places))
        contexts = self.context_tfidf.fit_transform(_contexts(places))
        self.postings = _joined(surfaces, contexts).T.tocsr()

    def scores(self, queries: Sequence[MentionQuery]) -> NDArray[np.float32]:
        """Cosines of queries and places, 0 to 1, shape (queries, places)."""
        surfaces = self.surface_tfidf.transform(_surfaces(queries))
        contexts = self.context_tfidf.transform(_contexts(queries))
        return np.asarray((_joined(surfaces, contexts) @ self.postings).toarray(), np.float32)


def _joined(surfaces: csr_matrix, contexts: csr_matrix) -> csr_matrix:
    from scipy.sparse import hstack

    return hstack([surfaces * sqrt(SURFACE), contexts * sqrt(1 - SURFACE)], format="csr", dtype=np.float32)


def _surfaces(places: Sequence[_Place | MentionQuery]) -> list[str]:
    return [f"{_EDGE}{place.entity.text}{_EDGE}" for place in places]


def _contexts(places: Sequence[_Place | MentionQuery]) -> list[str]:
    return [_context(place.text, place.entity) for place in places]


def _context(text: str, entity: Entity) -> str:
    return text[max(0, entity.start - CONTEXT) : entity.start] + _EDGE + text[entity.end : entity.end + CONTEXT]
