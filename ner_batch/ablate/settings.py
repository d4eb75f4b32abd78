"""The ablation's config: a gold set, and the values of every axis."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ner_batch.config import Config, Count, Decoding, EngineConfig, FormatName, IndexKind, Uri, WindowsConfig

Verification = Literal["none", "zero-shot", "few-shot"]
AtLeastOne = Field(min_length=1)


class AblationGold(Config):
    """Annotated examples: Parquet with id, text, entities (start, end, type)."""

    test: Uri
    """Every cell reads all of it."""
    examples: Uri | None = None
    """Where demonstrations come from; needed for retrieval and few-shot verification."""
    limit: Count | None = None
    """Only the first N test examples."""


class AxesConfig(Config):
    """What is combined. A combination that means nothing, or that an adapter was not trained for, is left out."""

    reader: Annotated[tuple[str, ...], AtLeastOne] = ("base",)
    """`base`, the bare model, and names of `adapters`."""
    format: Annotated[tuple[FormatName, ...], AtLeastOne] = ("json",)
    decoding: Annotated[tuple[Decoding, ...], AtLeastOne] = ("auto",)
    retrieval: Annotated[tuple[Literal["none"] | IndexKind, ...], AtLeastOne] = ("none",)
    k: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], AtLeastOne] = (4,)
    """Demonstrations, for every retrieval but none."""
    verification: Annotated[tuple[Verification, ...], AtLeastOne] = ("none",)


class AblateConfig(Config):
    """`ner-batch ablate`."""

    engine: EngineConfig
    task: Uri
    """Task file, for the bare model; adapters carry their own, which must be the same."""
    gold: AblationGold
    output: Uri
    """Folder, local: one Parquet file a cell, then report.json, report.md and plots."""
    adapters: dict[Annotated[str, Field(pattern=r"^[\w.-]+$")], Uri] = Field(default_factory=dict)
    """Adapter folders by the name they have in `axes.reader`."""
    axes: AxesConfig = AxesConfig()
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
    def _readers_are_there(self) -> Self:
        unknown = [name for name in self.axes.reader if name != "base" and name not in self.adapters]
        if unknown:
            raise ValueError(f"axes.reader: {unknown[0]!r} is not in adapters ({', '.join(self.adapters) or 'none'})")
        return self

    @model_validator(mode="after")
    def _examples_are_there(self) -> Self:
        wanted = set(self.axes.retrieval) - {"none"} or "few-shot" in self.axes.verification
        if wanted and self.gold.examples is None:
            raise ValueError("gold.examples: missing: retrieval and few-shot verification take demonstrations from it")
        return self
