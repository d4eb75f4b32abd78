"""An output folder as the report reads it: its record, its files, their rows, and which of these to browse."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ner_batch.data import PREDICTIONS, Prediction, predictions_of
from ner_batch.extraction.status import RunStatus, status
from ner_batch.io import storage, tables
from ner_batch.io.shards import named, text_problem, texts_of, top_level
from ner_batch.jobs.record import MANIFEST, named_columns

READERS = 8
"""Files read at once, each whole: an object store answers after some 50 ms."""

Place = tuple[int, int]
"""Index of a file of the output, and the row in it."""


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
        file_indices = range(len(self.files)) if indices is None else indices
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(file_indices), READERS):
                files = [self.files[index] for index in file_indices[start : start + READERS]]
                yield from pool.map(lambda file: self.table(file, columns), files)

    def table(self, file: storage.File, columns: Sequence[str]) -> pa.Table:
        """Columns of one file. Raises UserError where it is gone, or cannot be read."""
        return named(tables.read_table(file.uri, top_level(columns, self.columns)), columns)


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
            tail = tables.read_tail(files[0].uri, files[0].size)
        with tables.parsed(files[0].uri):
            schema = tables.parquet_file(tail).schema_arrow
    text_column, _ = named_columns(manifest)
    has_text = text_problem(schema, text_column, folder) is None
    return Output(folder, state, manifest, files, tuple(schema.names), text_column if has_text else None)


def unit_start(name: str) -> tuple[str, int]:
    """What a unit's name says: its shard, and the row of the shard that it begins with."""
    shard, _, start = name.removesuffix(".parquet").rpartition("-")
    return (shard, int(start)) if start.isdecimal() else (name, 0)


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A row of the output. ``id`` is None without such a column; ``text`` without texts, or where it is null."""

    place: Place
    unit: str
    id: str | None
    text: str | None
    prediction: Prediction


def choose_places(unit_rows: Sequence[int], first: Mapping[str, Sequence[Place]], count: int, seed: int) -> list[Place]:
    """About ``count`` rows to browse, in order: of each kind of ``first`` a tenth of the count, the others evenly.

    One row is drawn from each of as many stretches of equal length, so every part of the output is seen.
    """
    total = sum(unit_rows)
    if total <= count:
        return [(unit, row) for unit, rows in enumerate(unit_rows) for row in range(rows)]
    represented = {place for places in first.values() for place in places[: max(1, count // 10)]}
    spread = max(0, count - len(represented))
    edges = np.arange(spread + 1) * total // max(1, spread)
    positions = np.random.default_rng(seed).integers(edges[:-1], edges[1:]) if spread else edges[:0]
    ends = np.cumsum(unit_rows)
    units = np.searchsorted(ends, positions, "right")
    rows = positions - (ends - unit_rows)[units]
    return sorted({*represented, *zip(units.tolist(), rows.tolist(), strict=True)})


def read_rows(
    output: Output, places: Sequence[Place], id_column: str | None, *, with_text: bool = True
) -> Iterator[SampleRow]:
    """Rows of an output in the order of ``places``, which is sorted; those of a few files are held at a time.

    Raises:
        UserError: a file cannot be read.
    """
    by_unit = _by_unit(places)
    id_column = id_column if id_column in output.columns else None
    text_column = output.text_column if with_text else None
    columns = [*PREDICTIONS.names, *([text_column] if text_column else []), *([id_column] if id_column else [])]
    tables_of_units = output.tables(list(dict.fromkeys(columns)), list(by_unit))
    for (unit, indices), table in zip(by_unit.items(), tables_of_units, strict=True):
        taken = table.take(indices)
        ids = ids_of(taken, id_column) if id_column else [None] * len(indices)
        texts = texts_of(taken, text_column)[0] if text_column else [None] * len(indices)
        for row, id_, text, prediction in zip(indices, ids, texts, predictions_of(taken), strict=True):
            yield SampleRow((unit, row), output.files[unit].name, id_, text, prediction)


def _by_unit(places: Sequence[Place]) -> dict[int, list[int]]:
    by_unit: dict[int, list[int]] = {}
    for unit, row in places:
        by_unit.setdefault(unit, []).append(row)
    return by_unit


def ids_of(table: pa.Table, column: str) -> list[str | None]:
    """Ids as strings, whatever their type; None for null, and for what is not UTF-8."""
    kind = table[column].type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(plain) or pa.types.is_large_string(plain):
        return texts_of(table, column)[0]
    return [None if value is None else str(value) for value in table[column].to_pylist()]


def ids_of_places(output: Output, places: Sequence[Place], id_column: str | None) -> dict[Place, str]:
    """What the evaluation calls rows: by their id; without an id column ``file:row``. A null id is none."""
    if id_column is None:
        return {(unit, row): f"{output.files[unit].name}:{row}" for unit, row in places}
    by_unit = _by_unit(places)
    ids: dict[Place, str] = {}
    for (unit, rows), table in zip(by_unit.items(), output.tables([id_column], list(by_unit)), strict=True):
        named = zip(rows, ids_of(table.take(rows), id_column), strict=True)
        ids |= {(unit, row): id_ for row, id_ in named if id_ is not None}
    return ids


def places_of_ids(output: Output, ids: Collection[str], id_column: str | None) -> dict[Place, str]:
    """Where rows of some ids are, by the names of :func:`ids_of_places`."""
    if id_column is None:
        units = {file.name: index for index, file in enumerate(output.files)}
        parts = {id_: id_.rpartition(":") for id_ in ids}
        # A run that still writes may have added files since the output was listed.
        return {(units[name], int(row)): id_ for id_, (name, _, row) in parts.items() if name in units}
    places: dict[Place, str] = {}
    for unit, table in enumerate(output.tables([id_column]) if ids else ()):
        named = enumerate(ids_of(table, id_column))
        places |= {(unit, row): id_ for row, id_ in named if id_ is not None and id_ in ids}
    return places
