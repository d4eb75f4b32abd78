"""An ablation laid out: gold read, indexes built, every cell's recipe made, before an engine starts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ner_batch import retrieval
from ner_batch.config import EngineConfig, RecipeConfig
from ner_batch.data import Example
from ner_batch.errors import Problems, UserError
from ner_batch.experiments import training
from ner_batch.experiments.cells import Cell, Places, cells, kinds, recipe_config
from ner_batch.experiments.draws import Draw, drawn
from ner_batch.experiments.settings import BASE, TRAINED, AblateConfig
from ner_batch.experiments.training import Training
from ner_batch.extract.recipe import Recipe, make_recipe
from ner_batch.io import storage
from ner_batch.io.examples import examples_digest
from ner_batch.jobs.cluster import check_lasting
from ner_batch.retrieval.manifest import ENCODED, MANIFEST

META = "ner_batch_cell"  # in a cell's file: its digest and the seconds it took


@dataclass(frozen=True, slots=True)
class Work:
    """A cell that can be read. ``digest`` names everything that decides its answers."""

    cell: Cell
    recipe: Recipe
    digest: str


@dataclass(frozen=True, slots=True)
class Plan:
    """An ablation that can start. ``left_out`` has cells that make no sense, with the reason.

    ``work`` has no cell of a curve's adapters before they are trained, see :func:`with_recipes`.
    """

    config: AblateConfig
    test: tuple[Example, ...]
    engine: EngineConfig
    indexes: Mapping[Draw | None, Mapping[str, str]]
    examples: int
    """As many as demonstrations and draws come from."""
    known: int
    """Texts of ``test`` that stand among them."""
    trainings: tuple[Training, ...] = ()
    work: tuple[Work, ...] = field(default=(), repr=False)
    left_out: tuple[tuple[Cell, str], ...] = ()


def prepare(config: AblateConfig) -> Plan:
    """Check everything; indexes are built here, into the output folder.

    Raises:
        UserError: every problem found, one line each.
    """
    problems = Problems()
    problems.check(lambda: _check_output(config.output))
    test = problems.check(lambda: _test(config))
    examples = problems.check(lambda: _examples(config))
    for reader in dict.fromkeys(config.axes.reader):
        if reader != TRAINED:
            problems.check(partial(_check_reader, config, reader))
    train = problems.check(lambda: training.settings(config)) if TRAINED in config.axes.reader else None
    if train:
        problems.check(partial(training.check, config, train))
    problems.stop_if_any()
    assert test is not None
    assert examples is not None
    folder = Path(config.output).expanduser().resolve()
    needed = training.trainings(config, train, examples, folder) if train else []
    indexes = _indexes(config, examples, folder)  # written, so only where all else is sound
    known = len({x.text.strip() for x in test} & {x.text.strip() for x in examples})
    plan = Plan(config, test, config.engine, indexes, len(examples), known, tuple(needed))
    return with_recipes(plan, [cell for cell in cells(config) if cell.reader != TRAINED])


def with_recipes(plan: Plan, chosen: Sequence[Cell]) -> Plan:
    """The plan with some cells to read, whose adapters must be there.

    Raises:
        UserError: none of the cells can be read.
    """
    work, left_out = [], []
    for cell in chosen:
        try:
            recipe = make_recipe(recipe_config(cell, plan.config, _places(plan, cell)))
        except UserError as error:
            left_out.append((cell, str(error).splitlines()[0]))
            continue
        work.append(
            Work(cell, recipe, examples_digest(plan.test, after=json.dumps(recipe.fingerprint, sort_keys=True)))
        )
    if not work and left_out:
        raise UserError(f"axes: no combination can be read; the first: {left_out[0][1]}")
    engine = _room(plan.config.engine, [one.recipe for one in work])
    made = tuple(replace(one, recipe=replace(one.recipe, engine=engine)) for one in work)
    return replace(plan, engine=engine, work=made, left_out=tuple(left_out))


def _places(plan: Plan, cell: Cell) -> Places:
    trained = {one.draw: one.config.output for one in plan.trainings}
    adapter = trained[cell.draw] if cell.reader == TRAINED and cell.draw else plan.config.adapters.get(cell.reader)
    return Places(adapter, plan.indexes.get(cell.draw, {}))


def _test(config: AblateConfig) -> tuple[Example, ...]:
    examples = retrieval.read_examples(config.gold.test)[: config.gold.limit]
    if not examples:
        raise UserError(f"gold.test: {config.gold.test}: no example")
    return tuple(examples)


def _examples(config: AblateConfig) -> tuple[Example, ...]:
    """Where demonstrations come from: the examples with text, enough of them for every draw."""
    if not (kinds(config) or config.curve):
        return ()
    assert config.gold.examples
    examples = tuple(x for x in retrieval.read_examples(config.gold.examples) if x.text.strip())
    for draw in {cell.draw for cell in cells(config) if cell.draw}:
        drawn(examples, draw)
    sizes = config.curve.sizes if config.curve else ()
    if "all" in sizes and len(examples) in sizes:
        raise UserError(f"curve.sizes: {len(examples):,} are all of gold.examples: leave it out, `all` is there")
    return examples


def _check_output(folder: str) -> None:
    if "://" in folder:
        raise UserError(f"output: {folder}: the ablation writes to a local folder")
    check_lasting("output", folder)
    storage.check_writable(folder)


def _indexes(config: AblateConfig, examples: tuple[Example, ...], folder: Path) -> dict[Draw | None, Mapping[str, str]]:
    """An index of every kind for every training set that a cell depends on."""
    sets = dict.fromkeys(cell.draw for cell in cells(config))
    needed = [draw for draw in sets if draw or not config.curve]  # of a curve, a cell without a draw searches nothing
    return {draw: _built(config, drawn(examples, draw) if draw else examples, folder) for draw in needed}


def _built(config: AblateConfig, examples: tuple[Example, ...], folder: Path) -> dict[str, str]:
    """Indexes by kind, built where they are not there yet: their names have a digest of the examples."""
    made = {}
    for kind in kinds(config):
        encoder = config.encoder if kind in ENCODED else None
        name = f"{kind}-{examples_digest(examples, after=json.dumps({'encoder': str(encoder)}))}"
        made[kind] = str(folder / "indexes" / name)
        if not storage.exists(storage.join(made[kind], MANIFEST)):
            retrieval.build(examples, kind, made[kind], encoder)
    return made


def _check_reader(config: AblateConfig, reader: str) -> None:
    """The reader must be sound by itself: told as its adapter tells, without demonstrations or verification."""
    adapter = None if reader == BASE else config.adapters[reader]
    own = RecipeConfig(engine=config.engine, task=config.task, adapter=adapter, windows=config.windows)
    try:
        make_recipe(own)
    except UserError as error:
        # An adapter that was never trained without demonstrations is sound all the same.
        if any("demonstrations:" not in line for line in str(error).splitlines()):
            raise


def _room(engine: EngineConfig, recipes: list[Recipe]) -> EngineConfig:
    """One engine for all cells: room for the largest adapter, and a slot for each (a CPU engine gives none back)."""
    served = {recipe.tasks[0].adapter for recipe in recipes} - {None}
    ranks = [recipe.engine.max_lora_rank for recipe in recipes if recipe.tasks[0].adapter]
    room = {"max_lora_rank": max(ranks, default=engine.max_lora_rank), "max_loras": max(engine.max_loras, len(served))}
    return engine.model_copy(update=room)


def path(plan: Plan, work: Work) -> str:
    """Where a cell's answers lie."""
    return str(Path(plan.config.output).expanduser().resolve() / "cells" / f"{work.cell.name}.parquet")


def done(plan: Plan, work: Work) -> bool:
    """Whether the cell's answers are there, by exactly this recipe about exactly this gold."""
    uri = path(plan, work)
    try:
        return storage.exists(uri) and json.loads(storage.read_metadata(uri)[META])["digest"] == work.digest
    except (KeyError, ValueError):  # not ours, or torn
        return False
