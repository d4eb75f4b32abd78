r"""``mrc``: the answers to the question of one type, one a line; ``none`` (``无``) when there are none.

Named-entity recognition as reading comprehension after Ye et al. (2024): triples (text, question q_i of type i, answer
a_i), one prompt per type. A line feed in a mention is written ``\n``, a backslash twice. Entities may nest and overlap,
of different types and of one. A list says *what*, not *where*: :func:`ner_batch.prompts.mentions.sayable` says what is
lost.
"""

# ruff: noqa: ARG001 - every format has the same functions, and not each needs every argument
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count

from ner_batch.data import Entity, Example, Message, Parsed, Said, Status, clean
from ner_batch.prompts import grammar as lark
from ner_batch.prompts import mentions, wording
from ner_batch.task import Language, Task
from ner_batch.text.folding import INVISIBLE

NAME = "mrc"

_RULE: Mapping[Language, str] = {
    "en": "Answer the question with the entities, copied exactly, one per line, in text order; if there are none, "
    "answer none.",
    "zh": "用原文中的实体回答问题，逐字照抄，每行一个，按出现的顺序；没有则答：无",
}
_NONE: Mapping[Language, str] = {"en": "If there are none, answer {}", "zh": "没有则答：{}"}
_OTHER: Mapping[Language, tuple[str, ...]] = {"en": ("nothing", "no entity"), "zh": ("没有", "无实体")}

_ESCAPE = lark.Escape(
    table={ord("\\"): "\\\\", ord("\n"): "\\n"},
    white=r"[\s\x1c-\x1f]|\\n",
    visible=rf"[^\s\\\x1c-\x1f{INVISIBLE}]|\\\\",
)


def groups(task: Task) -> tuple[tuple[str, ...], ...]:
    """One prompt per label."""
    return tuple((label,) for label in task.names)


def messages(text: str, labels: Sequence[str], task: Task, demonstrations: Sequence[Example]) -> list[Message]:
    """The prompt for one text and label; definitions that no question carries stand in the system message."""
    defined = [label for label in task.names if task.definition(label) not in task.question(label)]
    shown = ((_turn(d.text, labels, task), answer(d.text, d.entities, labels, task)) for d in demonstrations)
    system = wording.system(task, defined, _RULE[task.language])
    return wording.conversation(system, shown, _turn(text, labels, task))


def _turn(text: str, labels: Sequence[str], task: Task) -> str:
    none = _none(text, task)
    unusual = [] if none == wording.NONE[task.language] else [_NONE[task.language].format(none)]
    return wording.turn(text, task, task.question(labels[0]), *unusual)


def _none(text: str, task: Task) -> str:
    """A word for none that does not occur in the text, whatever its case: no mention can be it."""
    usual = wording.NONE[task.language]
    words = chain([usual], _OTHER[task.language], (f"{usual}{i}" for i in count()))
    folded = text.casefold()
    return next(word for word in words if word.casefold() not in folded)


def sayable(text: str, entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """What lists of mentions, one for each type and each read alone, give back."""
    given = list(entities)
    types = {e.type for e in given}
    return tuple(sorted(e for label in types for e in mentions.sayable(text, (e for e in given if e.type == label))))


def answer(text: str, entities: Iterable[Entity], labels: Sequence[str], task: Task) -> str:
    """The sayable entities of the one label in reading order, one a line; the word for none if there are none."""
    said = mentions.reading_order(sayable(text, (e for e in entities if e.type in labels)))
    return "\n".join(_escaped(e.text) for e in said) or _none(text, task)


def parse(answer: str, text: str, labels: Sequence[str], task: Task) -> Parsed:
    """Read an answer line by line. Only an empty one is ``malformed``; prose comes out ungrounded.

    Lines do not show that an answer was cut off; see :func:`complete`.
    """
    lines = [line.strip() for line in clean(answer).split("\n") if line.strip()]
    if not lines:
        return Parsed((), (), Status.MALFORMED, False)
    none = _none(text, task)
    said = [(_unescaped(line), labels[0]) for line in lines if not wording.is_none(line, none)]
    return mentions.read(said, text, labels)


def said(answer: str, text: str, labels: Sequence[str], task: Task) -> list[Said]:
    """Each line, with the line feed that ends it."""
    none = _none(text, task)
    lines = re.finditer(r"[^\n]*\S[^\n]*\n?", clean(answer))
    found = [Said(_unescaped(line[0].strip()), labels[0], line.start(), line.end()) for line in lines]
    return [mention for mention in found if not wording.is_none(mention.text, none)]


def complete(answer: str) -> str:
    """All lines but the last, which may be half a mention."""
    return answer.rpartition("\n")[0]


def grammar(text: str, labels: Sequence[str], task: Task) -> str:
    """The legal answers: the word for none, or 1 to 64 mentions cut from the text, one a line.

    Line feeds are escaped inside the one source terminal, so the end of a line can never be a part of a mention.
    """
    none = lark.literal(_none(text, task))
    if not lark.mentionable(text):
        return f"start: {none}\n"
    source = lark.substring(text, _ESCAPE)
    return f'start: {none} | SOURCE ("\\n" SOURCE){{0,{lark.MAX_MENTIONS - 1}}}\n{source}\n'


def max_answer_tokens(text_tokens: int, labels: int) -> int:
    """A budget that holds a text made of names alone."""
    return text_tokens * 3 // 2 + 32


def _escaped(surface: str) -> str:
    return surface.translate(_ESCAPE.table)


def _unescaped(line: str) -> str:
    return re.sub(r"\\([\\n])", lambda m: "\n" if m[1] == "n" else "\\", line)
