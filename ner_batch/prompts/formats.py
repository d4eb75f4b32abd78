"""Answer formats by name; docs/formats.md describes them.

The answer lists the mentions (``json``, ``mrc``) or is a marked copy of the text (``inline``, ``gpt-ner``); a prompt
asks for all types at once (``json``, ``inline``) or for one (``mrc``, ``gpt-ner``).
"""

from __future__ import annotations

from collections.abc import Iterable

from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.prompts import lists, marked
from ner_batch.prompts.base import Format
from ner_batch.prompts.grammar import MAX_GRAMMAR_CHARS
from ner_batch.task import Task

__all__ = ["MAX_GRAMMAR_CHARS", "NAMES", "Format", "get", "omissions"]

_FORMATS: dict[str, Format] = {form.name: form for form in (lists.JSON, marked.INLINE, lists.MRC, marked.GPT_NER)}
NAMES = tuple(_FORMATS)


def get(name: str) -> Format:
    """The format of that name.

    Raises:
        UserError: there is none; the message names those there are.
    """
    if name not in _FORMATS:
        raise UserError(f"format {name!r}: there are {', '.join(NAMES)}")
    return _FORMATS[name]


_NAMED = 3  # entities of one reason


def omissions(examples: Iterable[Example], form: Format, task: Task) -> list[str]:
    """What of some gold the answers made of it leave out, a line for each reason, with the first entities."""
    total = 0
    reasons: dict[str, list[str]] = {}
    for example in examples:
        of_task = [entity for entity in example.entities if entity.type in task.labels]
        representable = set(form.representable(example.text, of_task))
        total += len(example.entities)
        for entity in example.entities:
            if entity.type not in task.labels:
                reason = "are of types that the task does not ask for"
            elif entity in representable:
                continue
            else:
                reason = f"cannot be said in {form.name}"
            place = f"{entity.text!r} [{entity.start}, {entity.end}) {entity.type} of {example.id}"
            reasons.setdefault(reason, []).append(place)
    return [
        f"{len(places):,} of {total:,} gold entities {reason}, so answers leave them out: {'; '.join(places[:_NAMED])}"
        for reason, places in reasons.items()
    ]
