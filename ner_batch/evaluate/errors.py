"""Which errors a run makes, and the rows where it makes most of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ner_batch.evaluate.marking import shortened
from ner_batch.evaluate.matching import Pair, Span

Kind = Literal["correct", "type", "boundary", "type and boundary", "missed", "spurious"]
KINDS: tuple[Kind, ...] = ("correct", "type", "boundary", "type and boundary", "missed", "spurious")
CONTEXT = 60
EXCERPT = 300


def kind(pair: Pair) -> Kind:
    """What a pair of :func:`ner_batch.evaluate.matching.align` is."""
    gold, predicted = pair
    if gold is None:
        return "spurious"
    if predicted is None:
        return "missed"
    if gold[:2] == predicted[:2]:
        return "correct" if gold[2] == predicted[2] else "type"
    return "boundary" if gold[2] == predicted[2] else "type and boundary"


@dataclass(frozen=True, slots=True)
class Confusion:
    """Pairs by (kind, gold type, predicted type), "" for no partner. ``a + b`` is both together."""

    counts: Mapping[tuple[str, str, str], int] = field(default_factory=dict)

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(Counter(self.counts) + Counter(other.counts))

    def by_kind(self) -> dict[str, int]:
        """Pairs by kind."""
        return {name: sum(n for (k, _, _), n in self.counts.items() if k == name) for name in KINDS}

    def of_type(self, type_: str) -> dict[str, int]:
        """By kind: gold entities of a type, and predicted ones that are spurious."""
        return {
            name: sum(n for (k, g, p), n in self.counts.items() if k == name and (g or p) == type_) for name in KINDS
        }


@dataclass(frozen=True, slots=True)
class Bad:
    """A row with errors: an excerpt of its text around the first error, with gold and predicted spans in it.

    ``offset`` is where the excerpt begins in the text. Spans are those that lie in the excerpt, relative to it.
    """

    id: str
    errors: int
    status: str | None
    offset: int
    text: str
    gold: tuple[Span, ...]
    predicted: tuple[Span, ...]
    gold_beyond: tuple[tuple[int, int, str, str], ...] = ()
    """Errors that do not lie in the excerpt: (start, end, type, surface), in the whole text."""
    predicted_beyond: tuple[tuple[int, int, str, str], ...] = ()

    @property
    def rank(self) -> tuple[int, str]:
        """Most errors first, then by id."""
        return -self.errors, self.id


def worst(rows: Sequence[Bad], count: int) -> tuple[Bad, ...]:
    """The ``count`` rows with the most errors."""
    return tuple(sorted(rows, key=lambda row: row.rank)[:count])


def excerpt(row: Bad) -> Bad:
    """The row, cut to :data:`EXCERPT` characters that begin just before its first error."""
    wrong = set(row.gold) ^ set(row.predicted)
    first = min((span[0] for span in wrong), default=0)
    begin = max(0, first - CONTEXT) if len(row.text) > EXCERPT else 0
    end = begin + EXCERPT
    inside, beyond = [], []
    for side in (row.gold, row.predicted):
        inside.append(tuple((s - begin, e - begin, t) for s, e, t in side if begin <= s and e <= end))
        left = sorted(wrong & {span for span in side if span[0] < begin or span[1] > end})
        beyond.append(tuple((s, e, t, shortened(row.text[s:e])) for s, e, t in left))
    cut = replace(row, offset=begin, text=row.text[begin:end], gold=inside[0], predicted=inside[1])
    return replace(cut, gold_beyond=beyond[0], predicted_beyond=beyond[1])
