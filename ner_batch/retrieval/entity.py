"""Entity-level search: the gold mentions nearest to what stands in a text vote for their sentences.

After GPT-NER (Wang et al., 2025, section on entity-level embedding), without a model trained for NER and without gold
on the side of the text:

1. A gold mention's vector is the mean of its tokens' states (last layer of any encoder, in its sentence),
   L2-normalised. A token that reaches over the mention's edge belongs to it.
2. A text's n-grams are its runs of one to three words with a letter or digit at both ends; their vectors are made
   the same way. Words end where a mention may end (:mod:`ner_batch.text.boundaries`): in scripts without spaces every
   character, or token of several, is one, so longer mentions there are found by their parts.
3. Each n-gram finds its eight nearest mentions by cosine, those in the text itself left out. Of n-grams that overlap
   the one nearest to its mention stays.
4. Spans vote in rounds: in the first each, nearest first, for the sentence of its nearest mention, then for that of its
   second nearest, and so on. A sentence comes in once, where it is first voted for.
5. Quotas: among the first n sentences at most n // 2 + 1 were voted in by mentions of one type, as long as other types
   wait. So fewer demonstrations are always the nearest of more.
6. Where the votes name too few, a draw by text and seed (as kind ``random``) fills up behind. Only there can an example
   without entities come in: nobody votes for it.

Ties go to the earlier mention and the earlier span. Texts of any length are read whole (:meth:`Encoder.tokens`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, pairwise, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.retrieval import vectors
from ner_batch.retrieval.encoder import Encoder, TokenStates
from ner_batch.retrieval.lexical import RandomSearch
from ner_batch.retrieval.vectors import SPARE, StoredVectors, top_ranked
from ner_batch.text import boundaries

NEIGHBOURS = 8  # mentions per n-gram: as many rounds of votes
WORDS = 3  # longest n-gram; six find 29.7 % of Resume's surfaces instead of 29.0 for twice the work, one 24.1
_BATCH = 64  # texts encoded and searched together
_NEVER = -2  # below any cosine
_MENTIONS = "mentions.npy"

Hit = tuple[int, int]
"""(example, type) of a mention that was found, both as numbers."""


class EntitySearch:
    """Votes of the nearest mentions that :meth:`write` wrote; a UserError where they do not fit, or are torn."""

    def __init__(
        self, folder: Path, examples: Sequence[Example], stored: StoredVectors, seed: int, encoder: Encoder
    ) -> None:
        shape = (stored.mentions or 0, stored.dimension)
        self.table = np.load(folder / _MENTIONS)
        if self.table.shape != (shape[0], 2) or self.table.dtype != np.int32:
            raise UserError(f"{_MENTIONS} is {self.table.dtype} of shape {self.table.shape}")
        self.nearest, self.encoder = vectors.open_nearest(folder, shape, stored.lists), encoder
        self._mentions_per_example = np.bincount(self.table[:, 0], minlength=len(examples))
        self._number_of = {example.text.strip(): number for number, example in enumerate(examples)}
        self._fill = RandomSearch(len(examples), seed)

    @staticmethod
    def write(folder: Path, examples: Sequence[Example], encoder: Encoder, exact_search_limit: int) -> StoredVectors:
        """Write the vectors of all mentions, and whose they are; a UserError where none has a token of the encoder."""
        names = sorted({entity.type for example in examples for entity in example.entities})
        types = {name: number for number, name in enumerate(names)}
        annotated = [(number, example) for number, example in enumerate(examples) if example.entities]
        table: list[Hit] = []
        means: list[NDArray[np.float32]] = []
        for start in range(0, len(annotated), _BATCH):
            batch = annotated[start : start + _BATCH]
            tokens = encoder.tokens([example.text for _, example in batch])
            for (number, example), text in zip(batch, tokens, strict=True):
                for entity in example.entities:
                    inside = (text.offsets[:, 0] < entity.end) & (text.offsets[:, 1] > entity.start)
                    if inside.any():
                        table.append((number, types[entity.type]))
                        means.append(text.states[inside].mean(axis=0))
        if not table:
            raise UserError("no mention has a token of the encoder: choose another encoder or kind")
        np.save(folder / _MENTIONS, np.asarray(table, np.int32))
        return replace(vectors.write(folder, _unit(np.stack(means)), exact_search_limit), mentions=len(table))

    def search(self, texts: Sequence[str], count: int) -> list[list[int]]:
        """For each text the numbers of ``count`` examples, the first elected first."""
        lines: list[list[list[Hit]]] = []
        for start in range(0, len(texts), _BATCH):
            lines += self._lines(texts[start : start + _BATCH])
        return [
            list(islice(dict.fromkeys([*select_by_votes(line, count), *fill]), count))
            for line, fill in zip(lines, self._fill.search(texts, count), strict=True)
        ]

    def _lines(self, texts: Sequence[str]) -> list[list[list[Hit]]]:
        """Each text as a line of spans that do not overlap, the nearest to its mention first, with their hits."""
        grams = [n_grams(text, tokens) for text, tokens in zip(texts, self.encoder.tokens(texts), strict=True)]
        counts = [len(spans) for spans, _ in grams]
        if not any(counts):
            return [[] for _ in texts]
        owners = np.repeat([self._number_of.get(text.strip(), -1) for text in texts], counts)
        similarities, hits = self._hits(np.concatenate([rows for spans, rows in grams if spans]), owners)
        lines, first = [], 0
        for spans, _ in grams:
            taken: set[int] = set()
            line = []
            for n in sorted(range(len(spans)), key=lambda n: (-similarities[first + n], spans[n])):
                if taken.isdisjoint(range(*spans[n])):
                    taken.update(range(*spans[n]))
                    line.append(hits[first + n])
            lines.append(line)
            first += len(spans)
        return lines

    def _hits(self, queries: NDArray[np.float32], owners: NDArray[np.int64]) -> tuple[list[int], list[list[Hit]]]:
        """For each query its similarity to the nearest mention, in hundred-thousandths, and its nearest mentions.

        Those of the example that the query's text is (``owners``, -1 for none) are searched for too, and thrown away.
        """
        own = np.where(owners < 0, 0, self._mentions_per_example[owners])
        similarities = np.zeros(len(queries), np.int64)
        hits: list[list[Hit]] = [[] for _ in queries]
        for count in np.unique(own).tolist():
            rows = np.flatnonzero(own == count)
            scores, numbers = self.nearest(queries[rows], min(NEIGHBOURS + SPARE + count, len(self.table)))
            scores[self.table[numbers, 0] == owners[rows, None]] = _NEVER
            similarities[rows] = np.rint(scores.max(axis=1) * 1e5)
            ranked = self.table[np.asarray(top_ranked(scores, numbers, NEIGHBOURS))].tolist()
            for row, pairs in zip(rows.tolist(), ranked, strict=True):
                hits[row] = [(example, kind) for example, kind in pairs if example != owners[row]]
        return similarities.tolist(), hits


def n_grams(text: str, tokens: TokenStates) -> tuple[list[tuple[int, int]], NDArray[np.float32]]:
    """Runs of one to three words: their half-open spans in words, in order, and vectors of shape (spans, dimension)."""
    may_begin = boundaries.cuts(text)
    begins = [i for i, (start, _) in enumerate(tokens.offsets.tolist()) if i == 0 or may_begin[start]]
    words = list(pairwise([*begins, len(tokens.offsets)]))  # runs of tokens, half-open
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
    return spans, _unit(np.asarray(means, np.float32).reshape(len(spans), tokens.states.shape[1]))


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)


def select_by_votes(line: Sequence[Sequence[Hit]], count: int) -> list[int]:
    """Up to ``count`` sentences in the order of rounds and spans, each once, within the quotas of the types."""
    type_of: dict[int, int] = {}
    for example, kind in (hit for votes in zip_longest(*line) for hit in votes if hit is not None):
        type_of.setdefault(example, kind)
    waiting = list(type_of.items())
    brought: Counter[int] = Counter()
    selection: list[int] = []
    for n in range(1, min(count, len(waiting)) + 1):
        # The first in line whose type has room; the first of all where none has.
        place = next((i for i, (_, kind) in enumerate(waiting) if brought[kind] < n // 2 + 1), 0)
        example, kind = waiting.pop(place)
        brought[kind] += 1
        selection.append(example)
    return selection
