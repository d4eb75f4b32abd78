"""Answer formats: text and entities to prompt and answer, and back.

A format owns both directions, so training and inference cannot drift apart. There are two by two: the answer lists the
mentions or is a marked copy of the text, and a prompt asks for all types at once or for one.

|             | all types | one type  |                                 |
|-------------|-----------|-----------|---------------------------------|
| list        | ``json``  | ``mrc``   | :mod:`ner_batch.prompts.lists`  |
| marked copy | ``inline``| ``gpt-ner``| :mod:`ner_batch.prompts.marked` |

``json`` is the default.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ner_batch.config import FormatName
from ner_batch.data import AnswerSpan, Entity, Example, Message, Parsed
from ner_batch.errors import UserError
from ner_batch.prompts import lists, marked
from ner_batch.prompts.grammar import MAX_GRAMMAR_CHARS
from ner_batch.task import Task

__all__ = ["MAX_GRAMMAR_CHARS", "NAMES", "Format", "get"]


class Format(Protocol):
    """What every format has. Texts are :func:`ner_batch.data.clean`; answers may be any string."""

    @property
    def name(self) -> FormatName:
        """What a config calls it."""
        ...

    @property
    def per_type(self) -> bool:
        """Whether a prompt asks for one type, or for all."""
        ...

    def groups(self, task: Task) -> tuple[tuple[str, ...], ...]:
        """The label groups, one prompt each: all labels at once, or one by one."""
        ...

    def messages(
        self, text: str, labels: Sequence[str], task: Task, demonstrations: Sequence[Example]
    ) -> list[Message]:
        """The prompt for one text and label group; demonstrations in the order given (the nearest last)."""
        ...

    def answer(self, text: str, entities: Iterable[Entity], labels: Sequence[str], task: Task) -> str:
        """The training target: the representable part of the entities whose type is in ``labels``."""
        ...

    def representable(self, text: str, entities: Iterable[Entity]) -> tuple[Entity, ...]:
        """The part of the entities that the format can express, sorted: what ``parse(answer(...))`` gives back."""
        ...

    def parse(self, answer: str, text: str, labels: Sequence[str], task: Task) -> Parsed:
        """The entities that an answer names, as spans of the text. Reads any string without raising."""
        ...

    def locate_mentions(self, answer: str, text: str, labels: Sequence[str], task: Task) -> list[AnswerSpan]:
        """Where an answer names its mentions, with all the characters that the naming takes, in order."""
        ...

    def complete(self, answer: str) -> str:
        """The part of an answer cut off at its token limit that :meth:`parse` may read."""
        ...

    def grammar(self, text: str, labels: Sequence[str], task: Task) -> str:
        """The legal answers as a Lark grammar for llguidance; texts up to :data:`MAX_GRAMMAR_CHARS`."""
        ...

    def max_answer_tokens(self, text_tokens: int, labels: int) -> int:
        """A generous token budget of the answer for a text of ``text_tokens`` tokens and that many labels."""
        ...


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
