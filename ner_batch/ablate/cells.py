"""The cells of an ablation: every sensible combination of the axes, and the extraction recipe of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product

from ner_batch.ablate.settings import AblateConfig, Verification
from ner_batch.config import Decoding, FormatName, RecipeConfig, RetrievalConfig, VerifyConfig


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination. ``retrieval`` "none" has ``k`` 0."""

    reader: str
    format: FormatName
    decoding: Decoding
    retrieval: str
    k: int
    verification: Verification

    @property
    def name(self) -> str:
        """Its file's name: readable, and different for different cells."""
        shown = [self.reader, self.format, self.decoding, self.retrieval, f"k{self.k}", f"verify-{self.verification}"]
        return "_".join(shown)

    @property
    def values(self) -> dict[str, object]:
        """Its place on every axis."""
        return asdict(self)


def cells(config: AblateConfig) -> list[Cell]:
    """Every combination once, in the order of the axes."""
    axes = config.axes
    every = product(axes.reader, axes.format, axes.decoding, _shown(config), axes.verification)
    made = (Cell(reader, form, decoding, *shown, verified) for reader, form, decoding, shown, verified in every)
    return list(dict.fromkeys(made))


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


def recipe_config(cell: Cell, config: AblateConfig, indexes: Mapping[str, str]) -> RecipeConfig:
    """What `extract` would be told for this cell."""
    few_shot = cell.verification == "few-shot"
    kind = cell.retrieval if cell.retrieval != "none" else kinds(config)[0] if few_shot else None
    adapter = None if cell.reader == "base" else config.adapters[cell.reader]
    verify = None if cell.verification == "none" else VerifyConfig(k=config.verify_k if few_shot else 0)
    return RecipeConfig(
        engine=config.engine,
        task=config.task,
        adapter=adapter,
        format=cell.format,
        decoding=cell.decoding,
        retrieval=RetrievalConfig(index=indexes[kind] if kind else None, k=cell.k),
        verify=verify,
        windows=config.windows,
    )
