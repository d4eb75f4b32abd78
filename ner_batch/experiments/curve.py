"""The learning curve: training subsets drawn from the examples, an adapter trained on each, and F1 by size."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from ner_batch import adapter as adapters
from ner_batch.config import dump
from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.experiments.grid import Combination, Subset, label, subsets, varying_axes
from ner_batch.experiments.settings import AblateConfig
from ner_batch.io import storage
from ner_batch.io.examples import examples_digest, examples_table
from ner_batch.jobs.record import digest
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.task import Task
from ner_batch.train import plan as train_plan
from ner_batch.train.settings import RunConfig, ServingConfig, TrainConfig


def draw_subset(examples: Sequence[Example], subset: Subset) -> tuple[Example, ...]:
    """The examples of a subset: of one seed the smaller are part of the larger.

    The first has an entity, for a set without any can teach nothing. Otherwise the draw is plain chance.

    Raises:
        UserError: there are fewer examples than the subset has, or none has an entity.
    """
    if subset.size == "all":
        return tuple(examples)
    if subset.size > len(examples):
        raise UserError(f"curve.sizes: {subset.size:,}, but gold.examples has {len(examples):,}: write `all`")
    order = random.Random(subset.seed).sample(list(examples), len(examples))  # noqa: S311 - repeatable, not secret
    first = next((i for i, example in enumerate(order) if example.entities), None)
    if first is None:
        raise UserError("gold.examples: no example has an entity")
    return (order[first], *order[:first], *order[first + 1 :])[: subset.size]


@dataclass(frozen=True, slots=True)
class Training:
    """One adapter to be trained, and the examples it sees. Its folder is named after all that decides it."""

    subset: Subset
    config: TrainConfig
    examples: tuple[Example, ...]


def plan_trainings(
    config: AblateConfig, train: TrainConfig, task: Task, examples: Sequence[Example], dev: Sequence[Example]
) -> list[Training]:
    """The training of every subset, as the curve's ``train`` and the examples of its gold.dev say. Nothing is written.

    Raises:
        UserError: the base's tokenizer or the adapter to go on from is not usable.
    """
    assert config.curve
    base = train.base
    chat = load_tokenizer(base.model, base.revision)
    prompts = PromptBuilder(formats.get(train.format), task, chat, base.max_model_len).fingerprint()
    # The config without what only says where something lies, or what is asked of the finished adapter.
    settings = {
        "base": base.model_copy(update={"model": "base"}),
        "task": "task",
        "gold": train.gold.model_copy(update={"train": "draw", "dev": "dev" if dev else None}),
        "output": "out",
        "run": RunConfig(workers=train.run.workers),
        "serving": ServingConfig(prompts=train.serving.prompts),
    }
    deciding = [
        dump(train.model_copy(update=settings)),
        [adapters.model_fingerprint(base.model, base.revision), task.digest(), prompts],
        examples_digest(dev),
        adapters.load(train.lora.init).digest if train.lora.init else "",
    ]
    trainings = []
    for subset in subsets(config.curve):
        subset_examples = draw_subset(examples, subset)
        name = f"{subset.name}-{digest([deciding, subset.seed, examples_digest(subset_examples)], 12)}"
        run = train.run.model_copy(update={"name": name, "seed": subset.seed})
        named = train.model_copy(update={"task": config.task, "run": run})
        trainings.append(Training(subset, _placed(named, Path(storage.absolute(config.output))), subset_examples))
    return trainings


def _placed(config: TrainConfig, folder: Path) -> TrainConfig:
    """A training's config with its subset, its checkpoints and its adapter in a folder."""
    gold = config.gold.model_copy(update={"train": str(folder / "draws" / f"{config.run.name}.parquet")})
    run = config.run.model_copy(update={"storage": str(folder / "runs")})
    return config.model_copy(update={"gold": gold, "run": run, "output": str(folder / "adapters" / config.run.name)})


def check_training(training: Training) -> None:
    """Let the training job check everything, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = _placed(training.config, Path(folder))
        storage.write_table(elsewhere.gold.train, examples_table(training.examples), {})
        train_plan.prepare(elsewhere)


def train_adapter(training: Training, console: Console) -> None:
    """Train one adapter, or go on where its training stopped; checkpoints are removed when it is there."""
    from ner_batch.train import job  # torch and peft take seconds to import

    storage.write_table(training.config.gold.train, examples_table(training.examples), {})
    job.run(train_plan.prepare(training.config), console)
    shutil.rmtree(Path(training.config.run.storage) / training.config.run.name, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Curve:
    """One way of reading: F1 of every subset by number of examples; ``flat``: one F1 that holds for every size."""

    name: str
    points: Mapping[int, tuple[float, ...]]
    flat: bool = False


def curves(f1: Mapping[Combination, float], total: int) -> list[Curve]:
    """A curve for each combination whatever its subset, out of strict micro F1; ``total`` is the size "all"."""
    count = {c.subset: total if c.subset.size == "all" else c.subset.size for c in f1 if c.subset}
    axes = [name for name in varying_axes(list(f1)) if name not in ("size", "seed")]
    points: dict[Combination, dict[int, tuple[float, ...]]] = {}
    for combination, value in f1.items():
        of_way = points.setdefault(replace(combination, subset=None), {})
        for size in [count[combination.subset]] if combination.subset else set(count.values()):
            of_way[size] = (*of_way.get(size, ()), value)
    return [
        Curve(label(way, axes), dict(sorted(by_size.items())), flat=way in f1)
        for way, by_size in points.items()
        if by_size  # there are subsets
    ]
