"""Gold examples to training samples, through the prompt builder and the formats that inference uses."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from ner_batch.data import Entity, Example, clean, nearest
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.text import windows
from ner_batch.train.packing import Sample
from ner_batch.verification import question as verify
from ner_batch.verification.examples import VerificationExample, verification_examples
from ner_batch.verification.pool import MentionQuery, Pool

Neighbours = tuple[tuple[Example, ...], ...]  # of each example, nearest last


@dataclass(frozen=True, slots=True)
class Mix:
    """What samples are made with: shares by number of demonstrations, of swapped mentions, of kept "none" answers.

    ``verification`` is the number of verification questions an example gives on average.
    """

    shown: dict[int, float]
    swapped: float = 0.0
    negatives: float = 1.0
    verification: float = 0.0


@dataclass(frozen=True, slots=True)
class Source:
    """Examples that fit one window each, and for each its possible demonstrations, nearest last, never itself.

    ``neighbours`` has them once per kind of retrieval; it is empty where none are shown.
    """

    examples: tuple[Example, ...]
    neighbours: tuple[Neighbours, ...] = ()

    def shown(self, k: int) -> list[Sequence[Example]]:
        """The nearest ``k`` demonstrations of each example by the first kind, nearest last."""
        return [nearest(self._near(0, number), k) for number in range(len(self.examples))]

    def _near(self, kind: int, number: int) -> Sequence[Example]:
        return self.neighbours[kind][number] if self.neighbours else ()

    def epoch(self, builder: PromptBuilder, mix: Mix, seed: str) -> tuple[list[Sample], Counter[str]]:
        """The samples of an epoch, and how many were left out by reason. The same seed gives the same samples."""
        rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        pools = mentions(self.examples) if mix.swapped else {}

        def other(entity: Entity) -> str:
            return rng.choice(pools[entity.type]) if pools and rng.random() < mix.swapped else entity.text

        made: list[_Made] = []
        questions: list[_Question] = []
        for number, example in enumerate(self.examples):
            (shown,) = rng.choices(list(mix.shown), list(mix.shown.values()))
            near = self._near(rng.randrange(len(self.neighbours)) if len(self.neighbours) > 1 else 0, number)
            swapped = swap(example, other)
            made += _samples(swapped, near, shown, builder)
            questions += _questions(example, swapped, shown, (builder.task.names, mix, f"{seed}-{number}"))
        made += _verified(questions, self.examples, builder)
        fitting = [m for m in made if m.sample]
        negatives = sorted((m for m in fitting if m.negative), key=lambda m: (not m.hard, rng.random()))
        dropped = {id(m) for m in negatives[round(mix.negatives * len(negatives)) :]}
        samples = [m.sample for m in fitting if m.sample and id(m) not in dropped]
        return samples, Counter({"too long": len(made) - len(fitting), "negative": len(dropped)})


@dataclass(frozen=True, slots=True)
class _Made:
    """A prompt's sample, None if it is too long. A negative asks a per-type format for a type that is not there.

    It is hard where a similar sentence, one of the example's neighbours, has an entity of that type.
    """

    sample: Sample | None
    negative: bool
    hard: bool


def _samples(example: Example, near: Sequence[Example], shown: int, builder: PromptBuilder) -> Iterator[_Made]:
    """One sample per label group, with the nearest ``shown`` demonstrations."""
    text, groups = clean(example.text), builder.format.groups(builder.task)
    for labels in groups:
        prompt = builder.build(text, labels, nearest(near, shown))
        answer = builder.chat.encode_answer(builder.format.answer(text, example.entities, labels, builder.task))
        fits = prompt is not None and len(prompt.token_ids) + len(answer) <= builder.max_model_len
        negative = len(groups) > 1 and not any(e.type in labels for e in example.entities)
        hard = negative and any(e.type in labels for other in near for e in other.entities)
        yield _Made(Sample(tuple(prompt.token_ids), tuple(answer)) if prompt and fits else None, negative, hard)


@dataclass(frozen=True, slots=True)
class _Question:
    """A verification question to come: about what, the answer, and with how many claims as demonstrations."""

    asked: MentionQuery
    true: bool
    shown: int


def _questions(
    example: Example, swapped: Example, shown: int, drawn: tuple[Sequence[str], Mix, str]
) -> list[_Question]:
    """Questions about an example whose mentions may have been swapped; ``drawn`` is by what: types, mix, seed."""
    names, mix, seed = drawn
    whole, share = divmod(mix.verification, 1)
    count = int(whole) + (random.Random(seed).random() < share)  # noqa: S311 - repeatable, not secret
    given = replace(swapped, text=clean(swapped.text))
    made = verification_examples(given, names, count, seed)
    return [_Question(MentionQuery(x.text, x.entity, example.text), x.is_true, shown) for x in made]


def _verified(questions: Sequence[_Question], examples: tuple[Example, ...], builder: PromptBuilder) -> Iterator[_Made]:
    """The samples of verification questions, each with the demonstrations that inference would show."""
    prompts = verify.Questions(builder.task, builder.chat, builder.max_model_len)
    for question, shown in zip(questions, _shown(questions, examples), strict=True):
        ids = prompts.prompt(question.asked.text, question.asked.entity, shown)
        answer = builder.chat.encode_answer(verify.answer(builder.task, question.true))
        yield _Made(Sample(tuple(ids), tuple(answer)) if ids else None, negative=False, hard=False)


def _shown(questions: Sequence[_Question], examples: tuple[Example, ...]) -> list[list[VerificationExample]]:
    """The demonstrations of each; those of one number are searched together."""
    found: list[list[VerificationExample]] = [[] for _ in questions]
    for k in {question.shown for question in questions} - {0}:
        numbers = [i for i, question in enumerate(questions) if question.shown == k]
        near = _pool(examples).nearest([questions[i].asked for i in numbers], k)
        for i, shown in zip(numbers, near, strict=True):
            found[i] = shown
    return found


@lru_cache(maxsize=1)
def _pool(examples: tuple[Example, ...]) -> Pool:
    """The claims about training examples; made where they are first needed, not carried to the workers."""
    return Pool(examples)


def windowed(examples: Sequence[Example], max_tokens: int, chat: ChatTokenizer) -> tuple[tuple[Example, ...], int]:
    """Examples cut into windows as inference cuts texts, with the entities inside; and the number of entities cut."""
    made = []
    texts = [clean(example.text) for example in examples]
    counted = Counter[int]()
    for window in windows.split(texts, max_tokens, chat.count):
        example, end = examples[window.document], window.start + len(window.text)
        inside = tuple(e.shifted(-window.start) for e in example.entities if window.start <= e.start and e.end <= end)
        counted[window.document] += len(inside)
        made.append(Example(f"{example.id}@{window.start}", window.text, inside))
    lost = sum(len(x.entities) - counted[i] for i, x in enumerate(examples) if not texts[i].isspace())
    return tuple(made), lost


def mentions(examples: Sequence[Example]) -> dict[str, list[str]]:
    """All surface forms by type, as often as they occur."""
    found: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        for entity in example.entities:
            found[entity.type].append(entity.text)
    return dict(found)


def swap(example: Example, other: Callable[[Entity], str]) -> Example:
    """The example with every mention replaced by what ``other`` gives for it; equal mentions stay equal.

    An example whose entities overlap is left as it is.
    """
    entities = sorted(example.entities)
    if any(b.start < a.end for a, b in pairwise(entities)):
        return example
    new: dict[tuple[str, str], str] = {}
    text, last, moved = "", 0, []
    for entity in entities:
        surface = new.setdefault((entity.type, entity.text), other(entity))
        text += example.text[last : entity.start]
        moved.append(Entity(len(text), len(text) + len(surface), entity.type, surface))
        text += surface
        last = entity.end
    return replace(example, text=text + example.text[last:], entities=tuple(moved))
