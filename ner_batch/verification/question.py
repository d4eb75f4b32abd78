"""Self-verification (GPT-NER, Wang et al., 2025): a yes/no question about one entity, and how likely "yes" is.

The paper believes the word that comes; here the first token of the answer is read as P(yes) / (P(yes) + P(no)). It is
asked about a mention's words, not its place. The system message begins as extraction's does and the text comes before
the question, so that all prompts of a text share their beginnings in the prefix cache.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

from ner_batch.data import Entity, Message
from ner_batch.errors import UserError
from ner_batch.prompts import wording
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.task import Language, Task
from ner_batch.verification.examples import VerificationExample

ANSWER_TOKENS = 8  # room for yes or no and the end of the turn

_RULE: Mapping[Language, str] = {
    "en": "Say whether the words asked about are an entity of that type in the text: yes or no.",
    "zh": "判断所问的词在文本中是不是该类型的实体，只答是或否。",
}
_QUESTION: Mapping[Language, str] = {"en": 'Is "{}" {}?', "zh": "“{}”是{}吗？"}
_ANSWERS: Mapping[Language, tuple[str, str]] = {"en": ("yes", "no"), "zh": ("是", "否")}


def messages(
    text: str, entity: Entity, task: Task, demonstrations: Sequence[VerificationExample] = ()
) -> list[Message]:
    """The prompt about one entity of a text; demonstrations in the order given (the nearest last)."""
    turns = ((_turn(x.text, x.entity, task), answer(task, x.is_true)) for x in demonstrations)
    system = wording.system(task, task.names, _RULE[task.language])
    return wording.conversation(system, turns, _turn(text, entity, task))


class Questions:
    """Builds the prompts of one task and model; prompt and answer have ``max_model_len`` tokens at most."""

    def __init__(self, task: Task, chat: ChatTokenizer, max_model_len: int) -> None:
        self.task, self.chat, self.max_model_len = task, chat, max_model_len

    def prompt(self, text: str, entity: Entity, demonstrations: Sequence[VerificationExample] = ()) -> list[int] | None:
        """Token ids, without the farthest demonstrations where it does not fit with them; None where it never fits."""
        for dropped in range(len(demonstrations) + 1):
            ids = self.chat.encode(messages(text, entity, self.task, demonstrations[dropped:]))
            if len(ids) + ANSWER_TOKENS <= self.max_model_len:
                return ids
        return None

    def fingerprint(self) -> str:
        """A digest of all that the prompts are made of but the texts: the wording, task, template and tokenizer."""
        probe = Entity(0, 4, self.task.names[0], "Anna")
        examples = [VerificationExample("Anna saw 北京.", probe, is_true) for is_true in (True, False)]
        ids = self.chat.encode(messages("Anna saw 北京.", probe, self.task, examples))
        return hashlib.sha256(json.dumps([ids, self.tokens()]).encode()).hexdigest()[:16]

    def tokens(self) -> tuple[int, int]:
        """The first tokens of yes and of no. A UserError where one token cannot tell them apart."""
        words = _ANSWERS[self.task.language]
        yes, no = (self.chat.encode_answer(word)[0] for word in words)
        if yes == no:
            raise UserError(f"verify: this model's tokenizer begins {' and '.join(words)} alike")
        return yes, no


def _turn(text: str, entity: Entity, task: Task) -> str:
    return wording.turn(text, task, _QUESTION[task.language].format(entity.text, entity.type))


def answer(task: Task, true: bool) -> str:
    """What the model should say."""
    yes, no = _ANSWERS[task.language]
    return yes if true else no


def probability(logprobs: Mapping[int, float], tokens: tuple[int, int]) -> float | None:
    """P(yes) / (P(yes) + P(no)) out of log-probabilities by token id; None where they are not there."""
    if any(token not in logprobs for token in tokens):
        return None
    yes, no = (logprobs[token] for token in tokens)
    return 1 / (1 + math.exp(min(no - yes, 700.0)))
