r"""Mentions as a list: ``json``, one object for all types, and ``mrc``, one line per mention for one type.

A list says which strings are entities and in which order they stand, not where:
:func:`ner_batch.text.align.ground` finds their places. Nesting and overlap are kept.

``json``: ``{"LOC":["Columbus","Ohio"]}``, compact; only types that occur, in the task's order; mentions in reading
order (start, then longer first).

``mrc``: reading comprehension after Ye et al. (2024). The answers to the question of one type, one a line; ``none``
(``无``) when there are none. A line feed in a mention is written ``\n``, a backslash twice.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, count

from ner_batch.config import FormatName
from ner_batch.data import AnswerSpan, Entity, Parsed, Status, Ungrounded, clean, distinct
from ner_batch.prompts import grammar as lark
from ner_batch.prompts import wording
from ner_batch.prompts.base import Format
from ner_batch.task import Language, Task
from ner_batch.text.align import ground
from ner_batch.text.folding import INVISIBLE

_OBJECT_RULE: Mapping[Language, str] = {
    "en": 'Answer in JSON like {"TYPE":["entity"]}: only types that occur, entities copied exactly, in text order; '
    "{} if there are none.",
    "zh": '用JSON回答，如{"类型":["实体"]}：只写出现的类型，实体照抄原文，按出现的顺序；没有则答{}。',
}
_LINES_RULE: Mapping[Language, str] = {
    "en": "Answer the question with the entities, copied exactly, one per line, in text order; if there are none, "
    "answer none.",
    "zh": "用原文中的实体回答问题，逐字照抄，每行一个，按出现的顺序；没有则答：无",
}
# Where the usual word for none occurs in the text, the user turn names another one.
_UNUSUAL_NONE: Mapping[Language, str] = {"en": "If there are none, answer {}", "zh": "没有则答：{}"}
_OTHER_NONE: Mapping[Language, tuple[str, ...]] = {"en": ("nothing", "no entity"), "zh": ("没有", "无实体")}

_OBJECT_ESCAPE = lark.Escape(
    table={ord(c): json.dumps(c)[1:-1] for c in ['"', "\\", *map(chr, range(32))]},
    white=r"\s|\\[ntrf]|\\u00(?:0b|1[c-f])",
    visible=rf"[^\s\\{INVISIBLE}]|\\[\"\\b]|\\u00(?:0[0-7ef]|1[0-9ab])",
)
_LINE_ESCAPE = lark.Escape(
    table={ord("\\"): "\\\\", ord("\n"): "\\n"},
    white=r"[\s\x1c-\x1f]|\\n",
    visible=rf"[^\s\\\x1c-\x1f{INVISIBLE}]|\\\\",
)

# An object, a broken one included, begins with a key or ends at once; braces of prose do not.
_OPENING = re.compile(r'\{\s*(?:["}]|\Z)')
# What may stand around objects in an answer that says nothing else: the brackets of a list, a fence; and before the
# first a line that says that they come.
_FRAME = re.compile(r"(?:`{3,}(?:json)?|[\s\[\],])*", re.IGNORECASE)
_LEAD = re.compile(r"[^\n{}\[\]\"]*:\s*")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?P<end>"|)|[\[\]{}:]', re.DOTALL)
_STRING = re.compile(r'(?P<string>"(?:[^"\\]|\\.)*+"|[^\s"\[\]{}:,]+)(?P<colon>\s*:)?', re.DOTALL)
_LINE = re.compile(r"[^\n]+\n?")
_ENDS = {"[": "]", "{": "}"}
_MAX_OPENINGS, _MAX_DEPTH = 16, 8  # bound the work on an answer that loops; a list in an object is two deep


class ListFormat(Format):
    """Formats whose answers list mentions."""

    def representable(self, text: str, entities: Iterable[Entity]) -> tuple[Entity, ...]:
        """The entities that lists give back.

        Lost is an entity whose mention, read in order, lands elsewhere or nowhere: a later occurrence of a string whose
        earlier occurrence is no entity of that type, unless an entity between the two, or a longer one around the
        earlier, tells them apart; a span that starts or ends inside a word; white space at the edges. Entities are
        dropped first to last, one at a time, until the rest comes back. ``mrc`` reads the list of each type alone.
        """
        plain = distinct(replace(e, score=None, verified=None) for e in entities)
        types = dict.fromkeys(e.type for e in plain)
        lists = [[e for e in plain if e.type == type_] for type_ in types] if self.per_type else [plain]
        return tuple(sorted(e for entities_of_list in lists for e in _recoverable(text, entities_of_list)))

    def mentions(self, text: str, entities: Iterable[Entity], labels: Sequence[str]) -> list[Entity]:
        """What an answer about ``labels`` lists, in reading order."""
        return sorted(self.representable(text, (e for e in entities if e.type in labels)), key=_reading_order)


class JsonFormat(ListFormat):
    """``json``: a JSON object."""

    name: FormatName = "json"
    per_type = False

    def system(self, labels: Sequence[str], task: Task) -> str:
        """All labels are defined."""
        return wording.system(task, labels, _OBJECT_RULE[task.language])

    def turn(self, text: str, labels: Sequence[str], task: Task) -> str:  # noqa: ARG002 - they are in the system message
        """The text alone."""
        return wording.turn(text, task)

    def answer(self, text: str, entities: Iterable[Entity], labels: Sequence[str], task: Task) -> str:  # noqa: ARG002
        """Compact JSON."""
        mentions = self.mentions(text, entities, labels)
        by_type = {label: [e.text for e in mentions if e.type == label] for label in labels}
        present = {label: surfaces for label, surfaces in by_type.items() if surfaces}
        return json.dumps(present, ensure_ascii=False, separators=(",", ":"))

    def parse(self, answer: str, text: str, labels: Sequence[str], task: Task) -> Parsed:  # noqa: ARG002
        """Read all JSON objects of an answer, one after the other or in a list, whatever stands around them.

        Duplicate keys are merged, a bare string is a list of one. An object that is cut off keeps its complete mentions
        and has status ``truncated``; an answer without a JSON object is ``malformed``. An answer is faithful only if
        nothing but a thought before it, a line that ends in a colon, a code fence or a list stands around its objects.
        """
        objects, whole, around = _objects(clean(answer[wording.thought_length(answer, text) :]))
        if not objects:
            return Parsed((), (), Status.MALFORMED, False)
        mentions: list[tuple[str, str]] = []
        unreadable: list[Ungrounded] = []
        pairs = chain.from_iterable(values_by_key.items() for values_by_key in objects)
        for key, value in ((clean(key), value) for key, values in pairs for value in values):
            if isinstance(value, str):
                mentions.append((clean(value), key))
            elif value is not None:  # null names nothing
                unreadable.append(Ungrounded(clean(reprlib.repr(value)), key, "not a mention"))
        entities, unplaced = ground([(surface, label) for surface, label in mentions if label in labels], text)
        untyped = [Ungrounded(surface, label, "unknown type") for surface, label in mentions if label not in labels]
        ungrounded = (*unplaced, *untyped, *unreadable)
        framed = all(map(_FRAME.fullmatch, [_LEAD.sub("", around[0], count=1), *around[1:]]))
        faithful = whole and not ungrounded and framed
        return Parsed(entities, ungrounded, Status.OK if whole else Status.TRUNCATED, faithful)

    def locate_mentions(self, answer: str, text: str, labels: Sequence[str], task: Task) -> list[AnswerSpan]:  # noqa: ARG002
        """Each quoted mention; the first under a key takes in the key, for choosing the type was part of naming it."""
        answer = clean(answer)
        spans: list[AnswerSpan] = []
        key, key_start = "", None
        opening = _OPENING.search(answer, wording.thought_length(answer, text))
        for match in _STRING.finditer(answer, opening.start() if opening else 0):
            if match["colon"]:
                key, key_start = _unquote(match["string"]), match.start()
            else:
                start = match.start() if key_start is None else key_start
                spans.append(AnswerSpan(_unquote(match["string"]), key, start, match.end()))
                key_start = None
        return spans

    def grammar(self, text: str, labels: Sequence[str], task: Task) -> str:  # noqa: ARG002
        """Types that occur, in order and at most once, with lists of mentions cut from the text; or nothing."""
        if not lark.mentionable(text):
            return 'start: "{}"\n'
        # Rules of linear size for a subset of the keys in order: `first` before any of them is written, `more` after.
        rules = ['start: "{" first0 "}"']
        for i, label in enumerate(labels):
            key = lark.literal(json.dumps(label, ensure_ascii=False) + ":")
            rules.append(f"first{i}: {key} list more{i + 1} | first{i + 1}")
            rules.append(f'more{i}: "," {key} list more{i + 1} | more{i + 1}')
        rules += [f'first{len(labels)}: ""', f'more{len(labels)}: ""']
        rules.append(f'list: "[" MENTION ("," MENTION){{0,{lark.most_mentions(text) - 1}}} "]"')
        rules += [lark.substring(text, _OBJECT_ESCAPE), 'MENTION: "\\"" SOURCE "\\""']
        return "\n".join(rules) + "\n"

    def max_answer_tokens(self, text_tokens: int, labels: int) -> int:
        """A budget that holds a text made of names alone, and 16 tokens for each type's key and brackets."""
        return text_tokens * 3 // 2 + 32 + 16 * labels


