"""The report job's settings: what the command line's flags say."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ner_batch.config import Config, Uri

MOST_ROWS = 50_000


class ReportConfig(Config):
    """`ner-batch report`."""

    folder: Uri
    """The output folder of an extraction."""
    gold: Uri | None = None
    """Parquet of the right entities; null with `gold_column`: they lie in the output's own rows."""
    gold_column: str | None = None
    """The gold's column of entities; in a file of gold it is called `entities` by default."""
    id_column: str | None = None
    """Of the output: names rows on the page, and joins them with gold. None: the run's `input.id_column`, else `id`."""
    gold_id_column: str = "id"
    task: str | None = None
    """Of a run of several tasks: the one to score."""
    against: Uri | None = None
    """The output folder of another run on the same input."""
    rows: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 1000
    """Rows to browse."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Which rows."""
    out: Uri | None = None
    """The page; by default `_report.html` in the folder."""

    @property
    def scored(self) -> bool:
        """Whether there is gold."""
        return self.gold is not None or self.gold_column is not None
