"""Copies of the text with marks around the entities: ``inline``, one prompt for all types, ``gpt-ner``, one per type.

The text is copied, so every mention has its place, repeated strings included. Marks of one answer cannot nest or cross:
of entities that overlap the longest is marked, then the first; of equal spans the type that sorts first.

``inline``: ``[Columbus|LOC] is a city in [Ohio|LOC].``; ``none`` when there is nothing. The bracketed form is the best
of five for LoRA-tuned models of 3 to 9 B parameters (LLMs4NER, arXiv 2601.17898).

``gpt-ner``: ``@@Columbus## is a city in @@Ohio##.``; the bare copy when there is nothing. After GPT-NER (Wang et al.,
Findings of NAACL 2025). Types may nest and cross freely, each in its own answer.

No character of any mark occurs in the text, so a mark in an answer is a mark. Marks are thus a function of the text
(and of the labels, where an answer names types); a user turn says which they are when they are not the usual ones.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from ner_batch.config import FormatName
from ner_batch.data import AnswerSpan, Entity, Parsed, Status, Ungrounded, clean, distinct
from ner_batch.prompts import grammar as lark
from ner_batch.prompts import wording
from ner_batch.prompts.base import Format
from ner_batch.task import Language, Task
from ner_batch.text.align import ground
from ner_batch.text.folding import fold

Marks = tuple[str, ...]  # before a mention, between it and its type where the answer names types, behind

_TYPE: Mapping[Language, str] = {"en": "Mark every {} entity.", "zh": "标出每个{}实体。"}
_DEFINED_TYPE: Mapping[Language, str] = {"en": "Mark every {} entity ({}).", "zh": "标出每个{}实体（{}）。"}

# Where marks are taken from when all the usual ones occur: arrows to symbols, then the private use areas.
_SPARE = (range(0x2190, 0x2C00), range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


@dataclass(frozen=True)
class MarkedFormat(Format):
    """A format whose answers are marked copies.

    ``per_type``: marks come in pairs and the bare copy says that there are none; else each mention carries its type,
    and a word says that there are none. ``usual_marks`` are tried in order; ``unusual_marks_rule`` is what a user turn
    says where the first do not do. An answer has a budget of ``copies`` times the tokens of its text.
    """

    name: FormatName
    per_type: bool
    rule: Mapping[Language, str]
    usual_marks: tuple[Marks, ...]
    unusual_marks_rule: Mapping[Language, str]
    copies: int

    def system(self, labels: Sequence[str], task: Task) -> str:
        """All labels are defined where an answer names types; else the user turn defines the one that it asks for."""
        return wording.system(task, () if self.per_type else labels, self.rule[task.language])

    def turn(self, text: str, labels: Sequence[str], task: Task) -> str:
        """The text, the type where one is asked for, and the marks where they are not the usual ones."""
        marks = self._marks(text, task)
        type_line = [wording.about(labels[0], task, _TYPE, _DEFINED_TYPE)] if self.per_type else []
        unusual = [] if marks == self.usual_marks[0] else [self.unusual_marks_rule[task.language].format(*marks)]
        return wording.turn(text, task, *type_line, *unusual)

    def _marks(self, text: str, task: Task) -> Marks:
        """The first usual marks without a character of the text or a label that an answer names; else unused ones."""
        used = set(text if self.per_type else text + "".join(task.names))
        for marks in self.usual_marks:
            if used.isdisjoint("".join(marks)):
                return marks
        spare = (chr(point) for point in chain(*_SPARE) if chr(point) not in used)
        return tuple(next(spare) for _ in self.usual_marks[0])

    def _closing(self, marks: Marks, label: str) -> str:
        return marks[1] if self.per_type else marks[1] + label + marks[2]

    def _mention(self, marks: Marks) -> re.Pattern[str]:
        """A marked mention: group ``text``, and group ``type`` where the answer names types."""
        opening, *middle, closing = map(re.escape, marks)
        inner = f"[^{opening}{''.join(middle)}{closing}]+"
        typed = f"{middle[0]}(?P<type>{inner})" if middle else ""
        return re.compile(f"{opening}(?P<text>{inner}){typed}{closing}")

    def answer(self, text: str, entities: Iterable[Entity], labels: Sequence[str], task: Task) -> str:
        """The text with its representable entities of ``labels`` marked; if there are none, the bare copy or a word."""
        mentions = self.representable(text, (e for e in entities if e.type in labels))
        if not mentions and not self.per_type:
            return wording.NONE[task.language]
        marks = self._marks(text, task)
        pieces, position = [], 0
        for mention in mentions:
            pieces += [text[position : mention.start], marks[0], mention.text, self._closing(marks, mention.type)]
            position = mention.end
        return "".join([*pieces, text[position:]])

    def representable(self, text: str, entities: Iterable[Entity]) -> tuple[Entity, ...]:  # noqa: ARG002 - any text will do
        """Of the entities of one answer that overlap the longest, then the first."""
        plain = distinct(replace(e, score=None, verified=None) for e in entities)
        outermost: list[Entity] = []
        for entity in sorted(plain, key=lambda e: (e.start - e.end, e)):
            neighbours = [o for o in outermost if o.type == entity.type] if self.per_type else outermost
            if all(entity.end <= other.start or other.end <= entity.start for other in neighbours):
                outermost.append(entity)
        return tuple(sorted(outermost))

    def parse(self, answer: str, text: str, labels: Sequence[str], task: Task) -> Parsed:
        """Read an answer: a copy, marked or not, or what can be made of one that went wrong.

        A copy that equals the text (white space at its ends aside), or that breaks off (``truncated``), gives exact
        offsets; of another the mentions are grounded in order. Without any mark it must be a copy, or is ``malformed``.
        """
        answer = answer[wording.thought_length(answer, text) :]
        if not self.per_type and wording.is_none(answer, wording.NONE[task.language]):
            return Parsed((), (), Status.OK, True)
        marks = self._marks(text, task)
        copy, mentions, paired = _unmark(clean(answer), self._mention(marks), marks, labels[0] if self.per_type else "")
        is_whole = copy.strip() == text.strip()
        is_beginning = text.strip().startswith(copy.strip())
        if not is_beginning and (respelled := _respelled(copy, mentions, text)):
            # A tokenizer may normalise what it reads: Qwen's makes NFC of all texts.
            is_whole, mentions = respelled
            is_beginning, copy = True, text
        if not mentions and paired and not (is_beginning and copy.strip()):
            return Parsed((), (), Status.MALFORMED, False)
        # How much more white space the text begins with than its copy.
        shift = len(text) - len(text.lstrip()) - (len(copy) - len(copy.lstrip())) if copy != text else 0
        entities = tuple(e.shifted(shift) for e in mentions)
        unplaced: tuple[Ungrounded, ...] = ()
        if not (is_beginning and all(e.start >= 0 and text[e.start : e.end] == e.text for e in entities)):
            entities, unplaced = ground([(e.text, e.type) for e in mentions], text)
        untyped = tuple(Ungrounded(e.text, e.type, "unknown type") for e in entities if e.type not in labels)
        return Parsed(
            distinct(e for e in entities if e.type in labels),
            (*unplaced, *untyped),
            Status.TRUNCATED if is_beginning and not is_whole else Status.OK,
            is_whole and paired and not (unplaced or untyped),
        )

    def locate_mentions(self, answer: str, text: str, labels: Sequence[str], task: Task) -> list[AnswerSpan]:
        """Where an answer names its mentions: each with its marks, and its type where the answer names it."""
        begin = wording.thought_length(answer, text)
        matches = self._mention(self._marks(text, task)).finditer(clean(answer), begin)
        return [AnswerSpan(m["text"], labels[0] if self.per_type else m["type"], m.start(), m.end()) for m in matches]

    def grammar(self, text: str, labels: Sequence[str], task: Task) -> str:
        """The legal answers: what says that there are none, or the text with one or more marked runs of whole words."""
        none = lark.literal(text if self.per_type else wording.NONE[task.language])
        empty, definitions = ("BARE", f"BARE: {none}\n") if self.per_type else (none, "")
        if not lark.mentionable(text):
            return f"start: {empty}\n{definitions}"
        marks = self._marks(text, task)
        closings = [self._closing(marks, label) for label in labels]
        copy = lark.marked_copy(text, "".join(marks), marks[0], closings)
        return f"start: {empty} | COPY\n{definitions}{copy}\n"

    def max_answer_tokens(self, text_tokens: int, labels: int) -> int:  # noqa: ARG002 - a copy has the length of its text
        """The copy, and marks with a type for every other token of the text, or marks alone around every fourth."""
        return text_tokens * self.copies + 64


INLINE = MarkedFormat(
    name="inline",
    per_type=False,
    rule={
        "en": "Copy the text with each entity as [entity|TYPE]; if there are none, answer none.",
        "zh": "照抄原文，把每个实体写成[实体|类型]；没有则答：无",
    },
    usual_marks=(("[", "|", "]"), ("{", "|", "}"), ("<", "|", ">"), ("⟦", "¦", "⟧")),
    unusual_marks_rule={"en": "Write {}entity{}TYPE{}", "zh": "写成{}实体{}类型{}"},
    copies=3,
)
GPT_NER = MarkedFormat(
    name="gpt-ner",
    per_type=True,
    rule={
        "en": "Copy the text with each entity of the type asked for as @@entity##; if there are none, copy it "
        "unchanged.",
        "zh": "照抄原文，把所问类型的每个实体写成@@实体##；没有则原样照抄。",
    },
    usual_marks=(("@@", "##"), ("<<", ">>"), ("{{", "}}"), ("⟦", "⟧")),
    unusual_marks_rule={"en": "Write {}entity{}", "zh": "写成{}实体{}"},
    copies=2,
)


def _respelled(copy: str, mentions: Sequence[Entity], text: str) -> tuple[bool, tuple[Entity, ...]] | None:
    """Of a copy that reads as the text, or its beginning, once both are normalised: whether it is whole, its mentions.

    None of any other copy.
    """
    ours, theirs = fold(text), fold(copy)
    if not theirs.text.strip(" ") or not ours.text.strip(" ").startswith(theirs.text.strip(" ")):
        return None
    # How much further on a character stands in our form than in theirs.
    shift = len(theirs.text.lstrip(" ")) - len(theirs.text) + len(ours.text) - len(ours.text.lstrip(" "))
    placed = []
    for mention in mentions:
        first, last = (bisect_left(theirs.origin, place) + shift for place in (mention.start, mention.end))
        if not 0 <= first < last <= len(ours.text):
            return None
        start, last_start = ours.origin[first], ours.origin[last - 1]
        end = ours.ends.get(last_start, last_start + 1)
        placed.append(Entity(start, end, mention.type, text[start:end]))
    return ours.text.strip(" ") == theirs.text.strip(" "), tuple(placed)


def _unmark(answer: str, mention: re.Pattern[str], marks: Marks, label: str) -> tuple[str, tuple[Entity, ...], bool]:
    """(an answer without its marks, its mentions there, whether no mark stood alone).

    A mark without its partner is dropped; one that is opened last and never closed was cut off, with all after it.
    """
    mark_characters = dict.fromkeys(map(ord, "".join(marks)))
    pieces: list[str] = []
    mentions: list[Entity] = []
    position = length = 0
    for match in mention.finditer(answer):
        gap, surface = answer[position : match.start()].translate(mark_characters), match["text"]
        start = length + len(gap)
        position, length = match.end(), start + len(surface)
        mentions.append(Entity(start, length, match.groupdict().get("type") or label, surface))
        pieces += [gap, surface]
    pieces.append(answer[position:].partition(marks[0])[0].translate(mark_characters))
    unmatched = mention.sub("", answer)
    return "".join(pieces), tuple(mentions), unmatched == unmatched.translate(mark_characters)
