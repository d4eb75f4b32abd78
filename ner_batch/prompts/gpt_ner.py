"""``gpt-ner``: ``@@Columbus## is a city in @@Ohio##.``, one prompt per type; the bare copy when there is nothing.

After GPT-NER (Wang et al., Findings of NAACL 2025). Every mention has its place. Entities of different types may nest
and cross freely, each in its own answer; of entities of one type that overlap the longest is said, then the first.
Of the nested GENIA test set it can say 94.1 % of the entities.
"""

# ruff: noqa: ARG001 - every format has the same functions, and not each needs every argument
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ner_batch.data import Entity, Example, Message, Parsed, Said, clean
from ner_batch.prompts import grammar as lark
from ner_batch.prompts import marks, wording
from ner_batch.task import Language, Task

NAME = "gpt-ner"

_RULE: Mapping[Language, str] = {
    "en": "Copy the text with each entity of the type asked for as @@entity##; if there are none, copy it unchanged.",
    "zh": "照抄原文，把所问类型的每个实体写成@@实体##；没有则原样照抄。",
}
_QUESTION: Mapping[Language, str] = {"en": "Type: {}", "zh": "类型：{}"}
_MARKS: Mapping[Language, str] = {"en": "Write {}entity{}", "zh": "写成{}实体{}"}
_USUAL: tuple[marks.Marks, ...] = (("@@", "##"), ("<<", ">>"), ("{{", "}}"), ("⟦", "⟧"))


def groups(task: Task) -> tuple[tuple[str, ...], ...]:
    """One prompt per label."""
    return tuple((label,) for label in task.names)


def messages(text: str, labels: Sequence[str], task: Task, demonstrations: Sequence[Example]) -> list[Message]:
    """The prompt for one text and label. Everything up to the last lines is the same for every label."""
    shown = ((_turn(d.text, labels, task), answer(d.text, d.entities, labels, task)) for d in demonstrations)
    system = wording.system(task, task.names, _RULE[task.language])
    return wording.conversation(system, shown, _turn(text, labels, task))


def _turn(text: str, labels: Sequence[str], task: Task) -> str:
    chosen = marks.choose(text, _USUAL)
    unusual = [] if chosen == _USUAL[0] else [_MARKS[task.language].format(*chosen)]
    return wording.turn(text, task, _QUESTION[task.language].format(labels[0]), *unusual)


def sayable(text: str, entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """Of entities of one type that overlap the longest, then the first; all else."""
    given = list(entities)
    types = {e.type for e in given}
    return tuple(sorted(e for label in types for e in marks.outermost(e for e in given if e.type == label)))


def answer(text: str, entities: Iterable[Entity], labels: Sequence[str], task: Task) -> str:
    """The text with its sayable entities of the one label marked."""
    said = sayable(text, (e for e in entities if e.type in labels))
    opening, closing = marks.choose(text, _USUAL)
    return marks.mark(text, said, opening, [closing] * len(said))


def parse(answer: str, text: str, labels: Sequence[str], task: Task) -> Parsed:
    """Read an answer: a copy, marked or not, or what can be made of one that went wrong."""
    chosen = marks.choose(text, _USUAL)
    return marks.read(marks.unmark(clean(answer), _span(chosen), chosen, labels[0]), text, labels)


def _span(chosen: marks.Marks) -> re.Pattern[str]:
    opening, closing = map(re.escape, chosen)
    return re.compile(f"{opening}(?P<text>[^{opening}{closing}]+){closing}")


def said(answer: str, text: str, labels: Sequence[str], task: Task) -> list[Said]:
    """Each marked mention with its marks."""
    found = _span(marks.choose(text, _USUAL)).finditer(clean(answer))
    return [Said(m["text"], labels[0], m.start(), m.end()) for m in found]


def complete(answer: str) -> str:
    """All of it: what is cut off shows as such and is left out by :func:`parse`."""
    return answer


def grammar(text: str, labels: Sequence[str], task: Task) -> str:
    """The legal answers: the text, bare or with marked runs of whole words."""
    bare = f"BARE: {lark.literal(text)}"
    if not lark.mentionable(text):
        return f"start: BARE\n{bare}\n"
    opening, closing = marks.choose(text, _USUAL)
    return f"start: BARE | COPY\n{bare}\n{lark.marked_copy(text, opening + closing, opening, [closing])}\n"


def max_answer_tokens(text_tokens: int, labels: int) -> int:
    """A budget that holds the copy and marks around every fourth token."""
    return text_tokens * 2 + 64
