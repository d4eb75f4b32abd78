"""Gold examples to training samples, through the prompt builder and the formats that inference uses."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ner_batch.data import Entity, Example, clean
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.retrieval import nearest
from ner_batch.text import windows
from ner_batch.train.packing import Sample
from ner_batch.train.settings import AugmentationConfig
from ner_batch.verification import question as verify
from ner_batch.verification.examples import VerificationExample, verification_examples
from ner_batch.verification.pool import Mention, Pool

Neighbours = tuple[tuple[Example, ...], ...]
"""The neighbours of each example of a set, the nearest last."""


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """Examples that fit one window each, and per kind of retrieval the neighbours of each, never itself."""

    examples: tuple[Example, ...]
    neighbours: tuple[Neighbours, ...] = ()

    def demonstrations(self, k: int) -> list[Sequence[Example]]:
        """The nearest ``k`` of each example by the first kind, nearest last."""
        if not self.neighbours:
            return [()] * len(self.examples)
        return [nearest(neighbours, k) for neighbours in self.neighbours[0]]


def draw_epoch(
    data: ExampleSet, builder: PromptBuilder, shares: Mapping[int, float], augmentation: AugmentationConfig, seed: str
) -> tuple[list[Sample], Counter[str]]:
    """The samples of an epoch, and how many were left out by reason. The same seed gives the same samples.

    ``shares`` are of the samples by number of demonstrations. Of the negatives hard ones are kept first.
    """
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    surfaces: dict[str, list[str]] = defaultdict(list)  # by type, as often as they occur
    for entity in (e for example in data.examples for e in example.entities):
        surfaces[entity.type].append(entity.text)

    def surface(entity: Entity) -> str:
        share = augmentation.swapped
        return rng.choice(surfaces[entity.type]) if share and rng.random() < share else entity.text

    candidates: list[_Candidate] = []
    questions: list[_VerificationQuestion] = []
    whole, fraction = divmod(augmentation.verification, 1)
    for number, example in enumerate(data.examples):
        (k,) = rng.choices(list(shares), list(shares.values()))
        kind = rng.randrange(len(data.neighbours)) if len(data.neighbours) > 1 else 0
        neighbours = data.neighbours[kind][number] if data.neighbours else ()
        swapped, question_seed = swap(example, surface), f"{seed}-{number}"
        candidates += _extraction_candidates(swapped, neighbours, k, builder)
        count = int(whole) + (random.Random(question_seed).random() < fraction)  # noqa: S311 - repeatable, not secret
        cleaned = replace(swapped, text=clean(swapped.text))
        for claim in verification_examples(cleaned, builder.task.names, count, question_seed):
            mention = Mention(claim.text, claim.entity, example.text)
            questions.append(_VerificationQuestion(mention, claim.is_true, k))
    candidates += _verification_candidates(questions, data.examples, builder)

    negatives = [i for i, candidate in enumerate(candidates) if candidate.sample and candidate.negative]
    negatives.sort(key=lambda i: (not candidates[i].hard, rng.random()))
    surplus = set(negatives[round(augmentation.negatives * len(negatives)) :])
    samples = [c.sample for i, c in enumerate(candidates) if c.sample and i not in surplus]
    too_long = sum(candidate.sample is None for candidate in candidates)
    return samples, Counter({"too long": too_long, "negative": len(surplus)})


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A prompt's sample, None if it is too long. A negative asks a per-type format for a type that is not there.

    It is hard where one of the example's neighbours has an entity of that type.
    """

    sample: Sample | None
    negative: bool = False
    hard: bool = False


@dataclass(frozen=True, slots=True)
class _VerificationQuestion:
    """A question about an entity, its answer, and how many demonstrations are to be found for it."""

    about: Mention
    answer: bool
    k: int


def _extraction_candidates(
    example: Example, neighbours: Sequence[Example], k: int, builder: PromptBuilder
) -> Iterator[_Candidate]:
    """One candidate per label group, with the nearest ``k`` demonstrations."""
    text, groups = clean(example.text), builder.format.groups(builder.task)
    for labels in groups:
        prompt = builder.build(text, labels, nearest(neighbours, k))
        answer = builder.chat.encode_answer(builder.format.answer(text, example.entities, labels, builder.task))
        fits = prompt is not None and len(prompt.token_ids) + len(answer) <= builder.max_model_len
        sample = Sample(tuple(prompt.token_ids), tuple(answer)) if prompt and fits else None
        negative = len(groups) > 1 and not any(e.type in labels for e in example.entities)
        hard = negative and any(e.type in labels for other in neighbours for e in other.entities)
        yield _Candidate(sample, negative, hard)


def _verification_candidates(
    questions: Sequence[_VerificationQuestion], examples: tuple[Example, ...], builder: PromptBuilder
) -> Iterator[_Candidate]:
    """The samples of verification questions, each with the demonstrations that inference would show."""
    demonstrations: list[Sequence[VerificationExample]] = [()] * len(questions)
    numbers_of_claims = {question.k for question in questions} - {0}
    pool = Pool(examples if numbers_of_claims else ())
    for k in numbers_of_claims:  # those with equally many are searched together
        numbers = [i for i, question in enumerate(questions) if question.k == k]
        for i, nearest_claims in zip(numbers, pool.nearest([questions[i].about for i in numbers], k), strict=True):
            demonstrations[i] = nearest_claims
    prompts = verify.Questions(builder.task, builder.chat, builder.max_model_len)
    for question, claims in zip(questions, demonstrations, strict=True):
        prompt = prompts.prompt(question.about.text, question.about.entity, claims)
        answer = builder.chat.encode_answer(verify.answer(builder.task, question.answer))
        yield _Candidate(Sample(tuple(prompt), tuple(answer)) if prompt else None)


def windowed(examples: Sequence[Example], max_tokens: int, chat: ChatTokenizer) -> tuple[tuple[Example, ...], int]:
    """Examples cut into windows as inference cuts texts, with the entities inside; and the number of entities cut."""
    cut = []
    texts = [clean(example.text) for example in examples]
    entities_inside = Counter[int]()
    for window in windows.split(texts, max_tokens, chat.count):
        example, end = examples[window.document], window.start + len(window.text)
        inside = tuple(e.shifted(-window.start) for e in example.entities if window.start <= e.start and e.end <= end)
        entities_inside[window.document] += len(inside)
        cut.append(Example(f"{example.id}@{window.start}", window.text, inside))
    lost = sum(len(x.entities) - entities_inside[i] for i, x in enumerate(examples) if not texts[i].isspace())
    return tuple(cut), lost


def swap(example: Example, surface: Callable[[Entity], str]) -> Example:
    """The example with every mention replaced by what ``surface`` gives for it; equal mentions stay equal.

    An example whose entities overlap is left as it is.
    """
    entities = sorted(example.entities)
    if any(b.start < a.end for a, b in pairwise(entities)):
        return example
    replacements: dict[tuple[str, str], str] = {}
    text, last, moved = "", 0, []
    for entity in entities:
        replacement = replacements.setdefault((entity.type, entity.text), surface(entity))
        text += example.text[last : entity.start]
        moved.append(Entity(len(text), len(text) + len(replacement), entity.type, replacement))
        text += replacement
        last = entity.end
    return replace(example, text=text + example.text[last:], entities=tuple(moved))
