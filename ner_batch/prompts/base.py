"""What every answer format has; the formats are in :mod:`lists` and :mod:`marked`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from ner_batch.config import FormatName
from ner_batch.data import AnswerSpan, Entity, Example, Message, Parsed
from ner_batch.prompts import wording
from ner_batch.task import Task


class Format(ABC):
    """Both directions of a format. Texts are :func:`ner_batch.data.clean`; answers may be any string.

    ``name`` is what a config calls it; ``per_type`` says whether a prompt asks for one type, or for all.
    """

    name: FormatName
    per_type: bool

    def groups(self, task: Task) -> tuple[tuple[str, ...], ...]:
        """The label groups, one prompt each: all labels at once, or one by one."""
        return tuple((label,) for label in task.names) if self.per_type else (task.names,)

    def messages(
        self, text: str, labels: Sequence[str], task: Task, demonstrations: Sequence[Example]
    ) -> list[Message]:
        """The prompt for one text and label group; demonstrations in the order given (the nearest last)."""
        turns = (
            (self.turn(d.text, labels, task), self.answer(d.text, d.entities, labels, task)) for d in demonstrations
        )
        return wording.conversation(self.system(labels, task), turns, self.turn(text, labels, task))

    @abstractmethod
    def system(self, labels: Sequence[str], task: Task) -> str:
        """The system message; of ``per_type`` formats the same for all labels, so that a replica computes it once."""

    @abstractmethod
    def turn(self, text: str, labels: Sequence[str], task: Task) -> str:
        """The user turn about one text."""

    @abstractmethod
    def answer(self, text: str, entities: Iterable[Entity], labels: Sequence[str], task: Task) -> str:
        """The training target: the representable part of the entities whose type is in ``labels``."""

    @abstractmethod
    def representable(self, text: str, entities: Iterable[Entity]) -> tuple[Entity, ...]:
        """What ``parse(answer(...))`` gives back of the entities, sorted, without score and verification."""

    @abstractmethod
    def parse(self, answer: str, text: str, labels: Sequence[str], task: Task) -> Parsed:
        """The entities that an answer names, as spans of the text. Reads any string without raising."""

    @abstractmethod
    def locate_mentions(self, answer: str, text: str, labels: Sequence[str], task: Task) -> list[AnswerSpan]:
        """Where an answer names its mentions, with all the characters that the naming takes, in order."""

    def complete(self, answer: str) -> str:
        """The part of an answer cut off at its token limit that :meth:`parse` may read; all where the cut shows."""
        return answer

    @abstractmethod
    def grammar(self, text: str, labels: Sequence[str], task: Task) -> str:
        """The legal answers as a Lark grammar for llguidance; texts up to ``formats.MAX_GRAMMAR_CHARS``."""

    @abstractmethod
    def max_answer_tokens(self, text_tokens: int, labels: int) -> int:
        """A generous token budget of the answer for a text of ``text_tokens`` tokens and that many labels."""
