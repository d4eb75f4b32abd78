"""Pieces of llguidance's Lark dialect that make an answer a copy of its source.

The source stands in ONE terminal. A grammar with a rule for every character hits the parser's limit of 2,000 items at
about 2,000 characters, and from 5,000 on it kills the process (llguidance 1.7.6). The source is given as the chunks of
:func:`ner_batch.text.boundaries.word_chunks`, so a mention starts and ends where a word does. The lexer is greedy: a
delimiter must be something that cannot extend the source terminal, or stand inside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import regex

from ner_batch.text.boundaries import word_chunks
from ner_batch.text.folding import INVISIBLE

MIN_MENTIONS = 64  # of one type that any answer may list, see most_mentions

MAX_GRAMMAR_CHARS = 8_000  # of the source: a copying format then takes 0.14 s of CPU to compile

_VISIBLE = regex.compile(f"[^\\s{INVISIBLE}]")


@dataclass(frozen=True, slots=True)
class Escape:
    """How a format writes a source, and regexes for one character: white for str.strip, and with a glyph."""

    table: Mapping[int, str]
    white: str
    visible: str


def literal(text: str) -> str:
    """A string literal of the grammar. DEL, the one character its lexer refuses, is escaped as well."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def mentionable(text: str) -> bool:
    """Whether some chunk of ``text`` can be a mention: not white at its edges, and something to see."""
    return any(_VISIBLE.search(chunk) and chunk == chunk.strip() for chunk in word_chunks(text))


def most_mentions(text: str) -> int:
    """How many mentions of one type an answer about ``text`` may list: all of its words, each a mention of its own.

    A model that repeats itself comes to an end there, or before at its limit of tokens, which shows in the status.
    """
    return max(MIN_MENTIONS, sum(1 for chunk in word_chunks(text) if _VISIBLE.search(chunk)))


def substring(text: str, escape: Escape) -> str:
    """Definition of SOURCE: runs of chunks of a mentionable ``text`` as the format writes them.

    What aligning would take for empty is left out: white space at the edges, nothing to see.
    """
    chunks = {"substring_chunks": [chunk.translate(escape.table) for chunk in word_chunks(text)]}
    lines = [
        f"WHITE: /{escape.white}/",
        f"UNSEEN: /[{INVISIBLE}]/",
        f"VISIBLE: /{escape.visible}/",
        "EDGED: (UNSEEN (UNSEEN | WHITE)*)? VISIBLE ((VISIBLE | UNSEEN | WHITE)* (VISIBLE | UNSEEN))?",
        f"SOURCE: %regex {json.dumps(chunks, ensure_ascii=False)} & EDGED",
    ]
    return "\n".join(lines)


def marked_copy(text: str, marks: str, opening: str, closings: Sequence[str]) -> str:
    """Definition of COPY: ``text`` with ``opening`` and one of ``closings`` around one or more runs of its chunks.

    PLACES says that the text is copied and where marks may stand, TURNS that they come in pairs around something with
    solid edges. ``text`` is mentionable; ``marks`` are the characters that only marks have: none occurs in ``text``.
    """
    closing = "|".join(map(_quoted, closings))
    mark = f"/(?:{closing})?(?:{_quoted(opening)})?/"
    places = " MARK ".join(literal(chunk) for chunk in word_chunks(text))
    plain, solid = f"[^{_quoted(marks)}]", f"[^{_quoted(marks)}\\s\\x1c-\\x1f]"
    span = f"{_quoted(opening)}{solid}(?:{plain}*{solid})?(?:{closing})"
    return f"MARK: {mark}\nPLACES: MARK {places} MARK\nTURNS: /{plain}*(?:{span}{plain}*)+/\nCOPY: PLACES & TURNS"


def _quoted(string: str) -> str:
    """``string`` as a regex, also inside a character class."""
    return "".join(f"\\x{{{ord(c):x}}}" for c in string)
