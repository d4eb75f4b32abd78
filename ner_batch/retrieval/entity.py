"""Entity-level search: the gold mentions nearest to what stands in a text vote for their sentences.

After GPT-NER (Wang et al., 2025, section on entity-level embedding), without a model trained for NER and without gold
on the side of the text:

1. A gold mention's vector is the mean of its tokens' states (last layer of any encoder, in its sentence),
   L2-normalised. A token that reaches over the mention's edge belongs to it. A mention without any token (white space,
   say) has none.
2. A text's n-grams are its runs of one to three words with a letter or digit at both ends; their vectors are made
   the same way. Words end where a mention may end (:mod:`ner_batch.text.boundaries`): in scripts without spaces every
   character, or token of several, is one, so longer mentions there are found by their parts.
3. Each n-gram finds its eight nearest mentions by cosine, those in the text itself left out. Of n-grams that overlap
   the one nearest to its mention stays: what remains reads the text as one line of spans.
4. Spans vote in rounds: in the first each, nearest first, for the sentence of its nearest mention, then for that of its
   second nearest, and so on. A sentence comes in once, where it is first voted for.
5. Quotas: among the first n sentences at most n // 2 + 1 were voted in by mentions of one type, as long as other types
   wait. So fewer demonstrations are always the nearest of more.
6. Where the votes name too few, a draw by text and seed (as kind ``random``) fills up behind. Only there can an example
   without entities come in: nobody votes for it.

Ties go to the earlier mention and the earlier span. Texts of any length are read whole (:meth:`Encoder.tokens`).

Every n-gram is a query, so an exact search is dear: a text of 30 words among 100,000 mentions takes 38 ms of a core
with 192 dimensions and 136 ms with 768, beside its encoding; in lists (:class:`ner_batch.retrieval.Settings`) 6 ms with
192 (``tests/benchmarks/bench_entity.py``). What it finds: ``tests/benchmarks/bench_demonstrations.py``.

Tried with the tiny model that ships and left out, see there for the measures: all hits of all n-grams by similarity (of
Resume's surfaces 23 % instead of 30); the sum of a sentence's similarities (27); n-grams weighted by how often their
tokens are in or near entities in training (DEER, EMNLP 2025: surfaces +2 on Resume and Weibo, types -2 on Weibo and
WNUT-17).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise, zip_longest
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.retrieval import vectors
from ner_batch.retrieval.encoder import Encoder, TokenStates
from ner_batch.retrieval.sampling import RandomSearch
from ner_batch.retrieval.vectors import Nearest, StoredVectors
from ner_batch.text import boundaries

NEIGHBOURS = 8  # mentions per n-gram: as many rounds of votes
WORDS = 3  # longest n-gram; six find 29.7 % of Resume's surfaces instead of 29.0 for twice the work, one 24.1
_BATCH = 64  # texts encoded and searched together
_SPARE = 8  # mentions beyond those needed, so that ties at the end are broken by number too
_OWN = 64  # mentions of a text's own that a search finds and throws away; more are left out of it
_MENTIONS = "mentions.npy"

Hit = tuple[int, int]
"""(example, type) of a mention that was found, both as numbers."""


# --- build ---


def _mention_vectors(
    examples: Sequence[Example], encoder: Encoder, table: list[tuple[int, int]]
) -> Iterator[NDArray[np.float32]]:
    """Vectors batch by batch; ``table`` gets (example, type) of each, types numbered by their names' order."""
    types = {name: number for number, name in enumerate(type_names(examples))}
    annotated = [(number, example) for number, example in enumerate(examples) if example.entities]
    for start in range(0, len(annotated), _BATCH):
        batch = annotated[start : start + _BATCH]
        tokens = encoder.tokens([example.text for _, example in batch])
        rows: list[tuple[int, int]] = []
        means: list[NDArray[np.float32]] = []
        for (number, example), states in zip(batch, tokens, strict=True):
            for entity in example.entities:
                inside = _inside(states, entity.start, entity.end)
                if inside.any():
                    rows.append((number, types[entity.type]))
                    means.append(states.states[inside].mean(axis=0))
        if rows:
            table += rows
            yield _unit(np.stack(means))


def type_names(examples: Sequence[Example]) -> list[str]:
    """The types of examples, sorted."""
    return sorted({entity.type for example in examples for entity in example.entities})


def _inside(tokens: TokenStates, start: int, end: int) -> NDArray[np.bool_]:
    """Which tokens lie in a span, or reach into it."""
    return np.asarray((tokens.offsets[:, 0] < end) & (tokens.offsets[:, 1] > start))


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)


