"""``inline``: ``[Columbus|LOC] is a city in [Ohio|LOC].``, one prompt for all types; ``none`` when there is nothing.

The text is copied, so every mention has its place, repeated strings included. Marks cannot nest or cross here: of
entities that overlap, whatever their types, the longest is said, then the first; of equal spans the type that sorts
first. The bracketed form is the best of five for LoRA-tuned models of 3 to 9 B parameters (LLMs4NER, arXiv 2601.17898)
and costs 1.2 to 3.2 times the output of ``json``. Of the nested GENIA test set it can say 88.5 % of the entities.
"""

# ruff: noqa: ARG001 - every format has the same functions, and not each needs every argument
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ner_batch.data import Entity, Example, Message, Parsed, Said, Status, clean
from ner_batch.prompts import grammar as lark
from ner_batch.prompts import marks, wording
from ner_batch.task import Language, Task

NAME = "inline"

_RULE: Mapping[Language, str] = {
    "en": "Copy the text with each entity as [entity|TYPE]; if there are none, answer none.",
    "zh": "照抄原文，把每个实体写成[实体|类型]；没有则答：无",
}
_MARKS: Mapping[Language, str] = {"en": "Write {}entity{}TYPE{}", "zh": "写成{}实体{}类型{}"}
_USUAL: tuple[marks.Marks, ...] = (("[", "|", "]"), ("{", "|", "}"), ("<", "|", ">"), ("⟦", "¦", "⟧"))


def groups(task: Task) -> tuple[tuple[str, ...], ...]:
    """All labels in one prompt."""
    return (task.names,)


def messages(text: str, labels: Sequence[str], task: Task, demonstrations: Sequence[Example]) -> list[Message]:
    """The prompt for one text; a user turn names the marks where they are not the usual ones."""
    shown = ((_turn(d.text, task), answer(d.text, d.entities, labels, task)) for d in demonstrations)
    return wording.conversation(wording.system(task, labels, _RULE[task.language]), shown, _turn(text, task))


def _turn(text: str, task: Task) -> str:
    chosen = _chosen(text, task)
    return wording.turn(text, task, *([] if chosen == _USUAL[0] else [_MARKS[task.language].format(*chosen)]))


def _chosen(text: str, task: Task) -> marks.Marks:
    """Marks that occur neither in the text nor in a label."""
    return marks.choose(text + "".join(task.names), _USUAL)


def sayable(text: str, entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """Of entities that overlap the longest, then the first."""
    return marks.outermost(entities)


def answer(text: str, entities: Iterable[Entity], labels: Sequence[str], task: Task) -> str:
    """The text with its sayable entities of ``labels`` marked; the word for none if there are none."""
    said = sayable(text, (e for e in entities if e.type in labels))
    if not said:
        return wording.NONE[task.language]
    opening, middle, closing = _chosen(text, task)
    return marks.mark(text, said, opening, [middle + e.type + closing for e in said])


def parse(answer: str, text: str, labels: Sequence[str], task: Task) -> Parsed:
    """Read an answer: a marked copy, the word for none, or what can be made of a copy that went wrong."""
    if wording.is_none(answer, wording.NONE[task.language]):
        return Parsed((), (), Status.OK, True)
    chosen = _chosen(text, task)
    return marks.read(marks.unmark(clean(answer), _span(chosen), chosen), text, labels)


def _span(chosen: marks.Marks) -> re.Pattern[str]:
    opening, middle, closing = map(re.escape, chosen)
    inner = f"[^{opening}{middle}{closing}]+"
    return re.compile(f"{opening}(?P<text>{inner}){middle}(?P<type>{inner}){closing}")


def said(answer: str, text: str, labels: Sequence[str], task: Task) -> list[Said]:
    """Each marked mention with its marks and type."""
    found = _span(_chosen(text, task)).finditer(clean(answer))
    return [Said(m["text"], m["type"], m.start(), m.end()) for m in found]


def complete(answer: str) -> str:
    """All of it: what is cut off shows as such and is left out by :func:`parse`."""
    return answer


def grammar(text: str, labels: Sequence[str], task: Task) -> str:
    """The legal answers: the word for none, or the text with one or more marked runs of whole words."""
    none = lark.literal(wording.NONE[task.language])
    if not lark.mentionable(text):
        return f"start: {none}\n"
    opening, middle, closing = _chosen(text, task)
    copy = lark.marked_copy(text, opening + middle + closing, opening, [middle + x + closing for x in labels])
    return f"start: {none} | COPY\n{copy}\n"


def max_answer_tokens(text_tokens: int, labels: int) -> int:
    """A budget that holds a mark and a type for every other token of the text, and the copy."""
    return text_tokens * 3 + 64
