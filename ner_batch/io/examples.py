"""Gold examples out of Parquet, each one checked against its text, and the digest that names a set of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ner_batch.data import Example, example_from_row, is_spans
from ner_batch.errors import UserError, first_line
from ner_batch.io import storage


def read_examples(uri: str) -> list[Example]:
    """Gold examples from a Parquet file, or all of a folder's in order of name; local or ``s3://``.

    Columns ``text`` and ``entities`` (``list<struct<start, end, type, ...>>``) are needed, ``id`` is optional, others
    are ignored.

    Raises:
        UserError: one line naming file and row: unreadable, a column missing or of another type, or a wrong span.
    """
    return [example for file in _parquet_files(uri) for example in _examples_of(file)]


def examples_digest(examples: Iterable[Example], *, after: str = "") -> str:
    """Sixteen hex digits over ids, texts and spans, in order, and over ``after``: what else decides, told as text."""
    total = hashlib.sha256(after.encode())
    for example in examples:
        spans = [[entity.start, entity.end, entity.type] for entity in example.entities]
        total.update(json.dumps([example.id, example.text, spans]).encode())
    return total.hexdigest()[:16]


def _parquet_files(uri: str) -> list[str]:
    kind = storage.file_type(uri)
    if kind is None:
        raise UserError(f"{uri}: no such file or folder of gold examples")
    if kind == "file":
        return [uri]
    files = [f.uri for f in storage.list_files(uri) if f.name.endswith(".parquet") and f.name[0] not in "._"]
    if not files:
        raise UserError(f"{uri}: no .parquet file in the folder")
    return files


def _examples_of(file: str) -> Iterator[Example]:
    with storage.explained(file):
        data = storage.read_bytes(file)
    try:
        parquet = pq.ParquetFile(pa.BufferReader(data))
        _check_columns(file, parquet.schema_arrow)
        columns = [name for name in ("id", "text", "entities") if name in parquet.schema_arrow.names]
        rows = parquet.read(columns=columns).to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a readable Parquet file ({first_line(error)})") from None
    for number, row in enumerate(rows):
        yield _example(row, file, number)


def _check_columns(file: str, schema: pa.Schema) -> None:
    for name, wanted, fits in (("text", "strings", _is_text), ("entities", "a list of {start, end, type}", is_spans)):
        if name not in schema.names:
            raise UserError(f"{file}: no column {name!r} among {', '.join(schema.names)}: gold examples need it")
        if not fits(schema.field(name).type):
            raise UserError(f"{file}: column {name!r} is {schema.field(name).type}, not {wanted}")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _example(row: dict[str, Any], file: str, number: int) -> Example:
    where = f"{file} row {number}"
    if row["text"] is None:
        raise UserError(f"{where}: text is null")
    if row.get("id") is None:
        row = {**row, "id": f"{Path(file).stem}-{number}"}
    try:
        return example_from_row(row, where)
    except TypeError:
        raise UserError(f"{where}: an entity without start, end or type") from None