# --- search ---


@dataclass(frozen=True, slots=True)
class Mentions:
    """The mentions of an index."""

    table: NDArray[np.int32]
    """(example, type) of each, shape (mentions, 2), by example."""
    nearest: Nearest
    per_example: NDArray[np.int64]
    """How many an example has, up to the last that has any."""

    def counted(self, examples: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many each of some examples has; -1 is no example."""
        known = (examples >= 0) & (examples < len(self.per_example))
        return np.where(known, self.per_example[np.where(known, examples, 0)], 0)


class EntitySearch:
    """Votes of the nearest mentions, as this module tells; filled up by a draw from ``seed``."""

    def __init__(self, mentions: Mentions, examples: Sequence[Example], seed: int, encoder: Encoder) -> None:
        self.mentions = mentions
        self.encoder = encoder
        self._number_of = {example.text.strip(): number for number, example in enumerate(examples)}
        self._fill = RandomSearch(len(examples), seed)

    @classmethod
    def write(
        cls, folder: Path, examples: Sequence[Example], encoder: Encoder, exact_search_limit: int
    ) -> StoredVectors:
        """Write the vectors of all mentions, and whose they are.

        Raises:
            UserError: one line: no mention has a token of the encoder, or the encoder has no token states.
        """
        table: list[tuple[int, int]] = []
        stored = vectors.write(folder, _mention_vectors(examples, encoder, table), exact_search_limit)
        if not table:
            raise UserError("no mention has a token of the encoder: choose another encoder or kind")
        np.save(folder / _MENTIONS, np.asarray(table, np.int32))
        return replace(stored, mentions=len(table))

    @classmethod
    def open(
        cls, folder: Path, examples: Sequence[Example], stored: StoredVectors, seed: int, encoder: Encoder
    ) -> Self:
        """Open what :meth:`write` wrote. Raises UserError where it is torn."""
        shape = (stored.mentions or 0, stored.dimension)
        table = np.load(folder / _MENTIONS)
        if table.shape != (shape[0], 2) or table.dtype != np.int32:
            raise UserError(f"{_MENTIONS} is {table.dtype} of shape {table.shape}")
        nearest = vectors.open_nearest(folder, shape, stored.lists)
        return cls(Mentions(table, nearest, np.bincount(table[:, 0])), examples, seed, encoder)

    def search(self, texts: Sequence[str], count: int) -> list[list[int]]:
        """For each text the numbers of ``count`` examples, the first elected first."""
        parts = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
        lines = chain.from_iterable(_lines(self.mentions, part, self._number_of, self.encoder) for part in parts)
        return [
            list(islice(dict.fromkeys([*select_by_votes(line, count), *fill]), count))
            for line, fill in zip(lines, self._fill.search(texts, count), strict=True)
        ]


def _lines(mentions: Mentions, texts: Sequence[str], own: Mapping[str, int], encoder: Encoder) -> list[list[list[Hit]]]:
    """Each text as a line of spans with their hits."""
    grams = [n_grams(text, tokens) for text, tokens in zip(texts, encoder.tokens(texts), strict=True)]
    counts = [len(gram.spans) for gram in grams]
    if not any(counts):
        return [[] for _ in texts]
    owners = np.repeat([own.get(text.strip(), -1) for text in texts], counts)
    hits = iter(_hits(mentions, np.concatenate([gram.vectors for gram in grams if gram.spans]), owners))
    return [line_of_spans(gram.spans, list(islice(hits, len(gram.spans)))) for gram in grams]


@dataclass(frozen=True, slots=True)
class Grams:
    """A text's n-grams: ``spans`` in words, half-open, and their vectors, shape (spans, dimension)."""

    spans: list[tuple[int, int]]
    vectors: NDArray[np.float32]


def n_grams(text: str, tokens: TokenStates) -> Grams:
    """Runs of one to three words, each with a letter or digit at both ends, by their beginning and then length."""
    words = _words(text, tokens.offsets.tolist())
    is_word = [any(map(str.isalnum, text[tokens.offsets[a, 0] : tokens.offsets[b - 1, 1]])) for a, b in words]
    spans = [
        (first, last + 1)
        for first in range(len(words))
        for last in range(first, min(first + WORDS, len(words)))
        if is_word[first] and is_word[last]
    ]
    sums = np.concatenate(
        [np.zeros_like(tokens.states[:1], np.float64), np.cumsum(tokens.states, axis=0, dtype=np.float64)]
    )
    edges = [(words[first][0], words[last - 1][1]) for first, last in spans]
    means = [(sums[end] - sums[start]) / (end - start) for start, end in edges]
    return Grams(spans, _unit(np.asarray(means, np.float32).reshape(len(spans), tokens.states.shape[1])))


def _words(text: str, offsets: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Runs of tokens, half-open: one begins at each token that begins where a mention may."""
    may_begin = boundaries.cuts(text)
    begins = [i for i, (start, _) in enumerate(offsets) if i == 0 or may_begin[start]]
    return list(pairwise([*begins, len(offsets)]))


@dataclass(frozen=True, slots=True)
class NgramHits:
    """An n-gram's nearest mentions, nearest first, and its similarity to the nearest, in hundred-thousandths."""

    score: int
    hits: list[Hit]


def _hits(mentions: Mentions, queries: NDArray[np.float32], owners: NDArray[np.int64]) -> list[NgramHits]:
    """Each query's nearest mentions, none of its owner's own.

    A few of those are searched for and thrown away, all texts at once. Of a text with many the mentions lie in a row,
    and the search leaves them out: its depth would have to grow with them.
    """
    own = mentions.counted(owners)
    ngram_hits: list[NgramHits] = [NgramHits(_NEVER, [])] * len(queries)
    for owner in (-1, *np.unique(owners[own > _OWN]).tolist()):
        rows = np.flatnonzero((owners == owner) if owner >= 0 else own <= _OWN)
        first = int(np.searchsorted(mentions.table[:, 0], owner))
        without = (first, first + int(own[rows[0]])) if owner >= 0 else (0, 0)
        thrown = 0 if owner >= 0 else int(own[rows].max(initial=0))
        depth = min(NEIGHBOURS + _SPARE + thrown, len(mentions.table) - (without[1] - without[0]))
        if len(rows) and depth:
            scores, numbers = mentions.nearest(queries[rows], depth, without)
            for row, hits in zip(rows.tolist(), _ranked(mentions, scores, numbers, owners[rows]), strict=True):
                ngram_hits[row] = hits
    return ngram_hits


def _ranked(
    mentions: Mentions, scores: NDArray[np.float32], numbers: NDArray[np.int64], owners: NDArray[np.int64]
) -> list[NgramHits]:
    """Similarities are rounded to five decimals: another batch differs in the seventh, and must not rank otherwise."""
    rounded = np.rint(scores * 1e5).astype(np.int64)
    rounded[mentions.table[numbers, 0] == owners[:, None]] = _NEVER
    order = np.lexsort((numbers, -rounded), axis=1)[:, :NEIGHBOURS]
    rounded, numbers = np.take_along_axis(rounded, order, 1), np.take_along_axis(numbers, order, 1)
    pairs = mentions.table[numbers].tolist()
    return [
        NgramHits(row[0], [(n, t) for (n, t), score in zip(hits, row, strict=True) if score > _NEVER])
        for row, hits in zip(rounded.tolist(), pairs, strict=True)
    ]


_NEVER = -(10**9)


def line_of_spans(spans: Sequence[tuple[int, int]], ngram_hits: Sequence[NgramHits]) -> list[list[Hit]]:
    """The hits of spans that do not overlap, taken greedily by similarity, best first; ties to the earlier."""
    taken: set[int] = set()
    line = []
    for number in sorted(range(len(spans)), key=lambda n: (-ngram_hits[n].score, spans[n])):
        words = range(*spans[number])
        if taken.isdisjoint(words):
            taken.update(words)
            line.append(ngram_hits[number].hits)
    return line


def select_by_votes(line: Sequence[Sequence[Hit]], count: int) -> list[int]:
    """Up to ``count`` sentences in the order of rounds and spans, each once, within the quotas of the types."""
    first: dict[int, int] = {}
    for example, kind in (hit for votes in zip_longest(*line) for hit in votes if hit is not None):
        first.setdefault(example, kind)
    return list(islice(_within_quotas(list(first.items())), count))


def _within_quotas(waiting: list[Hit]) -> Iterator[int]:
    """Always the first in line whose type has room; the first of all where none has."""
    brought: Counter[int] = Counter()
    for n in range(1, len(waiting) + 1):
        place = next((i for i, (_, kind) in enumerate(waiting) if brought[kind] < n // 2 + 1), 0)
        example, kind = waiting.pop(place)
        brought[kind] += 1
        yield example
