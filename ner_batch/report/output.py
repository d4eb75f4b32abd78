"""An extraction's output folder as the report reads it: its record, its files, and their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ner_batch.extraction.manifest import MANIFEST
from ner_batch.extraction.status import RunStatus, status
from ner_batch.io import storage
from ner_batch.io.shards import named, text_problem, top_level

READERS = 8
"""Files read at once, each whole: an object store answers after some 50 ms."""


@dataclass(frozen=True, slots=True)
class Output:
    """An output folder. ``files`` are the units that are written, by name; ``columns`` are theirs.

    ``text_column`` may be a path of fields (``doc.body``), and is None where the run did not keep the texts.
    """

    folder: str
    status: RunStatus
    manifest: Mapping[str, Any]
    files: tuple[storage.File, ...]
    columns: tuple[str, ...]
    text_column: str | None

    def tables(self, columns: Sequence[str], indices: Sequence[int] | None = None) -> Iterator[pa.Table]:
        """Columns of all files, or of those at ``indices``, in order; a few files are held at a time.

        Raises:
            UserError: a file is gone, or cannot be read.
        """
        chosen = range(len(self.files)) if indices is None else indices
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(chosen), READERS):
                files = [self.files[index] for index in chosen[start : start + READERS]]
                yield from pool.map(lambda file: self.table(file, columns), files)

    def table(self, file: storage.File, columns: Sequence[str]) -> pa.Table:
        """Columns of one file. Raises UserError where it is gone, or cannot be read."""
        return named(storage.read_table(file.uri, top_level(columns, self.columns)), columns)


def open_output(folder: str) -> Output:
    """The folder as it is now; a run may still write there.

    Raises:
        UserError: no extraction has begun there, or it cannot be read.
    """
    state = status(folder)
    manifest = storage.read_json(storage.join(folder, MANIFEST))
    files = tuple(f for f in storage.list_files(folder) if f.name.endswith(".parquet") and "/" not in f.name)
    schema = pa.schema([])
    if files:
        with storage.explained(files[0].uri):
            tail = storage.read_tail(files[0].uri, files[0].size)
        with storage.parsed(files[0].uri):
            schema = storage.parquet_file(tail).schema_arrow
    source = manifest.get("config", {}).get("input", {})
    name = source.get("text_column", "text")
    rename = source.get("rename", {})
    top, *fields = name.split(".")  # a path of fields begins with a column, if it is none itself
    text_column = rename.get(name) or (name if name in schema.names else ".".join([rename.get(top, top), *fields]))
    has_text = text_problem(schema, text_column, folder) is None
    return Output(folder, state, manifest, files, tuple(schema.names), text_column if has_text else None)


def unit_start(name: str) -> tuple[str, int]:
    """What a unit's name says: its shard, and the row of the shard that it begins with."""
    shard, _, start = name.removesuffix(".parquet").rpartition("-")
    return (shard, int(start)) if start.isdecimal() else (name, 0)
