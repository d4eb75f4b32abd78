"""Surfaces a model named, placed on the text it read.

Evidence is whole or it is none: a surface is found exactly, or in one normalised view of the text
(:mod:`ner_batch.text.folding`), else it is reported.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cache

import regex

from ner_batch.data import Entity, Ungrounded, distinct
from ner_batch.text.boundaries import cuts
from ner_batch.text.folding import INVISIBLE, Folded, fold

EMPTY = "empty"
INSIDE_A_WORD = "inside a word"
NOT_IN_TEXT = "not in text"

_INVISIBLE = regex.compile(f"[{INVISIBLE}]")
_VISIBLE = regex.compile(rf"[^\s{INVISIBLE}]")

# What models put around a mention that they were asked to copy. It is taken off only where the text has no such string.
_LIST_ITEM = regex.compile(r"(?:[-*+•·–—]|\(?\d{1,3}[.)])\s+")
_PAIRS = (
    *(("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"), ("`", "`")),
    *(('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("„", "“"), ("«", "»"), ("「", "」"), ("『", "』"), ("《", "》")),
)
_MAX_DECORATIONS = 4

Span = tuple[int, int]


def ground(mentions: Sequence[tuple[str, str]], text: str) -> tuple[tuple[Entity, ...], tuple[Ungrounded, ...]]:
    """Place ``(surface, type)`` mentions, in the order the model named them, on ``text``.

    A surface's occurrences are the exact ones or, only if there is none, the normalised ones; white space around a
    surface is not part of it, nor, where the text has no such string, are a bullet, a number, quotes or Markdown around
    it. Their edges are boundaries (:mod:`ner_batch.text.boundaries`). Mentions of one type are
    taken to be in reading order, and each takes the first free one of

    1. the occurrences from the start of the mention before it on, those inside a longer named surface last;
    2. all occurrences, likewise: the model has not kept the order. The next mention reads on from where 1 had come to.

    Free means that no other mention of the type has that span. So "Ohio" named twice is the first and the second
    "Ohio"; named more often than it occurs, it is the same entity said again. Types see of each other only what lies
    inside what. Resume's gold mentions come back with an F1 of 100.0; without "those inside last" it is 97.2.

    Returns entities, sorted by (start, end, type), each with ``text[start:end] == entity.text``; and the mentions that
    could not be placed, in the order named, with the reason "empty", "inside a word" or "not in text".
    """
    exact = _View(text, cuts(text), Folded(text, range(len(text)), {}))
    folded = cache(lambda: replace(exact, form=fold(text)))  # made when a surface first asks for it
    places = {surface: _find(surface, exact, folded) for surface in dict.fromkeys(surface for surface, _ in mentions)}
    inner = _inner([place for place in places.values() if isinstance(place, _Place)])
    readers: defaultdict[str, _Reader] = defaultdict(lambda: _Reader(inner))
    entities, ungrounded = [], []
    for surface, label in mentions:
        place = places[surface]
        if isinstance(place, _Place):
            start, end = readers[label].take(place)
            entities.append(Entity(start, end, label, text[start:end]))
        else:
            ungrounded.append(Ungrounded(surface, label, place))
    return distinct(entities), tuple(ungrounded)


class _Reader:
    """How far the mentions of one type have been read, and which spans they have taken."""

    def __init__(self, inner: AbstractSet[Span]) -> None:
        self._inner = inner
        self._cursor = 0
        self._taken_spans: set[Span] = set()
        self._exhausted_surfaces: set[str] = set()

    def take(self, place: _Place) -> Span:
        """The next of a surface's occurrences, by the rules of :func:`ground`."""
        if place.surface not in self._exhausted_surfaces:
            if span := self._free(place, self._cursor) or self._free(place, 0):
                self._cursor = max(self._cursor, span[0])
                self._taken_spans.add(span)
                return span
            self._exhausted_surfaces.add(place.surface)
        return place.first

    def _free(self, place: _Place, position: int) -> Span | None:
        first_inner = None
        for span in place.view.spans(place.needle, position):
            if span not in self._taken_spans:
                if span not in self._inner:
                    return span
                first_inner = first_inner or span
        return first_inner


@dataclass(frozen=True, slots=True)
class _Place:
    """A surface that occurs, as it is written in the view it occurs in."""

    surface: str
    needle: str
    view: _View
    first: Span


def _inner(places: Sequence[_Place]) -> set[Span]:
    """The occurrences that lie inside an occurrence of a longer surface."""
    folded = {place.surface.casefold(): place for place in places}
    everything = "\n".join(folded)
    related: set[str] = set()
    for name in folded:
        if everything.count(name) > 1:
            related.update(other for other in folded if name in other)
    spans = {span for name in related for span in folded[name].view.spans(folded[name].needle)}
    inner, reach = set(), 0
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        if span[1] <= reach:
            inner.add(span)
        reach = max(reach, span[1])
    return inner


@dataclass(frozen=True, slots=True)
class _View:
    """A source text as it is searched: as it stands, or normalised. ``cuts`` are the source's."""

    source: str
    cuts: bytes
    form: Folded

    def spans(self, needle: str, position: int = 0) -> Iterator[Span]:
        """The source spans of ``needle`` from source ``position`` on, edges on boundaries, none overlapping."""
        text, origin = self.form.text, self.form.origin
        at = text.find(needle, bisect_left(origin, position))
        while at >= 0:
            start = origin[at]
            # It may begin at a boundary, and not amid the folded form of one cluster.
            opens = self.cuts[start] and (at == 0 or origin[at - 1] != start)
            end = self._end(at + len(needle)) if opens else None
            if end is not None:
                yield start, end
                at += len(needle)
            else:  # None can begin before the next boundary; looking at every "a" of "aaaa..." would be slow.
                at = bisect_left(origin, self.cuts.find(1, start + 1))
            at = text.find(needle, at)

    def _end(self, stop: int) -> int | None:
        """The source end of a match that ends before character ``stop``; None where that is no boundary."""
        origin = self.form.origin
        last = origin[stop - 1]
        if stop < len(origin) and origin[stop] == last:
            return None
        end = self.form.ends.get(last, last + 1)
        while not self.cuts[end] and _INVISIBLE.match(self.source, end):
            end += 1
        return end if self.cuts[end] else None


def _find(surface: str, exact: _View, folded: Callable[[], _View]) -> _Place | str:
    """Where a surface stands, or the reason why it stands nowhere."""
    reason = EMPTY
    surface = surface.strip()
    for _ in range(_MAX_DECORATIONS):
        if not _VISIBLE.search(surface):
            break
        if first := next(exact.spans(surface), None):
            return _Place(surface, surface, exact, first)
        needle = fold(surface).text.strip(" ")
        if first := next(folded().spans(needle), None):
            return _Place(surface, needle, folded(), first)
        if reason is EMPTY:
            reason = INSIDE_A_WORD if surface in exact.source or needle in folded().form.text else NOT_IN_TEXT
        bare = _undecorated(surface)
        if bare == surface:
            break
        surface = bare
    return reason


def _undecorated(surface: str) -> str:
    """A surface without its outermost decoration: a bullet or number before it, a pair of quotes or marks around it."""
    if match := _LIST_ITEM.match(surface):
        return surface[match.end() :].strip()
    for opening, closing in _PAIRS:
        if len(surface) > len(opening + closing) and surface.startswith(opening) and surface.endswith(closing):
            return surface[len(opening) : -len(closing)].strip()
    return surface
