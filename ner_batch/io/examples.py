"""Gold examples out of Parquet, each one checked against its text, and the digest that names a set of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ner_batch.data import EXAMPLES, Entity, Example
from ner_batch.errors import UserError
from ner_batch.io import storage, tables
from ner_batch.io.listing import list_shards, read_unit
from ner_batch.io.shards import Unit, plan_units, texts_of

NAMED_ROWS = 10
"""Wrong rows that are named; the others are counted."""
_UNIT_ROWS, _UNIT_BYTES = 20_000, 64 * 2**20  # read at a time


def read_examples(uri: str) -> list[Example]:
    """Gold examples from what :func:`ner_batch.io.listing.list_shards` finds at ``uri``, files by name, rows in order.

    Columns ``text`` (strings of any kind) and ``entities`` (``list<struct<start, end, type, ...>>``) are needed, ``id``
    is optional. White space at the edges of a span is trimmed: annotation tools take it along, and no answer names it.

    Raises:
        UserError: unreadable, a column missing or of another type; or what is wrong with rows, the first ten named with
            their file.
    """
    listing = list_shards(uri, "text")
    if listing.corrupt:
        raise UserError("\n".join(f"{file.uri}: not a readable file ({file.reason})" for file in listing.corrupt))
    for shard in listing.shards:
        if "entities" not in shard.columns:
            raise UserError(
                f"{shard.uri}: no column 'entities' among {', '.join(shard.columns)}: gold examples need it"
            )
    examples, problems = [], []
    for unit in plan_units(listing.shards, _UNIT_ROWS, _UNIT_BYTES):
        for number, row in _rows(unit):
            place = f"{unit.shard.uri} row {number}"
            if row.get("id") is None:
                row["id"] = f"{PurePath(unit.shard.name).stem}-{number}"
            try:
                examples.append(example_from_row(row, place))
            except UserError as error:
                problems.append(str(error))
    if len(problems) > NAMED_ROWS:
        problems[NAMED_ROWS:] = [f"{uri}: and {len(problems) - NAMED_ROWS:,} more rows are wrong"]
    if problems:
        raise UserError("\n".join(problems))
    return examples


def about_passed_over(uri: str) -> list[str]:
    """A line about files among gold that are not read, none where there are no such files."""
    line = list_shards(uri, "text").about_passed_over
    return [f"{uri}: {line}"] if line else []


def _rows(unit: Unit) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a unit of gold by their number in the file: id, text, entities."""
    file = unit.shard.uri
    with storage.explained(file):
        table = read_unit(unit, [name for name in EXAMPLES.names if name in unit.shard.columns])
    if not is_spans(table["entities"]):
        raise UserError(f"{file}: column 'entities' is {table['entities'].type}, not a list of {{start, end, type}}")
    texts, wrong = texts_of(table, "text")
    with tables.parsed(file):
        rows = table.drop_columns(["text"]).to_pylist()
    for number, (row, text) in enumerate(zip(rows, texts, strict=True), unit.start):
        if number - unit.start in wrong:
            raise UserError(f"{file} row {number}: {wrong[number - unit.start]}")
        yield number, {**row, "text": text}


def examples_digest(examples: Iterable[Example], *, after: str = "") -> str:
    """Sixteen hex digits over ids, texts and spans, in order, and over ``after``, what else decides."""
    total = hashlib.sha256(after.encode())
    for example in examples:
        spans = [[entity.start, entity.end, entity.type] for entity in example.entities]
        total.update(json.dumps([example.id, example.text, spans]).encode())
    return total.hexdigest()[:16]


def is_spans(column: pa.ChunkedArray) -> bool:
    """Whether a column holds lists of structs with start, end and type; lists that are all empty may be of any type."""
    if pa.types.is_null(column.type):  # a writer that saw no entity at all
        return True
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return False
    span = column.type.value_type
    names = {field.name for field in span} if pa.types.is_struct(span) else set()
    # JSON lines of `"entities": []` alone are lists of strings.
    return {"start", "end", "type"} <= names or not len(pc.list_flatten(column))


def examples_table(examples: Sequence[Example]) -> pa.Table:
    """Examples as a table of schema :data:`ner_batch.data.EXAMPLES`."""
    return pa.Table.from_pylist([asdict(example) for example in examples], schema=EXAMPLES)


def example_from_row(row: Mapping[str, Any], place: str = "example") -> Example:
    """An Example from a row of :data:`ner_batch.data.EXAMPLES` (``id`` may be missing).

    Raises UserError, which begins with ``place``: no text, null for entities (nobody has looked, which is not the same
    as none), or a span that is incomplete, empty, out of range or does not match its text.
    """
    text = row["text"]
    if text is None:
        raise UserError(f"{place}: text is null")
    if row["entities"] is None:
        raise UserError(f"{place}: entities is null: [] means that there are none; leave out rows that nobody has read")
    entities = sorted(fitted_entity(span, text, place) for span in row["entities"])
    return Example(str(row.get("id", place)), text, tuple(entities))


def fitted_entity(span: Mapping[str, Any] | None, text: str, place: str) -> Entity:
    """The entity of a span (start, end, type, perhaps text) in its text, white space at its edges trimmed.

    Raises UserError, which begins with ``place``: a span that is incomplete, empty, out of range, of other types, or
    that does not match the text.
    """
    if span is None or None in (span["start"], span["end"], span["type"]):
        raise UserError(f"{place}: an entity without start, end or type")
    start, end, type_ = span["start"], span["end"], span["type"]
    if not (isinstance(start, int) and isinstance(end, int)):
        raise UserError(f"{place}: entity from {start!r} to {end!r}: offsets are whole numbers")
    if not isinstance(type_, str):
        raise UserError(f"{place}: entity [{start}, {end}) has the type {type_!r}: a string is needed")
    surface = text[start:end] if 0 <= start < end <= len(text) else None
    annotated = surface if span.get("text") is None else span["text"]
    if surface is None or surface != annotated:
        raise UserError(
            f"{place}: entity [{start}, {end}) {type_} reads {surface!r} in the text, not {annotated!r}: "
            "offsets are code points, half-open"
        )
    if not surface.strip():
        raise UserError(f"{place}: entity [{start}, {end}) {type_} is white space alone")
    start += len(surface) - len(surface.lstrip())
    return Entity(start, start + len(surface.strip()), type_, surface.strip())
