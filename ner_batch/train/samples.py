"""Gold examples for training: read, split, and made samples by the prompt builder and the formats of inference."""

from __future__ import annotations

import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from ner_batch import retrieval
from ner_batch.data import Entity, Example, clean
from ner_batch.errors import UserError
from ner_batch.io.examples import read_examples
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.retrieval import ENCODED, nearest
from ner_batch.task import Task
from ner_batch.text import windows
from ner_batch.train.packing import Sample
from ner_batch.train.settings import AugmentationConfig, DemonstrationsConfig, GoldConfig
from ner_batch.verification import question as verify
from ner_batch.verification.examples import VerificationExample, verification_examples
from ner_batch.verification.pool import Mention, Pool

LISTED_ROWS = 5
Neighbours = tuple[tuple[Example, ...], ...]
"""The neighbours of each example of a set, the nearest last."""
Question = tuple[Mention, bool, int]
"""Of verification: the mention asked about, whether it is an entity, the number of demonstrations."""


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


def read_gold(uri: str, task: Task | None) -> tuple[Example, ...]:
    """Examples with text, whose types the task knows."""
    examples = tuple(x for x in read_examples(uri) if x.text.strip())
    if not examples:
        raise UserError(f"{uri}: no example with text")
    wrong = [(x.id, e.type) for x in examples for e in x.entities if task and e.type not in task.labels]
    if wrong and task:
        rows = "; ".join(f"{name} has {kind!r}" for name, kind in dict.fromkeys(wrong[:LISTED_ROWS]))
        raise UserError(
            f"{uri}: {len(wrong):,} entities of types the task does not know ({', '.join(task.names)}): {rows}: "
            "add them to the task file, or take them out of the gold"
        )
    if not any(example.entities for example in examples):
        raise UserError(f"{uri}: no example has an entity: there is nothing to learn")
    return examples


