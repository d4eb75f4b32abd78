"""The flat table of mentions, a row each, for whoever asks in SQL: DuckDB, Polars, Spark, pandas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ner_batch.data import OFFSET_UNIT
from ner_batch.exchange.rows import Row
from ner_batch.exchange.writing import ExportOptions, batched

MENTIONS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("score", pa.float32()),
        pa.field("verified", pa.bool_()),
        pa.field("task", pa.string()),
    ],
    metadata={"ner_batch": f'{{"offset_unit": "{OFFSET_UNIT}"}}'},
)
_GROUP = 100_000  # mentions of a row group: some 10 MB


def write_mentions(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:  # noqa: ARG001
    """A row for each entity, in the order of texts, rejected ones too; a text without entities has none."""
    values = (
        {"id": row.id, **{name: getattr(entity, name) for name in MENTIONS.names[1:]}}
        for row in rows
        for entity in row.entities
    )
    with pq.ParquetWriter(out, MENTIONS, compression="zstd") as writer:
        for batch in batched(values, _GROUP):
            writer.write_table(pa.Table.from_pylist(list(batch), schema=MENTIONS))
