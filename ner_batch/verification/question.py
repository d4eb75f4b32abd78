"""Self-verification (GPT-NER, Wang et al., 2025): a yes/no question about one entity, and how likely "yes" is.

The paper believes the word that comes; here the first token of the answer is read as P(yes) / (P(yes) + P(no)), each
in all the ways models write them. It is asked about a mention's words, not its place. The text comes before the
question, so that all questions about a text share their beginnings in the prefix cache.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from ner_batch.data import Entity, Message
from ner_batch.errors import UserError
from ner_batch.prompts import wording
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.task import Language, Task
from ner_batch.verification.examples import VerificationExample

AnswerTokens = tuple[tuple[int, ...], tuple[int, ...]]  # what an answer that says yes may begin with, and one of no
ANSWER_TOKENS = 8  # room for yes or no and the end of the turn

_HEAD: Mapping[Language, str] = {"en": "Check named entities in a text.", "zh": "核对文本中的命名实体。"}
_RULE: Mapping[Language, str] = {
    "en": "Say whether the words asked about are, in the text, an entity of the type asked about: yes or no.",
    "zh": "判断所问的词在文本中是不是所问类型的实体，只答是或否。",
}
_QUESTION: Mapping[Language, str] = {
    "en": 'In this text, are the words "{}" a {} entity? Answer yes or no.',
    "zh": "在这段文本中，“{}”是{}实体吗？请答是或否。",
}
_DEFINED_QUESTION: Mapping[Language, str] = {
    "en": 'In this text, are the words "{}" a {} entity ({})? Answer yes or no.',
    "zh": "在这段文本中，“{}”是{}实体（{}）吗？请答是或否。",
}
# The first of each is what a model is taught; the others are what instruction models say of themselves.
_YES: Mapping[Language, tuple[str, ...]] = {"en": ("yes", "Yes", "YES"), "zh": ("是", "对", "是的")}
_NO: Mapping[Language, tuple[str, ...]] = {"en": ("no", "No", "NO"), "zh": ("否", "不", "不是")}


def messages(
    text: str, entity: Entity, task: Task, demonstrations: Sequence[VerificationExample] = ()
) -> list[Message]:
    """The prompt about one entity of a text; demonstrations in the order given (the nearest last)."""
    turns = ((_turn(x.text, x.entity, task), answer(task, x.is_true)) for x in demonstrations)
    system = wording.system(task, (), _RULE[task.language], _HEAD)
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

    def tokens(self) -> AnswerTokens:
        """The first tokens of all the ways to say yes, and of all to say no; but for the taught words none of both.

        A UserError where one token cannot tell the taught words apart.
        """
        words = _YES[self.task.language], _NO[self.task.language]
        yes, no = ([self.chat.encode_answer(word)[0] for word in ways] for ways in words)
        if yes[0] == no[0]:
            raise UserError(f"verify: this model's tokenizer begins {words[0][0]} and {words[1][0]} alike")
        first_yes, first_no = ([a[0], *(t for t in a[1:] if t not in b)] for a, b in ((yes, no), (no, yes)))
        return tuple(dict.fromkeys(first_yes)), tuple(dict.fromkeys(first_no))


def _turn(text: str, entity: Entity, task: Task) -> str:
    return wording.turn(text, task, wording.about(entity.type, task, _QUESTION, _DEFINED_QUESTION, entity.text))


def answer(task: Task, true: bool) -> str:
    """What the model should say."""
    return (_YES if true else _NO)[task.language][0]


def probability(logprobs: Mapping[int, float], tokens: AnswerTokens) -> float | None:
    """P(yes) / (P(yes) + P(no)) out of log-probabilities by token id; None where some are not there.

    Each is the sum over the tokens that it may begin with: instruction models write "Yes" where ours learn "yes".
    """
    if any(token not in logprobs for token in chain(*tokens)):
        return None
    yes, no = (float(np.logaddexp.reduce([logprobs[token] for token in of_answer])) for of_answer in tokens)
    return 1 / (1 + math.exp(min(no - yes, 700.0)))
