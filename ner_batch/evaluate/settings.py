"""The evaluation job's config."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ner_batch.config import Config, Count, Uri
from ner_batch.errors import UserError


class PredictionsConfig(Config):
    """The entities to score: the output folder of `ner-batch extract`, or any Parquet with a column of entities."""

    path: Uri
    """A Parquet file, a folder or a glob; local or s3://."""
    id_column: str | None = "id"
    """Joins predictions with gold; null only where gold lies in the same rows."""
    text_column: str | None = "text"
    """Compared with the gold's text; null where the run did not keep it."""
    column: str = "entities"
    """list<struct<start, end, type, ...>>."""
    task: str | None = None
    """Of a run of several tasks: the one to score."""
    rejected: Literal["drop", "keep"] = "drop"
    """Entities with `verified` false, which a run with `verify.rejected: keep` has: left out, or scored like others."""


class GoldConfig(Config):
    """The right entities."""

    path: Uri | None = None
    """A Parquet file, a folder or a glob; null: gold is another column of the predictions."""
    id_column: str = "id"
    text_column: str | None = "text"
    """Null where the gold file holds no text."""
    column: str = "entities"
    """list<struct<start, end, type, ...>>; null in a row means that nobody has looked, [] that nothing is there."""


class BootstrapConfig(Config):
    """Intervals from rows drawn with replacement."""

    resamples: Count = 1000
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class EvaluateJobConfig(Config):
    """How it runs: in one process, in bounded memory."""

    unit_rows: Count = 50_000
    """Rows read and counted at once."""
    unit_bytes: Count = 64_000_000
    """So many of them have about this much text at most."""
    memory_bytes: Annotated[int, Field(ge=100_000_000)] = 512_000_000
    """What the join of predictions and gold holds in memory; the rest lies in temporary files (TMPDIR)."""


class EvaluateConfig(Config):
    """`ner-batch evaluate`."""

    predictions: PredictionsConfig
    gold: GoldConfig
    output: Uri
    """Folder for report.json, report.md and the plots."""
    against: Uri | None = None
    """Another run on the same rows, with the columns of `predictions`: is it better?"""
    without_prediction: Literal["refuse", "miss", "skip"] = "refuse"
    """Gold rows that no prediction row belongs to: an error, all of their entities missed, or left out."""
    without_gold: Literal["refuse", "skip"] = "refuse"
    """Prediction rows that no gold row belongs to: an error, or left out."""
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Types scored together, by name; `*` stands for anything, e.g. {NE: ["*.NAM"], NM: ["*.NOM"]}."""
    worst: Annotated[int, Field(ge=0, le=1000)] = 20
    """Rows shown with gold and predicted marked: those with the most errors."""
    bootstrap: BootstrapConfig = BootstrapConfig()
    job: EvaluateJobConfig = EvaluateJobConfig()

    @model_validator(mode="after")
    def _can_be_joined(self) -> Self:
        gold, predictions = self.gold, self.predictions
        if gold.path is None and gold.column == predictions.column:
            problem = f"gold.column: {gold.column!r} is the column of the predictions"
            raise UserError(f"{problem}: name gold's column, or give gold.path")
        if predictions.id_column is None and (gold.path or self.against):
            raise UserError("predictions.id_column: needed to join predictions with gold.path and against")
        if predictions.text_column is None and (gold.path is None or gold.text_column is None):
            problem = "predictions.text_column: spans are checked against texts"
            raise UserError(f"{problem}: name a text column here or in gold")
        return self
