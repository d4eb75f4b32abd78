"""Parquet files as shards: a footer is read to list one, and of a unit its row groups and the columns asked for."""

from __future__ import annotations

import hashlib
import mmap
import threading
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import merge_offset_ranges

from ner_batch.errors import UserError
from ner_batch.io import storage, tables
from ner_batch.io.shards import Corrupt, Shard, Unit, named, text_problem, top_level

_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python 3.13 has a name for it
_MAX_GAP = 2**20  # bytes between two columns that are read along rather than asked for twice


def inspect(file: storage.File, text_column: str | None) -> tuple[Shard, str | None] | Corrupt:
    """Read one file's footer; a shard, and what is wrong with its text column."""
    try:
        tail = tables.read_tail(file.uri, file.size)
    except OSError as error:  # not reached, which says nothing about what it holds
        raise UserError(f"{file.uri}: cannot be read ({storage.cause_of(error)})") from error
    try:
        parquet = tables.parquet_file(tail)
        metadata, schema = parquet.metadata, parquet.schema_arrow
    except (OSError, pa.ArrowException) as error:
        return Corrupt(file.uri, file.name, storage.cause_of(error))
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    chunks = (group.column(i) for group in groups for i in range(group.num_columns))
    text_bytes = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == text_column)
    digest = _footer_digest(tail, file.size)
    shard = Shard(file.uri, file.name, metadata.num_rows, file.size, digest, text_bytes, tuple(schema.names))
    return shard, None if text_column is None else text_problem(schema, text_column, file.uri)


def read(unit: Unit, columns: Sequence[str] | None) -> pa.Table:
    """The unit's rows as they are stored: all columns, or those named, with the file's schema and metadata.

    The last row group stays decoded, so that a huge one is decoded once for all its units; memory is bounded by one.

    Raises:
        UserError: the file is corrupt in these rows, or is not the file that was listed.
        OSError: it cannot be reached at the moment.
    """
    shard, end = unit.shard, unit.start + unit.rows
    with _LOCK:
        tail = tables.read_tail(shard.uri, shard.bytes)  # where the file is longer or shorter now, another
        if _footer_digest(tail, shard.bytes) != shard.digest:
            raise UserError(f"{shard.uri}: the file has changed since it was listed; start the run again")
        file = tables.parquet_file(tail)
        metadata, pieces = file.metadata, [] if unit.rows else [file.schema_arrow.empty_table()]
        stored = None if columns is None else top_level(columns, file.schema_arrow.names)
        first = 0
        for group in range(metadata.num_row_groups):
            after = first + metadata.row_group(group).num_rows
            start, stop = max(first, unit.start), min(after, end)
            if start < stop:
                key = (shard, group, None if stored is None else tuple(stored))
                if key not in _DECODED:
                    _DECODED.clear()  # the old one goes before the new one comes: one at a time
                    _DECODED[key] = _row_group(unit, metadata, group, stored, tail)
                pieces.append(_DECODED[key].slice(start - first, stop - start))
            first = after
    table = tables.with_instants(pa.concat_tables(pieces), file)
    return table if columns is None else named(table, columns)


_LOCK = threading.Lock()  # makes units that share a row group decode it once
_DECODED: dict[tuple[Shard, int, tuple[str, ...] | None], pa.Table] = {}  # the last row group


def _footer_digest(tail: bytes, size: int) -> str:
    """Names a file by its footer, with which its tail ends, and its size in bytes."""
    footer = tail[-8 - int.from_bytes(tail[-8:-4], "little") :]
    return hashlib.sha256(footer + size.to_bytes(8, "little")).hexdigest()[:16]


def _row_group(
    unit: Unit, metadata: pq.FileMetaData, group: int, columns: Sequence[str] | None, tail: bytes
) -> pa.Table:
    """Fetch the columns of a row group, as far as they are not in the file's tail, then decode them."""
    uri, size = unit.shard.uri, unit.shard.bytes
    ranges = _ranges(metadata.row_group(group), columns, size - len(tail))
    parts = storage.read_ranges(uri, ranges) if ranges else []
    # As long as the file, which may be longer than all memory: pages that nobody writes to take none.
    content = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    for (start, end), part in zip([*ranges, (size - len(tail), size)], [*parts, tail], strict=True):
        if len(part) != end - start:
            raise OSError(f"{uri}: it was cut short while it was read")
        content[start:end] = part
    try:
        file = tables.parquet_file(content, metadata)
        return file.read_row_group(group, columns=None if columns is None else list(columns), use_threads=False)
    except (OSError, pa.ArrowException) as error:  # the bytes are all there, so it is their fault
        where = f"rows {unit.start} to {unit.start + unit.rows}"
        raise UserError(f"{uri}: {where} are corrupt ({storage.cause_of(error)})") from error


def _ranges(group: pq.RowGroupMetaData, columns: Sequence[str] | None, limit: int) -> list[tuple[int, int]]:
    """Where before ``limit`` the columns of a row group lie, in order; neighbours are joined, long ranges cut."""
    starts, ends = [], []
    for index in range(group.num_columns):
        chunk = group.column(index)
        if columns is None or any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns):
            start = max(0, min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset))
            if start < limit:
                starts.append(start)
                ends.append(min(limit, start + chunk.total_compressed_size))
    _, starts, ends = merge_offset_ranges([""] * len(starts), starts, ends, max_gap=_MAX_GAP, sort=True)
    return [
        (part, min(part + storage.PART, end))
        for start, end in zip(starts, ends, strict=True)
        for part in range(start, end, storage.PART)
    ]
