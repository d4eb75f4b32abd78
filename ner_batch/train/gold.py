"""Gold examples for training: read and checked, split, and each with the training examples nearest to it."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ner_batch import retrieval
from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.retrieval.manifest import ENCODED
from ner_batch.task import Task
from ner_batch.train.samples import ExampleSet, Neighbours
from ner_batch.train.settings import DemonstrationsConfig, GoldConfig

LISTED_ROWS = 5


def read(uri: str, task: Task | None) -> tuple[Example, ...]:
    """Examples with text, whose types the task knows."""
    examples = tuple(x for x in retrieval.read_examples(uri) if x.text.strip())
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
    """Examples to train on and a random share to choose by; at least one of each, and an entity to train on."""
    order = random.Random(seed).sample(range(len(examples)), len(examples))  # noqa: S311 - repeatable, not secret
    count = min(max(1, round(gold.dev_share * len(examples))), len(examples) - 1)
    if count < 1:
        raise UserError(f"{gold.train}: one example is too few: name gold.dev")
    if not any(examples[i].entities for i in order[count:]):
        annotated = next(place for place, i in enumerate(order) if examples[i].entities)
        order[annotated], order[-1] = order[-1], order[annotated]
    dev = set(order[:count])
    return tuple(x for i, x in enumerate(examples) if i not in dev), tuple(examples[i] for i in order[:count])


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
