"""Self-verification (GPT-NER, Wang et al., 2025): a yes/no question about one entity, and how likely "yes" is.

The paper asks it of every entity that was found, with demonstrations, and believes the word that comes. Here the first
token of the answer is read as P(yes) / (P(yes) + P(no)), so that a threshold can decide; and every type is asked about
(the paper's code leaves persons out). The system message begins as extraction's does and the text comes before the
question, so that both prompts of a text, and all questions about it, share their beginnings in the prefix cache.

A mention that stands in the text more than once is asked about by its words alone, not by its place.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from ner_batch.boundaries import word_chunks
from ner_batch.chat import ChatTokenizer
from ner_batch.data import Completion, Entity, Example, Message
from ner_batch.formats import wording
from ner_batch.task import Language, Task

ANSWER_TOKENS = 8  # room for yes or no and the end of the turn

_RULE: Mapping[Language, str] = {
    "en": "Say whether the words asked about are an entity of that type in the text: yes or no.",
    "zh": "判断所问的词在文本中是不是该类型的实体，只答是或否。",
}
_QUESTION: Mapping[Language, str] = {"en": 'Is "{}" {}?', "zh": "“{}”是{}吗？"}
_ANSWERS: Mapping[Language, tuple[str, str]] = {"en": ("yes", "no"), "zh": ("是", "否")}


@dataclass(frozen=True, slots=True)
class Claim:
    """Something said about a text, and whether it is so: a demonstration of the question, or a sample of it."""

    text: str
    entity: Entity
    true: bool


def messages(text: str, entity: Entity, task: Task, shown: Sequence[Claim] = ()) -> list[Message]:
    """The prompt about one entity of a text; demonstrations in the order given (the nearest last)."""
    turns = ((_turn(claim.text, claim.entity, task), answer(task, claim.true)) for claim in shown)
    system = wording.system(task, task.names, _RULE[task.language])
    return wording.conversation(system, turns, _turn(text, entity, task))


class Questions:
    """Builds the prompts of one task and model, for training and inference alike.

    Args:
        max_model_len: tokens the model can hold, prompt and answer together.
    """

    def __init__(self, task: Task, chat: ChatTokenizer, max_model_len: int) -> None:
        self.task = task
        self.chat = chat
        self.max_model_len = max_model_len

    def prompt(self, text: str, entity: Entity, shown: Sequence[Claim] = ()) -> list[int] | None:
        """Token ids, with room left for the answer; the farthest demonstrations are dropped until it fits.

        None where it does not fit even without them.
        """
        for dropped in range(len(shown) + 1):
            ids = self.chat.encode(messages(text, entity, self.task, shown[dropped:]))
            if len(ids) + ANSWER_TOKENS <= self.max_model_len:
                return ids
        return None

    def fingerprint(self) -> str:
        """A digest of all that the prompts are made of but the texts: the wording, task, template and tokenizer."""
        probe = Entity(0, 4, self.task.names[0], "Anna")
        claims = [Claim("Anna saw 北京.", probe, true) for true in (True, False)]
        ids = self.chat.encode(messages("Anna saw 北京.", probe, self.task, claims))
        return hashlib.sha256(json.dumps([ids, self.tokens()]).encode()).hexdigest()[:16]

    def tokens(self) -> tuple[int, int]:
        """The first tokens of yes and of no.

        Raises:
            ValueError: the tokenizer begins both with the same token, so that one token cannot tell them apart.
        """
        words = _ANSWERS[self.task.language]
        yes, no = (self.chat.encode_answer(word)[0] for word in words)
        if yes == no:
            raise ValueError(f"verify: this model's tokenizer begins {' and '.join(words)} alike")
        return yes, no


def demonstrations(near: Sequence[Example], task: Task) -> list[Claim]:
    """One claim about each of the nearest examples, true or false by a coin; the nearest last, as they are given."""
    return [claim for example in near for claim in claims(example, task, 1, example.id)]


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


def read(completion: Completion, tokens: tuple[int, int]) -> float | None:
    """P(yes) of an answer; None where there is none."""
    return probability(completion.logprobs[0], tokens) if completion.logprobs else None


def claims(example: Example, task: Task, count: int, seed: str) -> list[Claim]:
    """``count`` claims about an example, true and false in turn as far as there are true ones. Deterministic.

    A coin decides which comes first, so that a single claim is as often false as true. The false ones are near the
    truth: an entity with an edge moved by a word or two, an entity under another type, and, where nothing else can be
    made, some other run of words.
    """
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    true = rng.sample(example.entities, len(example.entities))
    wanted = rng.random() < 0.5
    made: list[Claim] = []
    while len(made) < count:
        false = None if wanted and true else corrupted(example, task, rng)
        if false is None and not true:
            break
        made.append(Claim(example.text, false or true.pop(), false is None))
        wanted = not wanted
    return made


def corrupted(example: Example, task: Task, rng: random.Random) -> Entity | None:
    """An entity that the example does not have: a moved edge, another type, or other words; None if there is none."""
    gold = {(e.text, e.type) for e in example.entities}
    kinds = [_moved, _retyped] if example.entities else []
    for make in [*rng.sample(kinds, len(kinds)), _other_words]:
        possible = [e for e in make(example, task, rng) if e.text.strip() and (e.text, e.type) not in gold]
        if possible:
            return rng.choice(possible)
    return None


def _moved(example: Example, _task: Task, rng: random.Random) -> Iterable[Entity]:
    """One entity with one of its edges a word or two further in or out."""
    entity = rng.choice(example.entities)
    edges = _edges(example.text)
    for start in _near(edges, entity.start):
        yield from _spans(example.text, [(start, entity.end)], entity.type)
    for end in _near(edges, entity.end):
        yield from _spans(example.text, [(entity.start, end)], entity.type)


def _retyped(example: Example, task: Task, rng: random.Random) -> Iterable[Entity]:
    entity = rng.choice(example.entities)
    return [replace(entity, type=label) for label in task.names if label != entity.type]


def _other_words(example: Example, task: Task, rng: random.Random) -> Iterable[Entity]:
    """Runs of one to four words anywhere, each under a label drawn at random."""
    edges = _edges(example.text)
    for _ in range(8):
        first = rng.randrange(max(1, len(edges) - 1))
        last = min(first + rng.randint(1, 4), len(edges) - 1)
        yield from _spans(example.text, [(edges[first], edges[last])], rng.choice(task.names))


def _spans(text: str, spans: Iterable[tuple[int, int]], label: str) -> Iterable[Entity]:
    """Entities of a type, without white space at their edges; empty ones are left out."""
    for start, end in spans:
        surface = text[start:end].strip()
        if surface:
            at = text.index(surface, start)
            yield Entity(at, at + len(surface), label, surface)


def _edges(text: str) -> list[int]:
    """Where words begin and end, in code points."""
    return list(accumulate(map(len, word_chunks(text)), initial=0))


def _near(edges: Sequence[int], place: int) -> list[int]:
    """The two edges before and after a place."""
    before, after = [e for e in edges if e < place], [e for e in edges if e > place]
    return before[-2:] + after[:2]
