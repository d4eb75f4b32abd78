"""``json``, the default: ``{"LOC":["Columbus","Ohio"]}``. One prompt for all types, and the fewest tokens to decode.

Compact JSON; only types that occur, in the task's order; mentions in reading order (start, then longer first).
Nested and overlapping entities can be said. A list says *what*, not *where*, so occurrences are inferred and some
entities cannot be said: :func:`ner_batch.prompts.mentions.sayable` says which.
"""

# ruff: noqa: ARG001 - every format has the same functions, and not each needs every argument
from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from ner_batch.data import Entity, Example, Message, Parsed, Said, Status, Ungrounded, clean
from ner_batch.prompts import grammar as lark
from ner_batch.prompts import mentions, wording
from ner_batch.task import Language, Task
from ner_batch.text.folding import INVISIBLE

NAME = "json"
sayable = mentions.sayable

_RULE: Mapping[Language, str] = {
    "en": 'Answer in JSON like {"TYPE":["entity"]}: only types that occur, entities copied exactly, in text order; '
    "{} if there are none.",
    "zh": '用JSON回答，如{"类型":["实体"]}：只写出现的类型，实体照抄原文，按出现的顺序；没有则答{}。',
}

_ESCAPE = lark.Escape(
    table={ord(c): json.dumps(c)[1:-1] for c in ['"', "\\", *map(chr, range(32))]},
    white=r"\s|\\[ntrf]|\\u00(?:0b|1[c-f])",
    visible=rf"[^\s\\{INVISIBLE}]|\\[\"\\b]|\\u00(?:0[0-7ef]|1[0-9ab])",
)

# An object, a broken one included, begins with a key or ends at once; braces of prose do not.
_OPENING = re.compile(r'\{\s*(?:["}]|\Z)')
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?P<end>"|)|[\[\]{}:]', re.DOTALL)
_STRING = re.compile(r'(?P<string>"(?:[^"\\]|\\.)*+"|[^\s"\[\]{}:,]+)(?P<colon>\s*:)?', re.DOTALL)
_ENDS = {"[": "]", "{": "}"}
_MAX_OPENINGS, _MAX_DEPTH = 16, 8  # bound the work on an answer that loops; a list in an object is two deep


def groups(task: Task) -> tuple[tuple[str, ...], ...]:
    """All labels in one prompt."""
    return (task.names,)


def messages(text: str, labels: Sequence[str], task: Task, demonstrations: Sequence[Example]) -> list[Message]:
    """The prompt for one text."""
    shown = ((wording.turn(d.text, task), answer(d.text, d.entities, labels, task)) for d in demonstrations)
    return wording.conversation(wording.system(task, labels, _RULE[task.language]), shown, wording.turn(text, task))


def answer(text: str, entities: Iterable[Entity], labels: Sequence[str], task: Task) -> str:
    """The sayable entities of ``labels`` as compact JSON."""
    said = sayable(text, (e for e in entities if e.type in labels))
    found = {label: [e.text for e in mentions.reading_order(said) if e.type == label] for label in labels}
    return json.dumps({k: v for k, v in found.items() if v}, ensure_ascii=False, separators=(",", ":"))


def parse(answer: str, text: str, labels: Sequence[str], task: Task) -> Parsed:
    """Read an answer: the outermost JSON object in it, whatever stands around it.

    Duplicate keys are merged, a bare string is a list of one. An object that is cut off keeps its complete mentions
    and has status ``truncated``; an answer without a JSON object is ``malformed``.
    """
    found, whole = _object(clean(answer))
    if found is None:
        return Parsed((), (), Status.MALFORMED, False)
    said, unread = _mentions(found)
    read = mentions.read(said, text, labels)
    ungrounded = (*read.ungrounded, *unread)
    return Parsed(read.entities, ungrounded, Status.OK if whole else Status.TRUNCATED, whole and not ungrounded)


def said(answer: str, text: str, labels: Sequence[str], task: Task) -> list[Said]:
    """Each quoted mention; the first one under a key takes in the key, for choosing the type was part of naming it."""
    found: list[Said] = []
    key, opened = "", None
    answer = clean(answer)
    opening = _OPENING.search(answer)
    for match in _STRING.finditer(answer, opening.start() if opening else 0):
        if match["colon"]:
            key, opened = _unquoted(match["string"]), match.start()
        else:
            start = match.start() if opened is None else opened
            found.append(Said(_unquoted(match["string"]), key, start, match.end()))
            opened = None
    return found


