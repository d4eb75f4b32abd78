"""Examples to token ids in the project's own prompts, for training and for measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ner_batch.data import Example
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.prompts.formats import Format
from ner_batch.task import Task
from ner_batch.train.packing import Sample


@dataclass(frozen=True, slots=True)
class Prompting:
    """A format that asks for all labels at once (``json``, ``inline``), a task, and the model's chat tokeniser."""

    form: Format
    task: Task
    chat: ChatTokenizer

    def prompt(self, text: str, shown: Sequence[Example]) -> list[int]:
        """Token ids of the prompt for a text with its demonstrations, nearest last."""
        return self.chat.encode(self.form.messages(text, self.task.names, self.task, shown))

    def sample(self, example: Example, shown: Sequence[Example]) -> Sample:
        """The training sample of a gold example with its demonstrations."""
        answer = self.form.answer(example.text, example.entities, self.task.names, self.task)
        return Sample(tuple(self.prompt(example.text, shown)), tuple(self.chat.encode_answer(answer)))
