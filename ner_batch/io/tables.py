"""Tables as Parquet files, their values as they were written: gold, indexes and the files of an extraction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from mmap import mmap

import pyarrow as pa
import pyarrow.parquet as pq

from ner_batch.errors import UserError
from ner_batch.io import storage

_FOOTER_GUESS = 64 * 1024  # bytes; one request fetches the footer of nearly every file


class NotParquetError(UserError):
    """What a file holds cannot be read as Parquet."""


def write_table(uri: str, table: pa.Table, metadata: Mapping[str, str]) -> None:
    """Write a table as Parquet (zstd), whole or not at all; ``metadata`` is added to the schema's own."""
    merged = {**(table.schema.metadata or {}), **{key.encode(): value.encode() for key, value in metadata.items()}}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(merged), sink, compression="zstd")
    storage.write_bytes(uri, sink.getvalue())


def read_table(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole Parquet file, or some columns of it. Raises UserError where it is not there, or not Parquet."""
    with storage.explained(uri):
        data = storage.read_bytes(uri)
    with parsed(uri):
        file = parquet_file(data)
        return with_instants(file.read(columns=None if columns is None else list(columns), use_threads=False), file)


def parquet_file(content: bytes | mmap, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """A Parquet file in memory, its values as they were written. Read it with ``use_threads=False``.

    INT96, as Spark writes timestamps by default, is read in microseconds, which is what Spark means: Arrow's default of
    nanoseconds ends in 2262 and turns 9999-12-31 into 1816. No thread of Arrow's: one that still holds bytes of
    Python's when the interpreter ends aborts the process, or keeps it from ending (arrow#34314, arrow#50482).
    Pre-buffering would start some.
    """
    return pq.ParquetFile(
        pa.BufferReader(content),
        metadata=metadata,
        coerce_int96_timestamp_unit="us",
        page_checksum_verification=True,
        pre_buffer=False,
    )


def with_instants(table: pa.Table, file: pq.ParquetFile) -> pa.Table:
    """A table as it was read from a file, its INT96 in UTC: points in time, which is what Spark and Hive mean.

    Arrow reads them without a time zone. Written so, Spark would take them for the local times of whoever reads.
    """
    leaves = [file.schema.column(number).physical_type for number in range(len(file.schema))]
    if "INT96" not in leaves:
        return table
    remaining = iter(leaves)
    types = {field.name: _in_utc(field.type, remaining) for field in file.schema_arrow}
    for place, stored in enumerate(table.schema):
        kind = types[stored.name]
        if kind != stored.type:
            column = pa.chunked_array([chunk.view(kind) for chunk in table.column(place).chunks], kind)
            table = table.set_column(place, stored.with_type(kind), column)
    return table


def _in_utc(kind: pa.DataType, leaves: Iterator[str]) -> pa.DataType:
    """The type with UTC where the next of Parquet's ``leaves``, which are in the order of the type's own, are INT96."""
    if pa.types.is_nested(kind):
        fields = [_field_in_utc(field, leaves) for field in map(kind.field, range(kind.num_fields))]
        if pa.types.is_struct(kind):
            return pa.struct(fields)
        if pa.types.is_map(kind):
            key, item = fields[0].type
            return pa.map_(key, item, kind.keys_sorted)
        if pa.types.is_large_list(kind):
            return pa.large_list(fields[0])
        return pa.list_(fields[0], kind.list_size if pa.types.is_fixed_size_list(kind) else -1)
    if isinstance(kind, pa.BaseExtensionType):
        _in_utc(kind.storage_type, leaves)
        return kind
    return pa.timestamp(kind.unit, kind.tz or "UTC") if next(leaves) == "INT96" else kind  # Arrow may have left a zone


def _field_in_utc(field: pa.Field, leaves: Iterator[str]) -> pa.Field:
    return field.with_type(_in_utc(field.type, leaves))


def read_metadata(uri: str) -> dict[str, str]:
    """The key-value metadata in a Parquet file's footer. Raises UserError where it is not there, or not Parquet."""
    with storage.explained(uri):
        tail = read_tail(uri, storage.size(uri))
    with parsed(uri):
        metadata = pq.read_metadata(pa.BufferReader(tail)).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items()}


def read_tail(uri: str, size: int) -> bytes:
    """The end of a file of ``size`` bytes: 64 KiB or all of it, or more where a Parquet footer is longer."""
    if size == 0:
        return b""
    (tail,) = storage.read_ranges(uri, [(max(0, size - _FOOTER_GUESS), size)])
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if tail[-4:] != b"PAR1" or not len(tail) < length <= size:
        return tail
    return storage.read_ranges(uri, [(size - length, size)])[0]


@contextmanager
def parsed(uri: str) -> Iterator[None]:
    """Turn what Arrow raises about bytes in memory into a UserError of one line: there they can only be bad."""
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise NotParquetError(f"{uri}: not a readable Parquet file ({storage.cause_of(error)})") from error
