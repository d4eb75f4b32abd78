"""The adapters of a learning curve: one per draw, each by the training job itself."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ner_batch import adapter as adapters
from ner_batch import config as configs
from ner_batch import retrieval
from ner_batch.config import RecipeConfig, VerifyConfig, dump
from ner_batch.data import Example, examples_table
from ner_batch.errors import JobError, Problems, UserError
from ner_batch.experiments.draws import Draw, drawn, draws
from ner_batch.experiments.settings import AblateConfig
from ner_batch.extract.recipe import make_recipe
from ner_batch.io import storage
from ner_batch.io.examples import examples_digest
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.task import load_task
from ner_batch.train import gold as golds
from ner_batch.train.settings import RunConfig, ServingConfig, TrainConfig


@dataclass(frozen=True, slots=True)
class Training:
    """One adapter to be trained, and the set it sees."""

    draw: Draw
    config: TrainConfig
    examples: tuple[Example, ...]

    @property
    def done(self) -> bool:
        """Whether the adapter is there and proved; its folder is named after all that decides it."""
        from ner_batch.train.plan import finished

        return finished(self.config.output)


def trainings(config: AblateConfig, train: TrainConfig, examples: Sequence[Example], folder: Path) -> list[Training]:
    """Every draw's training; adapters, sets and checkpoints lie in ``folder``. Nothing is written."""
    assert config.curve
    dev = retrieval.read_examples(train.gold.dev) if train.gold.dev else ()
    init = adapters.load(train.lora.init).digest if train.lora.init else ""
    common = [dump(_without_places(train)), _prompts(config, train), examples_digest(dev), init]
    made = []
    for draw in draws(config.curve):
        chosen = drawn(examples, draw)
        told = json.dumps([common, draw.seed, examples_digest(chosen)])
        name = f"{draw.name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
        made.append(Training(draw, _placed(train, draw, config.task, folder, name), chosen))
    return made


def _prompts(config: AblateConfig, train: TrainConfig) -> list[str]:
    """What the adapters will be asked: base, task, and the prompts made of them."""
    base = adapters.model_fingerprint(train.base.model, train.base.revision)
    task, chat = load_task(config.task), load_tokenizer(train.base.model, train.base.revision)
    builder = PromptBuilder(formats.get(train.format), task, chat, train.base.max_model_len)
    return [base, task.digest(), builder.fingerprint()]


def _without_places(train: TrainConfig) -> TrainConfig:
    """The config without what only says where something lies, or what is asked of the result."""
    base = train.base.model_copy(update={"model": "base"})
    gold = train.gold.model_copy(update={"train": "draw", "dev": "dev" if train.gold.dev else None})
    run, serving = RunConfig(workers=train.run.workers), ServingConfig(prompts=train.serving.prompts)
    return train.model_copy(
        update={"base": base, "task": "task", "gold": gold, "output": "out", "run": run, "serving": serving}
    )


def _placed(train: TrainConfig, draw: Draw, task: str, folder: Path, name: str) -> TrainConfig:
    gold = train.gold.model_copy(update={"train": str(folder / "draws" / f"{name}.parquet")})
    run = train.run.model_copy(update={"name": name, "seed": draw.seed, "storage": str(folder / "runs")})
    places = {"task": task, "gold": gold, "run": run, "output": str(folder / "adapters" / name)}
    return train.model_copy(update=places)


def check(config: AblateConfig, train: TrainConfig) -> None:
    """What can be wrong with the trainings of a curve, before the first begins.

    Raises:
        UserError: every problem found, one line each.
    """
    assert config.curve and config.gold.examples
    where, wanted = config.curve.train, config.gold.examples
    problems = Problems()
    engine = problems.check(lambda: adapters.model_fingerprint(config.engine.model, config.engine.revision))
    base = problems.check(lambda: adapters.model_fingerprint(train.base.model, train.base.revision))
    if engine and base and engine != base:
        told = f"base.model is {train.base.model} ({base}), but engine.model is {config.engine.model} ({engine})"
        problems.lines.append(f"{where}: {told}")
    if train.format not in config.axes.format:
        problems.lines.append(f"axes.format: {where} trains {train.format}: add it, or `trained` has nothing to read")
    kinds = {"none", *train.demonstrations.kind} if 0 in train.demonstrations.k else set(train.demonstrations.kind)
    if not (kinds or {"none"}) & set(config.axes.retrieval):
        problems.lines.append(f"axes.retrieval: {where} trains with {', '.join(sorted(kinds))}: add one of them")
    problems.stop_if_any()
    problems.check(lambda: _check_reading(config, train))
    examples = problems.check(lambda: golds.read(wanted, load_task(config.task)))
    dev = train.gold.dev
    if dev:
        problems.under(f"{where}: gold.dev: ").check(lambda: golds.read(dev, load_task(config.task)))
    problems.stop_if_any()
    assert examples
    with tempfile.TemporaryDirectory() as folder:
        every = trainings(config, train, examples, Path(folder))
        _check_one(min(every, key=lambda training: len(training.examples)), str(where))


def _check_reading(config: AblateConfig, train: TrainConfig) -> None:
    """The prompts that the adapters will be asked must fit the engine; the bare model stands in for them."""
    bare = RecipeConfig(engine=config.engine, task=config.task, windows=config.windows, format=train.format)
    for verification in dict.fromkeys(config.axes.verification):
        verify = None if verification == "none" else VerifyConfig()
        make_recipe(bare.model_copy(update={"verify": verify}))


def _check_one(training: Training, where: str) -> None:
    """Let the training job check the smallest of them, as it would when it begins."""
    from ner_batch.train.plan import prepare

    _write(training)
    try:
        prepare(training.config)
    except UserError as error:
        raise UserError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from None


def _write(training: Training) -> None:
    storage.write_table(training.config.gold.train, examples_table(training.examples), {})


def run(training: Training, console: Console) -> None:
    """Train one adapter, or go on where its training stopped; checkpoints are removed when it is there.

    Raises:
        JobError: as the training job does, or the draw is one that it cannot take.
    """
    from ner_batch.train import job
    from ner_batch.train.plan import prepare

    _write(training)
    try:
        job.run(prepare(training.config), console)
    except UserError as error:
        raise JobError("; ".join(str(error).splitlines())) from None
    shutil.rmtree(Path(training.config.run.storage) / training.config.run.name, ignore_errors=True)


def settings(config: AblateConfig) -> TrainConfig:
    """The training config that the curve names."""
    assert config.curve and config.curve.train
    return configs.load(TrainConfig, config.curve.train)
