"""An ablation laid out: gold read, trainings and indexes planned, every recipe made, before an engine starts."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ner_batch import adapter as adapters
from ner_batch import config as configs
from ner_batch import retrieval
from ner_batch.data import Example
from ner_batch.errors import Problems, UserError
from ner_batch.experiments.grid import (
    Combination,
    Subset,
    combinations,
    draw_subset,
    index_kinds,
    recipe_config,
    subsets,
)
from ner_batch.experiments.settings import TRAINED, AblateConfig
from ner_batch.extraction.recipe import Recipe, make_recipe
from ner_batch.extraction.settings import RecipeConfig
from ner_batch.io import storage, tables
from ner_batch.io.examples import examples_digest, examples_table, read_examples
from ner_batch.jobs.cluster import check_lasting
from ner_batch.jobs.record import digest
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import load_tokenizer, template_text
from ner_batch.retrieval import ENCODED, MANIFEST
from ner_batch.task import Task, load_task
from ner_batch.train import plan as train_plan
from ner_batch.train.samples import read_gold
from ner_batch.train.settings import RunConfig, ServingConfig, TrainConfig
from ner_batch.verification.settings import VerifyConfig

METADATA = "ner_batch_cell"
"""The key of a run's file under which its digest, the seconds it took and its combination stand."""


@dataclass(frozen=True, slots=True)
class Training:
    """One adapter to be trained, and the examples it sees. Its folder is named after all that decides it."""

    subset: Subset
    config: TrainConfig
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A combination that can be read. ``digest`` names everything that decides its predictions, the gold included."""

    combination: Combination
    recipe: Recipe
    digest: str


@dataclass(frozen=True, slots=True)
class Plan:
    """An ablation that can start; ``runs`` has none of the curve's adapters before they are trained."""

    config: AblateConfig
    test: tuple[Example, ...]
    examples: tuple[Example, ...]
    """What demonstrations and subsets come from."""
    indexes: Mapping[Subset | None, Mapping[str, str]]
    """Folders by kind, for each set of examples that demonstrations come from; None: all of them, without a curve."""
    trainings: tuple[Training, ...] = ()
    runs: tuple[Run, ...] = field(default=(), repr=False)
    left_out: tuple[tuple[Combination, str], ...] = ()
    """Combinations that make no sense, with the reason."""


def prepare(config: AblateConfig, *, write_indexes: bool = True) -> Plan:
    """Check everything; indexes are built here, into the output folder.

    Without ``write_indexes`` nothing is written, and combinations that search an index are no runs of the plan.

    Raises:
        UserError: every problem found, one line each.
    """
    problems = Problems()
    problems.check(lambda: _check_output(config.output))
    test = problems.check(lambda: tuple(read_examples(config.gold.test)[: config.gold.limit]))
    if test == ():
        problems.lines.append(f"gold.test: {config.gold.test}: no example")
    train_file = config.curve.train if config.curve and TRAINED in config.axes.reader else None
    train = problems.check(lambda: configs.load(TrainConfig, train_file)) if train_file else None
    task = problems.check(lambda: load_task(config.task)) if train else None
    examples = problems.check(lambda: _read_examples(config, task))
    _check_readers(config, train, problems)
    of_training = problems.under(f"{train_file}: ")
    dev: tuple[Example, ...] | None = ()
    if train:
        _check_fit(config, train, problems, of_training)
        if dev_uri := train.gold.dev:
            dev = problems.under(f"{train_file}: gold.dev: ").check(lambda: read_gold(dev_uri, task))
    problems.stop_if_any()
    assert test is not None and examples is not None and dev is not None

    trainings: list[Training] = []
    if train and task:
        trainings = of_training.check(lambda: plan_trainings(config, train, task, examples, dev)) or []
        smallest = min(trainings, key=lambda training: len(training.examples), default=None)
        of_training.check(lambda: check_training(smallest) if smallest else None)
        problems.stop_if_any()
    indexes = _build_indexes(config, examples) if write_indexes else {}  # written, so only where all else is sound
    plan = Plan(config, test, examples, indexes, tuple(trainings))
    grid = [combination for combination in combinations(config) if combination.reader != TRAINED]
    return with_runs(plan, [combination for combination in grid if write_indexes or not combination.searches])


