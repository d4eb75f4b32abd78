"""Demonstrations of verification: the gold mentions and non-mentions most like the entity asked about.

After GPT-NER (Wang et al., 2025), but with as many false claims as true ones. What can be claimed of an example are its
gold mentions; near misses, gold mentions with one edge moved; and coincidences, gold mentions of other examples between
word boundaries in this one. Claimed as type T a surface is true where the example has (surface, T) as gold.

Likeness is exact, by cosine: of TF-IDF of the character n-grams of surface and context, weighted; or, given an
encoder, of the mean state of the mention's tokens in its text. Ties go to the earlier example. By letters, Resume's
3,803 training texts make 48,260 places: 1.6 CPU-seconds, 32 MB, 0.8 CPU-ms a question; likeness alone tells true claims
about dev from near misses with an AUROC of 0.96 (0.92 without context): ``tests/benchmarks/bench_mention.py``.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ner_batch.data import Entity, Example
from ner_batch.retrieval.encoder import Encoder
from ner_batch.retrieval.lexical import QUERY_BLOCK, NgramTfidf
from ner_batch.retrieval.vectors import top_ranked
from ner_batch.text import boundaries
from ner_batch.verification.examples import VerificationExample, shift_boundary, word_edges

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SCHEME = "mentions 2"  # part of a run's fingerprint: change it with anything that changes which claims are shown
CONTEXT = 4  # code points on either side; 16 tell less: what stands next to a mention says most about its edges
SURFACE = 0.7  # of the likeness; the rest is the context's
NEAR_MISSES = 2  # per gold mention
COINCIDENCES = 4  # per example
_EDGE = "\x02"  # stands at the edges of surfaces and in the place of the surface in its context
_LEFT_OUT = -1.0


@dataclass(frozen=True, slots=True)
class Mention:
    """An entity of a text: one that is asked about, or one that can be claimed, whose type is left open.

    ``origin`` is the text that its text was made of, where it was changed for training.
    """

    text: str
    entity: Entity
    origin: str = ""


class Pool:
    """All that can be claimed about gold examples. Safe to search from several threads.

    With an ``encoder`` likeness is the cosine of mean token states, below 0 taken for 0; those of all places are kept
    in memory, shape (dimension, places), float32.
    """

    def __init__(self, examples: Iterable[Example], encoder: Encoder | None = None) -> None:
        self._encoder = encoder
        distinct: dict[str, Example] = {}
        for example in examples:
            distinct.setdefault(example.text.strip(), example)
        self.places: list[Mention] = []
        self._own: dict[str, slice] = {}
        self._true: dict[str, list[int]] = defaultdict(list)
        surfaces = {e.text for x in distinct.values() for e in x.entities if e.text.strip()}
        lengths: dict[str, set[int]] = defaultdict(set)  # of surfaces, by their first two code points
        for surface in surfaces:
            lengths[surface[:2]].add(len(surface))
        for stripped, example in distinct.items():
            begin = len(self.places)
            gold = {(entity.text, entity.type) for entity in example.entities}
            for entity in _claimable(example, surfaces, lengths):
                for surface, label in gold:
                    if surface == entity.text:
                        self._true[label].append(len(self.places))
                self.places.append(Mention(example.text, entity))
            self._own[stripped] = slice(begin, len(self.places))
        self._surface_tfidf, self._context_tfidf = NgramTfidf(), NgramTfidf()
        if self.places and encoder:
            self._of_places = _encoded(encoder, self.places).T  # dimension x places
        elif self.places:
            self._postings = self._vectors(self.places, fit=True).T.tocsr()  # features x places

    def nearest(self, queries: Sequence[Mention], k: int) -> list[list[VerificationExample]]:
        """Up to ``k`` examples per query under the type asked about, the nearest LAST; none of the query's own text.

        Half of them are true and half false; of an odd number the kind whose next one is nearer has one more. Where
        one kind runs short the other does too: one-sided demonstrations would tell the answer.
        """
        if k == 0 or not self.places:
            return [[] for _ in queries]
        demonstrations = []
        for start in range(0, len(queries), QUERY_BLOCK):
            block = queries[start : start + QUERY_BLOCK]
            scores = self.scores(block)
            demonstrations += [self._examples(query, row, k) for query, row in zip(block, scores, strict=True)]
        return demonstrations

    def scores(self, queries: Sequence[Mention]) -> NDArray[np.float32]:
        """How like every place is to each query, shape (queries, places); below 0 where it is of the query's text."""
        if self._encoder:
            scores = (_encoded(self._encoder, queries) @ self._of_places).clip(min=0)
        else:
            scores = np.asarray((self._vectors(queries) @ self._postings).toarray(), np.float32)
        for row, query in zip(scores, queries, strict=True):
            for text in (query.text, query.origin):
                row[self._own.get(text.strip(), slice(0))] = _LEFT_OUT
        return scores

    def _vectors(self, mentions: Sequence[Mention], *, fit: bool = False) -> csr_matrix:
        """N-grams of surfaces and contexts, weighted so that products are cosines, shape (mentions, features)."""
        from scipy.sparse import hstack

        surfaces = [f"{_EDGE}{m.entity.text}{_EDGE}" for m in mentions]
        places = [(m.text, m.entity.start, m.entity.end) for m in mentions]
        contexts = [t[max(0, start - CONTEXT) : start] + _EDGE + t[end : end + CONTEXT] for t, start, end in places]
        sides = ((self._surface_tfidf, surfaces, SURFACE), (self._context_tfidf, contexts, 1 - SURFACE))
        parts = [(tfidf.fit_transform(t) if fit else tfidf.transform(t)) * sqrt(share) for tfidf, t, share in sides]
        return hstack(parts, format="csr", dtype=np.float32)

    def _examples(self, query: Mention, scores: NDArray[np.float32], k: int) -> list[VerificationExample]:
        """The claims to show, out of the likeness of every place, which is changed."""
        label, most = query.entity.type, -(-k // 2)
        gold = np.asarray(self._true.get(label, ()), np.int64)
        true = [(*hit, True) for hit in _best(scores, gold, most)]
        scores[gold] = _LEFT_OUT
        false = [(*hit, False) for hit in _best(scores, np.arange(len(scores)), most)]
        half = min(k // 2, len(true), len(false))
        more = sorted([*true[half:], *false[half:]])[: k % 2]
        hits = sorted([*true[:half], *false[:half], *more], reverse=True)
        places = [(self.places[number], is_true) for _, number, is_true in hits]
        return [VerificationExample(p.text, replace(p.entity, type=label), is_true) for p, is_true in places]


def _encoded(encoder: Encoder, mentions: Sequence[Mention]) -> NDArray[np.float32]:
    """The mean state of each mention's tokens in its text, of length 1; zeros where it has no token."""
    of_text: dict[str, list[int]] = defaultdict(list)
    for number, mention in enumerate(mentions):
        of_text[mention.text].append(number)
    texts, vectors = list(of_text), {}
    for start in range(0, len(texts), QUERY_BLOCK):
        batch = texts[start : start + QUERY_BLOCK]
        for text, tokens in zip(batch, encoder.tokens(batch), strict=True):
            for number in of_text[text]:
                span = mentions[number].entity
                inside = (tokens.offsets[:, 0] < span.end) & (tokens.offsets[:, 1] > span.start)
                mean = tokens.states[inside].mean(axis=0) if inside.any() else np.zeros(tokens.states.shape[1])
                vectors[number] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return np.stack([vectors[number] for number in range(len(mentions))], dtype=np.float32)


def _best(scores: NDArray[np.float32], numbers: NDArray[np.int64], count: int) -> list[tuple[int, int]]:
    """(minus the score, number) of the ``count`` nearest of some places, nearest first, without those left out."""
    if not len(numbers):
        return []
    (best,) = top_ranked(scores[None, numbers], numbers[None], min(count, len(numbers)))
    return [(-round(float(scores[number]) * 1e5), number) for number in best if scores[number] >= 0]


def _claimable(example: Example, surfaces: set[str], lengths: Mapping[str, set[int]]) -> list[Entity]:
    """A place for every surface of an example that can be claimed: its first gold one, if there is one."""
    text, edges = example.text, word_edges(example.text)
    gold = [entity for entity in example.entities if entity.text.strip()]
    own = {entity.text for entity in gold}
    claimable: dict[str, Entity] = {}
    for entity in gold:
        claimable.setdefault(entity.text, entity)
    for entity in gold:
        moved = {e.text: e for e in shift_boundary(text, entity, edges)}
        candidates = [e for surface, e in moved.items() if surface not in own]
        draw = random.Random(f"{text}\0{entity.start}\0{entity.end}")  # noqa: S311 - repeatable, not secret
        for near_miss in draw.sample(candidates, min(NEAR_MISSES, len(candidates))):
            claimable.setdefault(near_miss.text, near_miss)
    places = sorted(_occurrences(text, surfaces, lengths), reverse=True)
    others = {e.text: e for e in places if e.text not in claimable}
    longest = sorted(others.values(), key=lambda e: (-len(e.text), e.start))
    return [*claimable.values(), *longest[:COINCIDENCES]]


def _occurrences(text: str, surfaces: set[str], lengths: Mapping[str, set[int]]) -> Iterator[Entity]:
    """All places of all surfaces in a text between word boundaries, without a type."""
    cuts = boundaries.cuts(text)
    for start in (i for i in range(len(text)) if cuts[i]):
        for beginning in dict.fromkeys((text[start], text[start : start + 2])):
            for end in (start + length for length in lengths.get(beginning, ())):
                if end <= len(text) and cuts[end] and text[start:end] in surfaces:
                    yield Entity(start, end, "", text[start:end])
