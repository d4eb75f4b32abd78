"""Gold examples out of Parquet, each one checked against its text, and the digest that names a set of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

import pyarrow as pa

from ner_batch.data import EXAMPLES, Entity, Example
from ner_batch.errors import UserError
from ner_batch.io import storage


def read_examples(uri: str) -> list[Example]:
    """Gold examples from a Parquet file, or all of a folder's in order of name; local or ``s3://``.

    Columns ``text`` and ``entities`` (``list<struct<start, end, type, ...>>``) are needed, ``id`` is optional. Raises
    UserError, which names file and row: unreadable, a column missing or of another type, or a wrong span.
    """
    kind = storage.file_type(uri)
    if kind is None:
        raise UserError(f"{uri}: no such file or folder of gold examples")
    files = [uri]
    if kind == "directory":
        files = [f.uri for f in storage.list_files(uri) if f.name.endswith(".parquet") and f.name[0] not in "._"]
    if not files:
        raise UserError(f"{uri}: no .parquet file in the folder")
    return [example for file in files for example in _examples_of(file)]


def examples_digest(examples: Iterable[Example], *, after: str = "") -> str:
    """Sixteen hex digits over ids, texts and spans, in order, and over ``after``, what else decides."""
    total = hashlib.sha256(after.encode())
    for example in examples:
        spans = [[entity.start, entity.end, entity.type] for entity in example.entities]
        total.update(json.dumps([example.id, example.text, spans]).encode())
    return total.hexdigest()[:16]


def _examples_of(file: str) -> Iterator[Example]:
    table = storage.read_table(file)
    for name, wanted in (("text", "strings"), ("entities", "a list of {start, end, type}")):
        if name not in table.column_names:
            raise UserError(f"{file}: no column {name!r} among {', '.join(table.column_names)}: gold examples need it")
        kind = table.schema.field(name).type
        if not (is_spans(kind) if name == "entities" else kind in (pa.string(), pa.large_string())):
            raise UserError(f"{file}: column {name!r} is {kind}, not {wanted}")
    with storage.parsed(file):
        rows = table.select([name for name in EXAMPLES.names if name in table.column_names]).to_pylist()
    for number, row in enumerate(rows):
        if row["text"] is None:
            raise UserError(f"{file} row {number}: text is null")
        if row.get("id") is None:
            row["id"] = f"{PurePath(file).stem}-{number}"
        yield example_from_row(row, f"{file} row {number}")


def is_spans(kind: pa.DataType) -> bool:
    """Whether a column holds lists of structs with start, end and type."""
    if pa.types.is_null(kind):  # a writer that saw no entity at all
        return True
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    span = kind.value_type
    return pa.types.is_null(span) or (pa.types.is_struct(span) and {"start", "end", "type"} <= {f.name for f in span})


def examples_table(examples: Sequence[Example]) -> pa.Table:
    """Examples as a table of schema :data:`ner_batch.data.EXAMPLES`."""
    return pa.Table.from_pylist([asdict(example) for example in examples], schema=EXAMPLES)


def example_from_row(row: Mapping[str, Any], place: str = "example") -> Example:
    """An Example from a row of :data:`ner_batch.data.EXAMPLES` (``id`` may be missing).

    Raises UserError, which begins with ``place``: a span that is incomplete, out of range or does not match its text.
    """
    text = row["text"]
    entities = []
    for span in row["entities"] or ():
        if span is None or None in (span["start"], span["end"], span["type"]):
            raise UserError(f"{place}: an entity without start, end or type")
        start, end, type_ = span["start"], span["end"], span["type"]
        surface = text[start:end] if 0 <= start < end <= len(text) else None
        if surface is None or surface != span.get("text", surface):
            raise UserError(
                f"{place}: entity [{start}, {end}) {type_} reads {surface!r} in the text, not {span.get('text')!r}: "
                "offsets are code points, half-open"
            )
        entities.append(Entity(start, end, type_, surface))
    return Example(str(row.get("id", place)), text, tuple(sorted(entities)))