class LinesFormat(ListFormat):
    """``mrc``: the answer to the question of one type, one mention a line."""

    name: FormatName = "mrc"
    per_type = True

    def system(self, labels: Sequence[str], task: Task) -> str:  # noqa: ARG002 - the same for all of them
        """What a type means stands in the user turn that asks for it."""
        return wording.system(task, (), _LINES_RULE[task.language])

    def turn(self, text: str, labels: Sequence[str], task: Task) -> str:
        """The text, the definition where the question is without it, the question, any unusual word for none."""
        label, none = labels[0], _none_word(text, task)
        definition = task.labels[label].definition
        defined = [] if definition in task.question(label) else [f"{label}: {definition}"]
        unusual = [] if none == wording.NONE[task.language] else [_UNUSUAL_NONE[task.language].format(none)]
        return wording.turn(text, task, *defined, task.question(label), *unusual)

    def answer(self, text: str, entities: Iterable[Entity], labels: Sequence[str], task: Task) -> str:
        """Lines, or the word for none."""
        lines = (e.text.translate(_LINE_ESCAPE.table) for e in self.mentions(text, entities, labels))
        return "\n".join(lines) or _none_word(text, task)

    def parse(self, answer: str, text: str, labels: Sequence[str], task: Task) -> Parsed:
        """Read line by line. Only an empty answer is ``malformed``; prose comes out ungrounded.

        Lines do not show that an answer was cut off; see :meth:`complete`.
        """
        if not answer.strip():
            return Parsed((), (), Status.MALFORMED, False)
        mentions = [(span.text, span.type) for span in self.locate_mentions(answer, text, labels, task)]
        entities, ungrounded = ground(mentions, text)
        return Parsed(entities, tuple(ungrounded), Status.OK, not ungrounded)

    def locate_mentions(self, answer: str, text: str, labels: Sequence[str], task: Task) -> list[AnswerSpan]:
        """Each line, with the line feed that ends it."""
        none = _none_word(text, task)
        answer = clean(answer)
        lines = [
            m
            for m in _LINE.finditer(answer, wording.thought_length(answer, text))
            if m[0].strip() and not wording.is_none(m[0], none) and not wording.is_fence(m[0], text)
        ]
        return [AnswerSpan(_unescape(m[0].strip()), labels[0], m.start(), m.end()) for m in lines]

    def complete(self, answer: str) -> str:
        """All lines but the last, which may be half a mention."""
        return answer.rpartition("\n")[0]

    def grammar(self, text: str, labels: Sequence[str], task: Task) -> str:  # noqa: ARG002
        """Mentions cut from the text, one a line, or the word for none; a mention's line feed is escaped."""
        none = lark.literal(_none_word(text, task))
        if not lark.mentionable(text):
            return f"start: {none}\n"
        source = lark.substring(text, _LINE_ESCAPE)
        return f'start: {none} | SOURCE ("\\n" SOURCE){{0,{lark.most_mentions(text) - 1}}}\n{source}\n'

    def max_answer_tokens(self, text_tokens: int, labels: int) -> int:  # noqa: ARG002 - one at a time
        """A budget that holds a text made of names alone."""
        return text_tokens * 3 // 2 + 32


