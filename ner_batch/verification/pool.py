"""Demonstrations of verification: the gold mentions and non-mentions most like the entity asked about.

After GPT-NER (Wang et al., 2025), whose self-verification looks for them by kNN; here with as many false claims as true
ones, and hard ones. What can be claimed is a surface of an example:

1. its gold mentions;
2. near misses: of every gold mention two runs of words with one edge moved (:func:`.examples.moved`);
3. coincidences: gold mentions of other examples that stand in this one between word boundaries and are none here, at
   most four an example, the longest first.

A surface that stands in an example more than once is there once, at its first gold place, because the question is about
words, not about a place. Claimed as type T it is true where the example has (surface, T) as gold, and false otherwise:
so other examples' mentions of the same words under another type are false claims too.

Likeness is lexical, without any model: cosines of damped TF-IDF of character n-grams (:mod:`.searches`), that of the
surface between its edges and that of its context, weighted. It is exact. Ties go to the earlier example.

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
from ner_batch.retrieval.searches import QUERY_BLOCK, idf, ngram_counts, ranked, weighted
from ner_batch.text import boundaries
from ner_batch.verification.examples import Claim, moved, word_edges

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
class Asked:
    """An entity asked about. ``origin`` is the text that its text was made of, where it was changed for training."""

    text: str
    entity: Entity
    origin: str = ""


class Pool:
    """All that can be claimed about gold examples. Safe to search from several threads."""

    def __init__(self, examples: Iterable[Example]) -> None:
        distinct: dict[str, Example] = {}
        for example in examples:
            distinct.setdefault(example.text.strip(), example)
        self.places: list[Asked] = []
        self._own: dict[str, slice] = {}
        self._true: dict[str, list[int]] = defaultdict(list)
        surfaces = _Surfaces(e.text for x in distinct.values() for e in x.entities)
        for stripped, example in distinct.items():
            begin = len(self.places)
            self._add(example, surfaces)
            self._own[stripped] = slice(begin, len(self.places))
        self._likeness = _Likeness(self.places) if self.places else None

    def _add(self, example: Example, surfaces: _Surfaces) -> None:
        types: dict[str, dict[str, None]] = defaultdict(dict)
        for entity in example.entities:
            types[entity.text][entity.type] = None
        for surface, entity in _claimable(example, surfaces).items():
            for label in types.get(surface, ()):
                self._true[label].append(len(self.places))
            self.places.append(Asked(example.text, entity))

    def nearest(self, asked: Sequence[Asked], k: int) -> list[list[Claim]]:
        """Up to ``k`` claims per question under the type asked about, the nearest LAST; see :meth:`Index.nearest`.

        Half of them are true and half false; of an odd number the kind whose next claim is nearer has one more. Where
        one kind runs short the other does too: one-sided demonstrations would tell the answer. None is about
        the text itself or its origin, outer white space aside. What else is asked makes no difference.
        """
        found: list[list[Claim]] = [[] for _ in asked]
        if k == 0 or self._likeness is None:
            return found
        size = min(QUERY_BLOCK, max(1, _SCORES // len(self.places)))
        for label, numbers in _by_type(asked).items():
            for start in range(0, len(numbers), size):
                block = numbers[start : start + size]
                scores = self._scores(self._likeness, [asked[i] for i in block])
                for i, claims in zip(block, self._claims(scores, label, k), strict=True):
                    found[i] = claims
        return found

    def _scores(self, likeness: _Likeness, asked: Sequence[Asked]) -> NDArray[np.float32]:
        """How like every place is to each question, below 0 where it is of the question's own text."""
        scores = likeness.scores(asked)
        for row, one in zip(scores, asked, strict=True):
            for text in (one.text, one.origin):
                row[self._own.get(text.strip(), slice(0))] = _LEFT_OUT
        return scores

    def _claims(self, scores: NDArray[np.float32], label: str, k: int) -> Iterator[list[Claim]]:
        most = -(-k // 2)
        gold = np.asarray(self._true.get(label, ()), np.int64)
        true = _best(scores[:, gold], gold, most)
        scores[:, gold] = _LEFT_OUT
        false = _best(scores, np.arange(len(self.places)), most)
        for yes, no in zip(true, false, strict=True):
            yield [self._claim(number, label, is_true) for _, number, is_true in _halves(yes, no, k)]

    def _claim(self, number: int, label: str, true: bool) -> Claim:
        place = self.places[number]
        return Claim(place.text, replace(place.entity, type=label), true)


def _by_type(asked: Sequence[Asked]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for i, one in enumerate(asked):
        found[one.entity.type].append(i)
    return found


Hit = tuple[float, int]
"""(minus the score, number) of a place: hits in order are the nearest first."""


def _best(scores: NDArray[np.float32], numbers: NDArray[np.int64], count: int) -> list[list[Hit]]:
    """Per row the ``count`` nearest of the places ``numbers``, nearest first, without those that are left out."""
    if not len(numbers):
        return [[] for _ in scores]
    columns = np.broadcast_to(np.arange(len(numbers)), scores.shape)
    order = ranked(scores, columns, min(count, len(numbers)))
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


class _Surfaces:
    """Gold surfaces, found wherever they stand between word boundaries."""

    def __init__(self, surfaces: Iterable[str]) -> None:
        self.known = {surface for surface in surfaces if surface.strip()}
        self.lengths: dict[str, set[int]] = defaultdict(set)  # by the first two code points
        for surface in self.known:
            self.lengths[surface[:2]].add(len(surface))

    def standing(self, text: str) -> Iterator[Entity]:
        """All places of all surfaces in a text, without a type."""
        cuts = boundaries.cuts(text)
        for start in (i for i in range(len(text)) if cuts[i]):
            for beginning in dict.fromkeys((text[start], text[start : start + 2])):
                for end in (start + length for length in self.lengths.get(beginning, ())):
                    surface = text[start:end]
                    if end <= len(text) and cuts[end] and surface in self.known:
                        yield Entity(start, end, "", surface)


def _claimable(example: Example, surfaces: _Surfaces) -> dict[str, Entity]:
    """A place for every surface of an example that can be claimed."""
    gold = [entity for entity in example.entities if entity.text.strip()]
    found: dict[str, Entity] = {}
    for entity in chain(gold, _near_misses(example.text, gold)):
        found.setdefault(entity.text, entity)
    others = {e.text: e for e in sorted(surfaces.standing(example.text), reverse=True) if e.text not in found}
    longest = sorted(others.values(), key=lambda e: (-len(e.text), e.start))
    return {**found, **{e.text: e for e in longest[:COINCIDENCES]}}


def _near_misses(text: str, gold: Sequence[Entity]) -> Iterator[Entity]:
    edges, surfaces = word_edges(text), {entity.text for entity in gold}
    for entity in gold:
        possible = list({e.text: e for e in moved(text, entity, edges) if e.text not in surfaces}.values())
        draw = random.Random(f"{text}\0{entity.start}\0{entity.end}")  # noqa: S311 - repeatable, not secret
        yield from draw.sample(possible, min(NEAR_MISSES, len(possible)))


# --- likeness ---


class _Likeness:
    """Vectors of places: the surface's n-grams, then the context's. Kept as postings, features x places."""

    def __init__(self, places: Sequence[Asked]) -> None:
        counts = _counts(places)
        self.weights = [idf(part) for part in counts]
        self.postings = self._vectors(counts).T.tocsr()

    def scores(self, asked: Sequence[Asked]) -> NDArray[np.float32]:
        """Questions x places: 0 to 1."""
        return np.asarray((self._vectors(_counts(asked)) @ self.postings).toarray(), np.float32)

    def _vectors(self, counts: Sequence[csr_matrix]) -> csr_matrix:
        from scipy.sparse import hstack

        shares = (sqrt(SURFACE), sqrt(1 - SURFACE))
        parts = [
            weighted(part, weights) * share for part, weights, share in zip(counts, self.weights, shares, strict=True)
        ]
        return hstack(parts, format="csr", dtype=np.float32)


def _counts(places: Sequence[Asked]) -> list[csr_matrix]:
    """N-grams of the surfaces, and of what stands around them."""
    surfaces = [f"{_EDGE}{place.entity.text}{_EDGE}" for place in places]
    return [ngram_counts(surfaces), ngram_counts([_context(place.text, place.entity) for place in places])]


def _context(text: str, entity: Entity) -> str:
    return text[max(0, entity.start - CONTEXT) : entity.start] + _EDGE + text[entity.end : entity.end + CONTEXT]
