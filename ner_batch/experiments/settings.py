"""The ablation's config: a gold set, and the values of every axis."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ner_batch.config import Config, Count, FormatName, IndexKind, Uri
from ner_batch.engine.settings import EngineConfig
from ner_batch.errors import UserError
from ner_batch.extraction.settings import Decoding, WindowsConfig

VerificationKind = Literal["none", "zero-shot", "few-shot"]
Size = Count | Literal["all"]
BASE, TRAINED = "base", "trained"  # readers that are no entry of `adapters`
AtLeastOne = Field(min_length=1)


class AblationGold(Config):
    """Annotated examples: Parquet with id, text, entities (start, end, type)."""

    test: Uri
    """Every combination reads all of it."""
    examples: Uri | None = None
    """Where demonstrations come from; needed for retrieval and few-shot verification."""
    limit: Count | None = None
    """Only the first N test examples."""


class AxesConfig(Config):
    """What is combined. A combination that means nothing, or that an adapter was not trained for, is left out."""

    reader: Annotated[tuple[str, ...], AtLeastOne] = ("base",)
    """`base`, the bare model; names of `adapters`; `trained`, the adapters of `curve`."""
    format: Annotated[tuple[FormatName, ...], AtLeastOne] = ("json",)
    decoding: Annotated[tuple[Decoding, ...], AtLeastOne] = ("auto",)
    retrieval: Annotated[tuple[Literal["none"] | IndexKind, ...], AtLeastOne] = ("none",)
    k: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], AtLeastOne] = (4,)
    """Demonstrations, for every retrieval but none."""
    verification: Annotated[tuple[VerificationKind, ...], AtLeastOne] = ("none",)


class CurveConfig(Config):
    """A learning curve: every combination for training subsets of several sizes, drawn from gold.examples.

    Demonstrations come from the subset alone, and the reader `trained` is an adapter that has seen it alone.
    """

    sizes: Annotated[tuple[Size, ...], AtLeastOne] = (8, 32, 128, 512, "all")
    seeds: Count = 3
    """Subsets of each size; the seed is the training's too."""
    steps: dict[Size, Count] = Field(default_factory=dict)
    """Optimiser steps by size, e.g. {8: 20, 512: 120}: few examples are learnt in few steps, and many steps learn them
    by heart. A size that is not named has the training's own."""
    train: Uri | None = None
    """Config of `ner-batch train`, for the reader `trained`; its task, gold.train, output, run.name, run.seed and
    run.storage are replaced. Where it names no gold.dev, a share of the subset is held out: nothing is known but the
    subset."""

    @model_validator(mode="after")
    def _steps_are_of_sizes(self) -> Self:
        for size in self.steps:
            if size not in self.sizes:
                raise UserError(f"curve.steps: {size}: not in curve.sizes ({', '.join(map(str, self.sizes))})")
        return self


class AblateConfig(Config):
    """`ner-batch ablate`."""

    engine: EngineConfig
    task: Uri
    """Task file, for the bare model; adapters carry their own, which must be the same."""
    gold: AblationGold
    output: Uri
    """Folder, local: one Parquet file a combination, then report.json, report.md and plots."""
    adapters: dict[Annotated[str, Field(pattern=r"^[\w.-]+$")], Uri] = Field(default_factory=dict)
    """Adapter folders by the name they have in `axes.reader`."""
    axes: AxesConfig = AxesConfig()
    curve: CurveConfig | None = None
    """F1 by the number of annotated examples, with demonstrations, an adapter, or both."""
    encoder: str | None = None
    """For retrieval of the kinds that need one."""
    verify_k: Annotated[int, Field(ge=1, le=64)] = 4
    """Demonstrations of few-shot verification."""
    windows: WindowsConfig = WindowsConfig()
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Types scored together, by name, e.g. {NE: ["*.NAM"], NM: ["*.NOM"]}."""
    resamples: Count = 1000
    """Bootstrap resamples of the intervals."""

    @model_validator(mode="after")
    def _parts_are_there(self) -> Self:
        reserved = {BASE, TRAINED} & set(self.adapters)
        if reserved:
            raise UserError(f"adapters: {reserved.pop()!r} is the name of a reader of its own: choose another")
        if TRAINED in self.axes.reader and not (self.curve and self.curve.train):
            raise UserError("curve.train: missing: the reader `trained` needs the config of a training")
        unknown = [name for name in self.axes.reader if name not in {BASE, TRAINED, *self.adapters}]
        if unknown:
            raise UserError(f"axes.reader: {unknown[0]!r} is not in adapters ({', '.join(self.adapters) or 'none'})")
        retrieves = set(self.axes.retrieval) != {"none"} or "few-shot" in self.axes.verification
        if (retrieves or self.curve) and self.gold.examples is None:
            raise UserError("gold.examples: missing: demonstrations and the draws of a curve come from it")
        return self
