"""A window, its labels and its demonstrations to the token ids of one prompt that fits the model.

Training and inference build their prompts here, so they cannot drift apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from ner_batch.data import Entity, Example
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.prompts.formats import Format
from ner_batch.task import Task


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids ready for the engine, the room left for the answer, and how many demonstrations fitted in."""

    token_ids: list[int]
    max_tokens: int
    demonstrations: int


class PromptBuilder:
    """Builds the prompts of one format, task and model, which holds ``max_model_len`` tokens of prompt and answer."""

    def __init__(self, format: Format, task: Task, chat: ChatTokenizer, max_model_len: int) -> None:  # noqa: A002
        self.format, self.task, self.chat, self.max_model_len = format, task, chat, max_model_len

    def build(self, text: str, labels: Sequence[str], demonstrations: Sequence[Example] = ()) -> Prompt | None:
        """The prompt that asks ``text`` (cleaned) for ``labels``; None where it does not fit even on its own.

        Demonstrations are given nearest last; the farthest are dropped until prompt and answer fit together.
        """
        room = self.format.max_answer_tokens(self.chat.count([text])[0], len(labels))
        for first in range(len(demonstrations) + 1):
            ids = self.chat.encode(self.format.messages(text, labels, self.task, demonstrations[first:]))
            if len(ids) + room <= self.max_model_len:
                return Prompt(ids, room, len(demonstrations) - first)
        return None

    def fingerprint(self) -> str:
        """A digest of all that prompts are made of but the texts: format, task, chat template, and a probe's token ids.

        An adapter carries it: a prompt code, tokenizer or template that has changed since training shows here.
        """
        probes = [
            self.chat.encode(self.format.messages(_PROBE.text, labels, self.task, [_probe(labels)]))
            + self.chat.encode_answer(self.format.answer(_PROBE.text, _probe(labels).entities, labels, self.task))
            for labels in self.format.groups(self.task)
        ]
        constants = [self.format.name, self.task.digest(), self.chat.template, probes]
        return hashlib.sha256(json.dumps(constants).encode()).hexdigest()[:16]


_PROBE = Example("probe", "Anna saw 北京, twice.\n", (Entity(0, 4, "", "Anna"), Entity(9, 11, "", "北京")))


def _probe(labels: Sequence[str]) -> Example:
    """The probe sentence with its two mentions typed by the first and the last label."""
    ends = (labels[0], labels[-1])
    entities = (Entity(e.start, e.end, label, e.text) for e, label in zip(_PROBE.entities, ends, strict=True))
    return Example(_PROBE.id, _PROBE.text, tuple(entities))