JSON = JsonFormat()
MRC = LinesFormat()


def _reading_order(entity: Entity) -> tuple[int, int, str]:
    return entity.start, -entity.end, entity.type


def _recoverable(text: str, entities: Iterable[Entity]) -> list[Entity]:
    """The entities of one list that reading the list gives back; see :meth:`ListFormat.representable`."""
    remaining = sorted(entities, key=_reading_order)
    while True:
        grounded = set(ground([(e.text, e.type) for e in remaining], text)[0])
        first_missing = next((i for i, e in enumerate(remaining) if e not in grounded), None)
        if first_missing is None:
            return remaining
        del remaining[first_missing]


def _none_word(text: str, task: Task) -> str:
    """A word for none that does not occur in the text, whatever its case: no mention can be it."""
    usual = wording.NONE[task.language]
    words = chain([usual], _OTHER_NONE[task.language], (f"{usual}{i}" for i in count()))
    folded = text.casefold()
    return next(word for word in words if word.casefold() not in folded)


def _unescape(line: str) -> str:
    """The mention that a line of ``mrc`` stands for."""
    return re.sub(r"\\([\\n])", lambda m: "\n" if m[1] == "n" else "\\", line)


def _unquote(string: str) -> str:
    """The mention that a string of an object stands for; a number is a mention too."""
    if not string.startswith('"'):
        return string
    try:
        return clean(str(json.loads(string, strict=False)))
    except ValueError:
        return string[1:-1]


