"""The rows to browse: which ones, the same for a seed, and what they hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ner_batch.data import PREDICTIONS, Prediction, predictions_of
from ner_batch.io.shards import texts_of
from ner_batch.report.output import Output

Place = tuple[int, int]
"""Index of a file of the output, and the row in it."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A row of the output. ``id`` is None without such a column; ``text`` without texts, or where it is null."""

    place: Place
    unit: str
    id: str | None
    text: str | None
    prediction: Prediction


def choose(unit_rows: Sequence[int], first: Mapping[str, Sequence[Place]], count: int, seed: int) -> list[Place]:
    """About ``count`` rows in their order: of each kind of ``first`` its first tenth of the count, the others evenly.

    One row is drawn from each of as many stretches of equal length, so every part of the output is seen.
    """
    total = sum(unit_rows)
    if total <= count:
        return [(unit, row) for unit, rows in enumerate(unit_rows) for row in range(rows)]
    chosen = {place for places in first.values() for place in places[: max(1, count // 10)]}
    spread = max(0, count - len(chosen))
    edges = np.arange(spread + 1) * total // max(1, spread)
    positions = np.random.default_rng(seed).integers(edges[:-1], edges[1:]) if spread else edges[:0]
    ends = np.cumsum(unit_rows)
    units = np.searchsorted(ends, positions, "right")
    rows = positions - (ends - unit_rows)[units]
    return sorted({*chosen, *zip(units.tolist(), rows.tolist(), strict=True)})


def read_rows(
    output: Output, places: Sequence[Place], id_column: str, *, with_text: bool = True
) -> Iterator[SampleRow]:
    """Rows of an output in the order of ``places``, which is sorted; those of a few files are held at a time.

    Raises:
        UserError: a file cannot be read.
    """
    by_unit = _by_unit(places)
    has_id = id_column in output.columns
    text_column = output.text_column if with_text else None
    columns = [*PREDICTIONS.names, *([text_column] if text_column else []), *([id_column] * has_id)]
    tables = output.tables(list(dict.fromkeys(columns)), list(by_unit))
    for (unit, indices), table in zip(by_unit.items(), tables, strict=True):
        taken = table.take(indices)
        ids = ids_of(taken, id_column) if has_id else [None] * len(indices)
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
        return {(units[name], int(row)): id_ for id_, (name, _, row) in parts.items()}
    places: dict[Place, str] = {}
    for unit, table in enumerate(output.tables([id_column]) if ids else ()):
        named = enumerate(ids_of(table, id_column))
        places |= {(unit, row): id_ for row, id_ in named if id_ is not None and id_ in ids}
    return places