def dry_report(plan: Plan) -> list[str]:
    """What an ablation would do, by a plan without indexes, in lines."""
    grid = combinations(plan.config)
    done = sum(is_done(plan, run) for run in plan.runs)
    count, simple = len(grid) - len(plan.left_out), len(plan.runs)
    lines = [f"{count:,} cells of {len(plan.test):,} texts; of {simple:,} without index and training {done:,} are done"]
    if kinds := index_kinds(plan.config):
        searched = sum(combination.searches for combination in grid)
        lines.append(
            f"{searched:,} cells search an index ({', '.join(kinds)}; {len(plan.examples):,} examples): whether it "
            "can be built, and whether adapters were trained with it, is checked when the ablation runs"
        )
    if plan.trainings:
        there = sum(train_plan.finished(training.config.output) for training in plan.trainings)
        sizes = dict.fromkeys(len(training.examples) for training in plan.trainings)
        listed = ", ".join(f"{size:,}" for size in sizes)
        lines.append(f"{len(plan.trainings):,} adapters to train, {there:,} of them done; examples: {listed}")
    return [*lines, *(f"left out: {combination.name}: {reason}" for combination, reason in plan.left_out)]


def plan_trainings(
    config: AblateConfig, train: TrainConfig, task: Task, examples: Sequence[Example], dev: Sequence[Example]
) -> list[Training]:
    """The training of every subset, as the curve's ``train`` and the examples of its gold.dev say. Nothing is written.

    Raises:
        UserError: the base's tokenizer or the adapter to go on from is not usable.
    """
    assert config.curve
    base = train.base
    chat = load_tokenizer(base.model, base.revision, base.chat_template)
    prompts = PromptBuilder(formats.get(train.format), task, chat, base.max_model_len).fingerprint()
    # The config without what only says where something lies, or what is asked of the finished adapter.
    settings = {
        "base": base.model_copy(update={"model": "base", "chat_template": None}),
        "task": "task",
        "gold": train.gold.model_copy(update={"train": "draw", "dev": "dev" if dev else None}),
        "output": "out",
        "optimiser": train.optimiser.model_copy(update={"steps": None}),  # a matter of each size
        "run": RunConfig(workers=train.run.workers),
        "serving": ServingConfig(prompts=train.serving.prompts),
    }
    deciding = [
        configs.dump(train.model_copy(update=settings)),
        [adapters.model_fingerprint(base.model, base.revision), task.digest(), prompts],
        examples_digest(dev),
        adapters.load(train.lora.init).digest if train.lora.init else "",
    ]
    trainings = []
    for subset in subsets(config.curve):
        subset_examples = draw_subset(examples, subset)
        steps = config.curve.steps.get(subset.size, train.optimiser.steps)
        optimiser = train.optimiser.model_copy(update={"steps": steps})
        name = f"{subset.name}-{digest([deciding, steps, subset.seed, examples_digest(subset_examples)], 12)}"
        run = train.run.model_copy(update={"name": name, "seed": subset.seed})
        named = train.model_copy(update={"task": config.task, "run": run, "optimiser": optimiser})
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
        tables.write_table(elsewhere.gold.train, examples_table(training.examples), {})
        train_plan.prepare(elsewhere)


def with_runs(plan: Plan, grid: Sequence[Combination]) -> Plan:
    """The plan with some combinations to read, whose adapters must be there.

    Raises:
        UserError: none of them can be read.
    """
    trained = {training.subset: training.config.output for training in plan.trainings}
    runs, left_out = [], []
    for combination in grid:
        reader, subset = combination.reader, combination.subset
        adapter = trained[subset] if reader == TRAINED and subset else plan.config.adapters.get(reader)
        try:
            recipe = make_recipe(recipe_config(combination, plan.config, adapter, plan.indexes.get(subset, {})))
        except UserError as error:
            left_out.append((combination, str(error).splitlines()[0]))
            continue
        deciding = json.dumps(recipe.fingerprint, sort_keys=True)
        runs.append(Run(combination, recipe, examples_digest(plan.test, after=deciding)))
    if not runs and left_out:
        raise UserError(f"axes: no combination can be read; the first: {left_out[0][1]}")

    # One engine for all: room for the largest adapter, and a slot for each (an engine on a CPU gives none back).
    engine = plan.config.engine
    if of_adapters := [run.recipe for run in runs if run.recipe.tasks[0].adapter]:
        slots = len({recipe.tasks[0].adapter for recipe in of_adapters})
        rank = max(recipe.engine.max_lora_rank for recipe in of_adapters)
        engine = engine.model_copy(update={"max_loras": max(engine.max_loras, slots), "max_lora_rank": rank})
    runs = [replace(run, recipe=replace(run.recipe, engine=engine)) for run in runs]
    return replace(plan, runs=tuple(runs), left_out=tuple(left_out))