def _merged(pairs: list[tuple[str, object]]) -> dict[str, list[object]]:
    """A JSON object with every value as a list, equal keys joined."""
    merged: dict[str, list[object]] = {}
    for key, value in pairs:
        merged.setdefault(key, []).extend(value if isinstance(value, list) else [value])
    return merged


# Numbers stay the characters they were written in: an unquoted year is a mention too.
_DECODER = json.JSONDecoder(object_pairs_hook=_merged, parse_int=str, parse_float=str, parse_constant=str, strict=False)


def _objects(answer: str) -> tuple[list[dict[str, list[object]]], bool, list[str]]:
    """The JSON objects of an answer, whether the last is whole, and what stands before, between and behind them.

    One that is cut off comes without what is incomplete. At most 16 openings are tried.
    """
    objects: list[dict[str, list[object]]] = []
    around: list[str] = []
    position = 0
    for _ in range(_MAX_OPENINGS):
        if not (opening := _OPENING.search(answer, position)):
            break
        around.append(answer[position : opening.start()])
        rest = answer[opening.start() :]
        try:
            value, end = _DECODER.raw_decode(rest)
        except (ValueError, RecursionError):
            with suppress(ValueError, RecursionError):
                objects.append(_DECODER.raw_decode(_cut_back(rest))[0])
                return objects, False, around
            around.append(rest[0])  # a brace of prose
            position = opening.start() + 1
        else:
            objects.append(value)
            position = opening.start() + end
    return objects, True, [*around, answer[position:]]


def _cut_back(text: str) -> str:
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
