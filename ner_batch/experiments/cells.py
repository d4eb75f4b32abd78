"""The cells of an ablation: every sensible combination of the axes, and the extraction recipe of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product

from ner_batch.config import Decoding, FormatName, RecipeConfig, RetrievalConfig, VerifyConfig
from ner_batch.experiments.draws import Draw, draws
from ner_batch.experiments.settings import TRAINED, AblateConfig, Verification


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination. ``retrieval`` "none" has ``k`` 0; ``draw`` is None where it makes no difference."""

    reader: str
    format: FormatName
    decoding: Decoding
    retrieval: str
    k: int
    verification: Verification
    draw: Draw | None = None

    @property
    def name(self) -> str:
        """Its file's name: readable, and different for different cells."""
        shown = [self.reader, self.format, self.decoding, self.retrieval, f"k{self.k}", f"verify-{self.verification}"]
        return "_".join([*shown, self.draw.name] if self.draw else shown)

    @property
    def values(self) -> dict[str, object]:
        """Its place on every axis."""
        values = asdict(self)
        del values["draw"]
        return values | {"size": self.draw and self.draw.size, "seed": self.draw and self.draw.seed}


def cells(config: AblateConfig) -> list[Cell]:
    """Every combination once, in the order of the axes."""
    axes = config.axes
    every = product(axes.reader, axes.format, axes.decoding, _shown(config), axes.verification)
    made = (Cell(reader, form, decoding, *shown, verified) for reader, form, decoding, shown, verified in every)
    return [replace(cell, draw=draw) for cell in dict.fromkeys(made) for draw in _draws(cell, config)]


def _draws(cell: Cell, config: AblateConfig) -> Sequence[Draw | None]:
    """The training sets that make a difference to a cell; one None where none does."""
    if config.curve is None or not (cell.reader == TRAINED or cell.k or cell.verification == "few-shot"):
        return [None]
    return [d for d in draws(config.curve) if cell.reader == TRAINED or d.size != "all" or d.seed == 0]


def _shown(config: AblateConfig) -> Iterator[tuple[str, int]]:
    """Kinds of retrieval with their numbers of demonstrations."""
    for kind in config.axes.retrieval:
        for k in (0,) if kind == "none" else config.axes.k:
            yield kind, k


def kinds(config: AblateConfig) -> tuple[str, ...]:
    """The indexes that some cell searches. Few-shot verification without retrieval takes the first, or lexical."""
    wanted = [kind for kind in config.axes.retrieval if kind != "none"]
    few_shot = ["lexical"] if "few-shot" in config.axes.verification and not wanted else []
    return tuple(dict.fromkeys([*wanted, *few_shot]))


@dataclass(frozen=True, slots=True)
class Places:
    """Where a cell's adapter lies, and its indexes by kind."""

    adapter: str | None
    indexes: Mapping[str, str]


def recipe_config(cell: Cell, config: AblateConfig, places: Places) -> RecipeConfig:
    """What `extract` would be told for this cell."""
    few_shot = cell.verification == "few-shot"
    kind = cell.retrieval if cell.retrieval != "none" else kinds(config)[0] if few_shot else None
    verify = None if cell.verification == "none" else VerifyConfig(k=config.verify_k if few_shot else 0)
    return RecipeConfig(
        engine=config.engine,
        task=config.task,
        adapter=places.adapter,
        format=cell.format,
        decoding=cell.decoding,
        retrieval=RetrievalConfig(index=places.indexes[kind] if kind else None, k=cell.k),
        verify=verify,
        windows=config.windows,
    )
