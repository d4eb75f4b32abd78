"""Marks that do not occur in a text, and copies of a text that carry marks (``inline``, ``gpt-ner``).

Marks are chosen by their characters: if no character of any mark occurs in the text, a mark in an answer is a mark,
whatever the text contains. They are a function of the text alone, so a demonstration may have other marks than the
input; a user turn says which they are when they are not the usual ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from ner_batch.data import Entity, Parsed, Status, Ungrounded, distinct
from ner_batch.text.align import ground

Marks = tuple[str, ...]

# Where marks are taken from when all the usual ones occur: arrows to symbols, then the private use areas. These hold
# some 140,000 code points, more than any window has characters.
_SPARE = (range(0x2190, 0x2C00), range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


def choose(text: str, usual: Sequence[Marks]) -> Marks:
    """The first of ``usual`` of which no character occurs in ``text``; else single characters that do not occur."""
    used = set(text)
    for marks in usual:
        if used.isdisjoint("".join(marks)):
            return marks
    spare = (chr(point) for point in chain(*_SPARE) if chr(point) not in used)
    return tuple(next(spare) for _ in usual[0])


def outermost(entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """The entities that marks can say: of those that overlap the longest, then the first; without score, sorted."""
    plain = distinct(replace(e, score=None, verified=None) for e in entities)
    kept: list[Entity] = []
    for entity in sorted(plain, key=lambda e: (e.start - e.end, e)):
        if all(entity.end <= other.start or other.end <= entity.start for other in kept):
            kept.append(entity)
    return tuple(sorted(kept))


def mark(text: str, entities: Sequence[Entity], opening: str, closings: Sequence[str]) -> str:
    """A copy of ``text`` with entity i (sorted, not overlapping) between ``opening`` and ``closings[i]``."""
    pieces, position = [], 0
    for entity, closing in zip(entities, closings, strict=True):
        pieces += [text[position : entity.start], opening, entity.text, closing]
        position = entity.end
    return "".join([*pieces, text[position:]])


@dataclass(frozen=True, slots=True)
class Copy:
    """An answer without its marks; ``marked`` are offsets in ``plain``; ``paired``: no mark stood alone."""

    plain: str
    marked: tuple[Entity, ...]
    paired: bool


def unmark(answer: str, span: re.Pattern[str], marks: Marks, label: str = "") -> Copy:
    """Take the marks out of an answer.

    ``span`` matches one marked mention: group ``text``, and group ``type`` unless every mention is of type ``label``.
    A mark without its partner is dropped; one that is opened last and never closed was cut off, with all after it.
    """
    plain: list[str] = []
    marked: list[Entity] = []
    position = size = 0
    for match in span.finditer(answer):
        gap, surface = _bare(answer[position : match.start()], marks), match["text"]
        start = size + len(gap)
        position, size = match.end(), start + len(surface)
        marked.append(Entity(start, size, match.groupdict().get("type") or label, surface))
        plain += [gap, surface]
    plain.append(_bare(answer[position:].partition(marks[0])[0], marks))
    rest = span.sub("", answer)
    return Copy("".join(plain), tuple(marked), rest == _bare(rest, marks))


def _bare(text: str, marks: Marks) -> str:
    """``text`` without the characters of marks."""
    return text.translate(dict.fromkeys(map(ord, "".join(marks))))


def read(copy: Copy, text: str, labels: Sequence[str]) -> Parsed:
    """The marked mentions as spans of ``text``.

    A copy that equals the text (white space at its ends aside), or that breaks off, gives exact offsets. Otherwise the
    mentions are grounded in order. Without any mark it must be a copy, or it is ``malformed``; one that breaks off is
    ``truncated``.
    """
    whole, part = copy.plain.strip() == text.strip(), text.strip().startswith(copy.plain.strip())
    if not copy.marked and copy.paired and not (part and copy.plain.strip()):
        return Parsed((), (), Status.MALFORMED, False)
    entities, ungrounded = _placed(copy, text, exact=part)
    strange = tuple(Ungrounded(e.text, e.type, "unknown type") for e in entities if e.type not in labels)
    known = distinct(e for e in entities if e.type in labels)
    status = Status.TRUNCATED if part and not whole else Status.OK
    return Parsed(known, (*ungrounded, *strange), status, whole and copy.paired and not (ungrounded or strange))


def _placed(copy: Copy, text: str, exact: bool) -> tuple[tuple[Entity, ...], tuple[Ungrounded, ...]]:
    """Exact offsets where they hold for every mention, otherwise grounded ones."""
    shift = _indent(text) - _indent(copy.plain) if copy.plain != text else 0
    shifted = tuple(e.shifted(shift) for e in copy.marked)
    if exact and all(e.start >= 0 and text[e.start : e.end] == e.text for e in shifted):
        return shifted, ()
    return ground([(e.text, e.type) for e in copy.marked], text)


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())
