"""Answer formats: text and entities to prompt and answer, and back.

A format owns both directions, so training and inference cannot drift apart. It is a module that satisfies
:class:`Format`; ``json`` is the default.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ner_batch.data import Entity, Example, Message, Parsed, Said
from ner_batch.errors import UserError
from ner_batch.prompts import gpt_ner, inline, json_, mrc
from ner_batch.prompts.grammar import MAX_GRAMMAR_CHARS
from ner_batch.task import Task


class Format(Protocol):
    """What every format module has. Texts are :func:`ner_batch.data.clean`; answers may be any string."""

    NAME: str

    def groups(self, task: Task) -> tuple[tuple[str, ...], ...]:
        """The label groups, one prompt each: all labels at once, or one by one."""
        ...

    def messages(
        self, text: str, labels: Sequence[str], task: Task, demonstrations: Sequence[Example]
    ) -> list[Message]:
        """The prompt for one text and label group; demonstrations in the order given (the nearest last)."""
        ...

    def answer(self, text: str, entities: Iterable[Entity], labels: Sequence[str], task: Task) -> str:
        """The training target: the sayable part of the entities whose type is in ``labels``."""
        ...

    def sayable(self, text: str, entities: Iterable[Entity]) -> tuple[Entity, ...]:
        """The part of the entities that the format can express, sorted: what ``parse(answer(...))`` gives back."""
        ...

    def parse(self, answer: str, text: str, labels: Sequence[str], task: Task) -> Parsed:
        """The entities that an answer names, as spans of the text. Reads any string without raising."""
        ...

    def said(self, answer: str, text: str, labels: Sequence[str], task: Task) -> list[Said]:
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


__all__ = ["MAX_GRAMMAR_CHARS", "NAMES", "Format", "load"]

NAMES = (json_.NAME, inline.NAME, mrc.NAME, gpt_ner.NAME)


def load(name: str) -> Format:
    """The format of that name.

    Raises:
        UserError: there is none; the message names those there are.
    """
    match name:
        case json_.NAME:
            return json_
        case inline.NAME:
            return inline
        case mrc.NAME:
            return mrc
        case gpt_ner.NAME:
            return gpt_ner
        case _:
            raise UserError(f"format {name!r}: there are {', '.join(NAMES)}")
