"""Shards of input, cut into work units, and the texts of their rows.

A unit is a run of rows of one shard. Its output name is a function of the shard's name and the start row alone, so a
finished unit is recognised by its file, in any later run, whatever was added to the input meanwhile.
"""

from __future__ import annotations

import difflib
import hashlib
import posixpath
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["parquet", "jsonl", "csv", "arrow"]

UNREADABLE = "_ner_batch_unreadable"
"""A column that :func:`ner_batch.io.listing.read_unit` adds where rows cannot be read: why; null for the others."""
_NAMED = 5  # files in a line


@dataclass(frozen=True, slots=True)
class Part:
    """A run of whole rows of a file without a footer: where it lies, in bytes uncompressed."""

    row: int  # the first one
    offset: int
    size: int
    crc: int  # CRC-32 of its bytes, by which a file that has changed is known


@dataclass(frozen=True, slots=True)
class Shard:
    """One readable input file. Its units have of ``parts`` their own alone."""

    uri: str
    name: str  # path below the listed root
    rows: int
    bytes: int
    digest: str  # of Parquet of footer (counts, offsets, statistics, schema) and size, of others of the whole content
    text_bytes: int  # of the text column, uncompressed; of CSV code points
    columns: tuple[str, ...]  # those of its partitions last
    partitions: tuple[tuple[str, str | None], ...] = ()  # by its folders `lang=en/`: names and values
    kind: Kind = "parquet"
    schema: pa.Schema | None = None  # of its columns; a Parquet file has its own
    text_column: str | None = None  # jsonl, csv: whose values must be strings
    delimiter: str = ","  # csv
    parts: tuple[Part, ...] = field(default=(), compare=False, repr=False)  # jsonl, csv, arrow


class NotRowsError(ValueError):
    """What a file holds are no rows of its kind."""


@dataclass(frozen=True, slots=True)
class Corrupt:
    """An input file that cannot be read as what it is, and why in one line."""

    uri: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All shards by name, the files that cannot be read, and names of those that are passed over."""

    shards: tuple[Shard, ...]
    corrupt: tuple[Corrupt, ...]
    passed_over: tuple[str, ...] = ()

    @property
    def about_passed_over(self) -> str | None:
        """One line about the files that are passed over, the first few named; None where there are none."""
        if not self.passed_over:
            return None
        more = len(self.passed_over) - _NAMED
        named = ", ".join(self.passed_over[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
        return f"passed over (hidden, links to the same, or files of another kind): {named}"


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows ``start`` to ``start + rows`` of a shard: what is computed, written and retried as one."""

    shard: Shard
    start: int
    rows: int

    @property
    def text_bytes(self) -> float:
        """Text in it, about: its share of the shard's."""
        return self.shard.text_bytes * self.rows / max(1, self.shard.rows)

    @property
    def name(self) -> str:
        """The output file's name: readable, safe on any file system, and unique over shards of the same stem."""
        stem = re.sub(r"[^A-Za-z0-9.-]+", "_", posixpath.splitext(posixpath.basename(self.shard.name))[0])
        digest = hashlib.sha256(self.shard.name.encode("utf-8", "surrogateescape")).hexdigest()[:10]
        return f"{stem.strip('._')[:64] or 'shard'}-{digest}-{self.start:010d}.parquet"


def plan_units(shards: Sequence[Shard], unit_rows: int, unit_bytes: int, limit: int | None = None) -> tuple[Unit, ...]:
    """Cut shards into units of ``unit_rows`` rows, over the first ``limit`` rows of all.

    Where that would be more than about ``unit_bytes`` of text (whole books, say), units have fewer rows. A shard of
    0 rows is one unit of 0 rows, so that its schema has an output file too.
    """
    units: list[Unit] = []
    left = sum(shard.rows for shard in shards) if limit is None else limit
    for shard in shards:
        if limit is not None and left <= 0:
            break
        rows = min(shard.rows, left)
        step = min(unit_rows, max(1, unit_bytes * shard.rows // max(1, shard.text_bytes)))
        first_rows = [part.row for part in shard.parts]
        for start in range(0, max(rows, 1), step):
            count = min(step, rows - start)
            first, after = max(0, bisect_right(first_rows, start) - 1), bisect_left(first_rows, start + count)
            units.append(Unit(replace(shard, parts=shard.parts[first:after]), start, count))
        left -= rows
    return tuple(units)


def texts_of(table: pa.Table, text_column: str) -> tuple[list[str | None], dict[int, str]]:
    """The texts, None for null or unreadable, and by row index what is wrong with those that cannot be read."""
    errors: dict[int, str] = {}
    if UNREADABLE in table.column_names:
        errors = {row: reason for row, reason in enumerate(table[UNREADABLE].to_pylist()) if reason is not None}
    column = table.column(text_column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return column.to_pylist(), errors
    except UnicodeDecodeError:
        rows = column.cast(pa.large_binary()).to_pylist()
    texts: list[str | None] = [None] * len(rows)
    for index, row in enumerate(rows):
        try:
            texts[index] = None if row is None else row.decode("utf-8")
        except UnicodeDecodeError as error:
            errors[index] = f"the text is not UTF-8: {error.reason} at byte {error.start}"
    return texts, errors


def top_level(columns: Sequence[str], stored: Sequence[str]) -> list[str]:
    """The columns of a file that hold these: themselves, and those in which paths of fields (``doc.body``) begin."""
    return list(dict.fromkeys(name if name in stored else name.partition(".")[0] for name in columns))


def named(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """A table's columns by their names, or by a path of fields where no column has that name."""
    for name in columns:
        if name not in table.column_names:
            top, *fields = name.split(".")
            table = table.append_column(name, pc.struct_field(table[top], fields))
    return table.select(list(columns))


def text_problem(schema: pa.Schema, column: str, uri: str) -> str | None:
    """What is wrong with a text column, by its name or a path of fields; None where nothing is."""
    count, kind = schema.names.count(column), None
    if count == 1:
        kind = schema.field(column).type
    elif not count:
        top, *fields = column.split(".")
        kind = schema.field(top).type if fields and schema.names.count(top) == 1 else None
        for name in fields:
            if kind is None or not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
                kind = None
                break
            kind = kind.field(name).type
    if kind is None:
        return missing_column(uri, column, schema.names)
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if plain in (pa.string(), pa.large_string(), pa.string_view(), pa.null()):
        return None
    return f"{uri}: column {column!r} is {kind}, not string; name another column or cast it"


def missing_column(uri: str, column: str, columns: Sequence[str]) -> str:
    """That there is no such column, or more than one of its name, and which there are."""
    similar = difflib.get_close_matches(column, columns, n=1)
    hint = f"; did you mean {similar[0]!r}?" if similar and similar[0] != column else ""
    count = "more than one" if column in columns else "no"
    return f"{uri}: {count} column {column!r}; there are {', '.join(columns) or 'none'}{hint}"