def _unquoted(string: str) -> str:
    if not string.startswith('"'):  # a number, which is a mention too
        return string
    try:
        return clean(str(json.loads(string, strict=False)))
    except ValueError:
        return string[1:-1]


def complete(answer: str) -> str:
    """All of it: what is cut off shows as such and is left out by :func:`parse`."""
    return answer


def grammar(text: str, labels: Sequence[str], task: Task) -> str:
    """The legal answers: present types in order and at most once, each with 1 to 64 mentions cut from the text.

    Quotes are escaped inside the one source terminal, so a closing quote can never be taken for a part of a mention.
    """
    if not lark.mentionable(text):
        return 'start: "{}"\n'
    rules = ['start: "{" first0 "}"', *_chain([lark.literal(json.dumps(x, ensure_ascii=False) + ":") for x in labels])]
    rules.append(f'list: "[" MENTION ("," MENTION){{0,{lark.MAX_MENTIONS - 1}}} "]"')
    return "\n".join([*rules, lark.substring(text, _ESCAPE), 'MENTION: "\\"" SOURCE "\\""']) + "\n"


def max_answer_tokens(text_tokens: int, labels: int) -> int:
    """A budget that holds a text made of names alone; 16 tokens for each type's key and brackets."""
    return text_tokens * 3 // 2 + 16 * labels + 32


def _chain(keys: Sequence[str]) -> list[str]:
    """Rules of linear size for a subset of ``keys`` in order: ``first`` before any was said, ``more`` after."""
    rules = []
    for i, key in enumerate(keys):
        rules.append(f"first{i}: {key} list more{i + 1} | first{i + 1}")
        rules.append(f'more{i}: "," {key} list more{i + 1} | more{i + 1}')
    return [*rules, f'first{len(keys)}: ""', f'more{len(keys)}: ""']


def _merged(pairs: list[tuple[str, object]]) -> dict[str, list[object]]:
    """A JSON object with every value as a list, equal keys joined."""
    merged: dict[str, list[object]] = {}
    for key, value in pairs:
        merged.setdefault(key, []).extend(value if isinstance(value, list) else [value])
    return merged


# Numbers stay the characters they were written in: an unquoted year is a mention too.
_DECODER = json.JSONDecoder(object_pairs_hook=_merged, parse_int=str, parse_float=str, parse_constant=str, strict=False)


def _object(answer: str) -> tuple[dict[str, list[object]] | None, bool]:
    """The first object of an answer, and whether it is whole."""
    for opening in islice(_OPENING.finditer(answer), _MAX_OPENINGS):
        for text, whole in ((answer[opening.start() :], True), (_closed(answer[opening.start() :]), False)):
            try:
                return _DECODER.raw_decode(text)[0], whole
            except (ValueError, RecursionError):
                continue
    return None, False


def _closed(text: str) -> str:
    """A cut-off object, cut back to its last complete element and closed."""
    open_ends: list[str] = []
    end, closing, previous = 0, "", ""
    for match in _TOKEN.finditer(text):
        piece = match[0]
        if piece in _ENDS:
            open_ends.append(_ENDS[piece])
        elif piece in _ENDS.values() and open_ends:
            open_ends.pop()
        if len(open_ends) > _MAX_DEPTH or match["end"] == "":  # a string without its closing quote is the cut
            break
        if piece != ":" and (piece[0] != '"' or previous == ":" or open_ends[-1:] == ["]"]):
            end, closing = match.end(), "".join(reversed(open_ends))
        previous = piece
    return text[:end] + closing


def _mentions(found: Mapping[str, Sequence[object]]) -> tuple[list[tuple[str, str]], list[Ungrounded]]:
    """The (surface, type) pairs of an object, and what is not a string. ``null`` says nothing."""
    said: list[tuple[str, str]] = []
    unread: list[Ungrounded] = []
    for key, values in found.items():
        for value in values:
            if isinstance(value, str):
                said.append((clean(value), clean(key)))
            elif value is not None:
                unread.append(Ungrounded(clean(reprlib.repr(value)), clean(key), "not a mention"))
    return said, unread