def predictions_file(plan: Plan, run: Run) -> str:
    """Where a run's predictions lie."""
    return storage.join(storage.absolute(plan.config.output), f"cells/{run.combination.name}.parquet")


def is_done(plan: Plan, run: Run) -> bool:
    """Whether the run's predictions are there, by exactly this recipe about exactly this gold."""
    uri = predictions_file(plan, run)
    try:
        return storage.exists(uri) and json.loads(tables.read_metadata(uri)[METADATA])["digest"] == run.digest
    except (KeyError, ValueError):  # not ours, or torn
        return False


def _check_output(folder: str) -> None:
    if "://" in folder:
        raise UserError(f"output: {folder}: the ablation writes to a local folder")
    check_lasting("output", folder)
    storage.check_writable(folder)


def _read_examples(config: AblateConfig, task: Task | None) -> tuple[Example, ...]:
    """The examples with text, enough of them for every subset; ``task``, that of trainings, must know their types."""
    uri, sizes = config.gold.examples, config.curve.sizes if config.curve else ()
    if uri is None or not (index_kinds(config) or config.curve):
        return ()
    examples = read_gold(uri, task) if task else tuple(x for x in read_examples(uri) if x.text.strip())
    for subset in {combination.subset for combination in combinations(config)}:
        if subset:
            draw_subset(examples, subset)
    if "all" in sizes and len(examples) in sizes:
        raise UserError(f"curve.sizes: {len(examples):,} are all of gold.examples: leave it out, `all` is there")
    return examples


def _check_readers(config: AblateConfig, train: TrainConfig | None, problems: Problems) -> None:
    """Note what keeps a reader from reading without demonstrations; for adapters to come the bare model stands in."""
    bare = RecipeConfig(engine=config.engine, task=config.task, windows=config.windows)
    there = dict.fromkeys(config.axes.reader)
    readers = [bare.model_copy(update={"adapter": config.adapters.get(name)}) for name in there if name != TRAINED]
    for verification in dict.fromkeys(config.axes.verification) if train else ():
        verify = None if verification == "none" else VerifyConfig()
        readers.append(bare.model_copy(update={"format": train and train.format, "verify": verify}))
    for reader in readers:
        try:
            make_recipe(reader)
        except UserError as error:
            # An adapter that was never trained without demonstrations is sound all the same.
            if any("demonstrations:" not in line for line in str(error).splitlines()):
                problems.lines += str(error).splitlines()


def _check_fit(config: AblateConfig, train: TrainConfig, problems: Problems, of_training: Problems) -> None:
    """The adapters of the curve must be of the engine's model, and the axes must ask them what they learn."""
    where, engine = of_training.place, config.engine
    served = problems.check(lambda: adapters.model_fingerprint(engine.model, engine.revision))
    base = of_training.check(lambda: adapters.model_fingerprint(train.base.model, train.base.revision))
    if served and base and served != base:
        models = f"base.model is {train.base.model} ({base}), but engine.model is {engine.model} ({served})"
        problems.lines.append(where + models)
    if template_text(engine.chat_template) != template_text(train.base.chat_template):
        problems.lines.append(f"engine.chat_template: {where}base.chat_template is another: name the same")
    if train.format not in config.axes.format:
        problems.lines.append(f"axes.format: {where}trains {train.format}: add it, or `trained` has nothing to read")
    kinds = {"none", *train.demonstrations.kind} if 0 in train.demonstrations.k else set(train.demonstrations.kind)
    if not (kinds or {"none"}) & set(config.axes.retrieval):
        problems.lines.append(f"axes.retrieval: {where}trains with {', '.join(sorted(kinds))}: add one of them")


def _build_indexes(config: AblateConfig, examples: tuple[Example, ...]) -> Mapping[Subset | None, Mapping[str, str]]:
    """Folders by kind for every subset that a combination depends on; built where they are not there yet."""
    folder = Path(storage.absolute(config.output)) / "indexes"
    indexes: dict[Subset | None, dict[str, str]] = defaultdict(dict)
    for subset in dict.fromkeys(combination.subset for combination in combinations(config)):
        if config.curve and subset is None:  # such a combination searches nothing
            continue
        subset_examples = draw_subset(examples, subset) if subset else examples
        for kind in index_kinds(config):
            encoder = config.encoder if kind in ENCODED else None
            name = f"{kind}-{examples_digest(subset_examples, after=json.dumps({'encoder': str(encoder)}))}"
            indexes[subset][kind] = str(folder / name)
            if not (folder / name / MANIFEST).exists():
                retrieval.build(subset_examples, kind, folder / name, encoder)
    return indexes