def hold_out(
    examples: Sequence[Example], gold: GoldConfig, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Examples to train on and a random share to choose by; at least one of each, and an entity to train on.

    Of a text that is held out no other copy is trained on.
    """
    order = random.Random(seed).sample(range(len(examples)), len(examples))  # noqa: S311 - repeatable, not secret
    count = min(max(1, round(gold.dev_share * len(examples))), len(examples) - 1)
    if count < 1:
        raise UserError(f"{gold.train}: one example is too few: name gold.dev")
    if not any(examples[i].entities for i in order[count:]):
        annotated = next(place for place, i in enumerate(order) if examples[i].entities)
        order[annotated], order[-1] = order[-1], order[annotated]
    dev = tuple(examples[i] for i in order[:count])
    held_out = {example.text.strip() for example in dev}
    train = tuple(x for x in examples if x.text.strip() not in held_out)
    if not any(example.entities for example in train):
        raise UserError(f"{gold.train}: too few different texts to hold some out: name gold.dev")
    return train, dev


def with_neighbours(
    train: tuple[Example, ...], dev: tuple[Example, ...], config: DemonstrationsConfig
) -> tuple[ExampleSet, ExampleSet]:
    """Both with the training examples nearest to each by every kind; an index never gives a text itself."""
    of_train: list[Neighbours] = []
    of_dev: list[Neighbours] = []
    for kind in dict.fromkeys(config.kind):
        with tempfile.TemporaryDirectory() as folder:
            retrieval.build(train, kind, Path(folder) / "index", config.encoder if kind in ENCODED else None)
            index = retrieval.open_index(Path(folder) / "index")
            for examples, neighbours in ((train, of_train), (dev, of_dev)):
                neighbours.append(tuple(map(tuple, index.nearest([x.text for x in examples], max(config.k)))))
    return ExampleSet(train, tuple(of_train)), ExampleSet(dev, tuple(of_dev))


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

    samples: list[Sample | None] = []
    negatives: dict[int, bool] = {}  # those whose type is not there, by their place in samples: whether they are hard
    questions: list[Question] = []
    unannotated: list[Question] = []  # about examples without an entity: all are false
    whole, fraction = divmod(augmentation.verification, 1)
    for number, example in enumerate(data.examples):
        (k,) = rng.choices(list(shares), list(shares.values()))
        kind = rng.randrange(len(data.neighbours)) if len(data.neighbours) > 1 else 0
        neighbours = data.neighbours[kind][number] if data.neighbours else ()
        swapped, question_seed = swap(example, surface), f"{seed}-{number}"
        for sample, hard in _extraction_samples(swapped, neighbours, k, builder):
            if sample and hard is not None:
                negatives[len(samples)] = hard
            samples.append(sample)
        count = int(whole) + (random.Random(question_seed).random() < fraction)  # noqa: S311 - repeatable, not secret
        cleaned = replace(swapped, text=clean(swapped.text))
        claims = verification_examples(cleaned, builder.task.names, count, question_seed)
        target = questions if example.entities else unannotated
        target += [(Mention(claim.text, claim.entity, example.text), claim.is_true, k) for claim in claims]
    samples += _verification_samples(_balanced(questions, unannotated, rng), data.examples, builder)

    hard_first = sorted(negatives, key=lambda place: (not negatives[place], rng.random()))
    surplus = set(hard_first[round(augmentation.negatives * len(negatives)) :])
    selected = [sample for place, sample in enumerate(samples) if sample and place not in surplus]
    return selected, Counter({"too long": samples.count(None), "negative": len(surplus)})


def _balanced(questions: Sequence[Question], unannotated: Sequence[Question], rng: random.Random) -> list[Question]:
    """As many questions as there are about annotated examples, of which half are false by themselves.

    Up to half of the false ones make room for questions about other examples. Were those all added, an adapter for a
    set with entities in a third of its sentences would learn to say no: of 1,500 claims about MSRA 281 were true, and
    it rejected every entity there was.
    """
    false = [place for place, (_, is_true, _) in enumerate(questions) if not is_true]
    count = min(len(unannotated), len(false) // 2)
    replaced = set(rng.sample(false, count))
    return [x for place, x in enumerate(questions) if place not in replaced] + rng.sample(unannotated, count)


def _extraction_samples(
    example: Example, neighbours: Sequence[Example], k: int, builder: PromptBuilder
) -> Iterator[tuple[Sample | None, bool | None]]:
    """One sample per label group, with the nearest ``k`` demonstrations; None if it is too long.

    With it whether it is a hard negative: one of a type that a neighbour has; None if it is no negative at all.
    """
    text, groups = clean(example.text), builder.format.groups(builder.task)
    for labels in groups:
        prompt = builder.build(text, labels, nearest(neighbours, k))
        answer = builder.chat.encode_answer(builder.format.answer(text, example.entities, labels, builder.task))
        fits = prompt is not None and len(prompt.token_ids) + len(answer) <= builder.max_model_len
        sample = Sample(tuple(prompt.token_ids), tuple(answer)) if prompt and fits else None
        negative = len(groups) > 1 and not any(e.type in labels for e in example.entities)
        yield sample, any(e.type in labels for x in neighbours for e in x.entities) if negative else None


def _verification_samples(
    questions: Sequence[Question], examples: tuple[Example, ...], builder: PromptBuilder
) -> Iterator[Sample | None]:
    """The samples of questions, shown what inference would show; None: too long."""
    numbers_of_claims = {k for _, _, k in questions}
    pool = Pool(examples if any(numbers_of_claims) else ())
    demonstrations: dict[int, list[VerificationExample]] = {}
    for k in numbers_of_claims:  # those with equally many are searched together
        places = [place for place, question in enumerate(questions) if question[2] == k]
        demonstrations |= zip(places, pool.nearest([questions[place][0] for place in places], k), strict=True)
    prompts = verify.Questions(builder.task, builder.chat, builder.max_model_len)
    for place, (about, is_true, _) in enumerate(questions):
        prompt = prompts.prompt(about.text, about.entity, demonstrations[place])
        answer = builder.chat.encode_answer(verify.answer(builder.task, is_true))
        yield Sample(tuple(prompt), tuple(answer)) if prompt else None


def windowed(examples: Sequence[Example], max_tokens: int, chat: ChatTokenizer) -> tuple[tuple[Example, ...], int]:
    """Examples cut into windows as inference cuts texts, with the entities inside; and the number of entities cut."""
    cut = []
    for window in windows.split([clean(example.text) for example in examples], max_tokens, chat.count):
        example, end = examples[window.document], window.start + len(window.text)
        inside = tuple(e.shifted(-window.start) for e in example.entities if window.start <= e.start and e.end <= end)
        cut.append(Example(f"{example.id}@{window.start}", window.text, inside))
    return tuple(cut), sum(len(x.entities) for x in examples) - sum(len(x.entities) for x in cut)


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
