"""The rows of a work unit, read from its shard, and the texts among them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from ner_batch.errors import UserError
from ner_batch.io import storage
from ner_batch.io.shards import Shard, Unit, footer_bytes, footer_digest, is_corruption, one_line


def read_unit(unit: Unit, columns: Sequence[str] | None = None) -> pa.Table:
    """The unit's rows as they are stored: all columns, or those named, with the file's schema and its metadata.

    Only row groups that overlap are read. The last one stays decoded in this process, so a shard of one huge row
    group is not decoded again for each of its units; memory is bounded by one row group.

    Raises:
        UserError: the file is corrupt in these rows, or is not the file that was listed.
        OSError: it cannot be reached at the moment.
    """
    try:
        return _READER.read(unit, None if columns is None else tuple(columns))
    except (OSError, pa.ArrowException) as error:
        if not is_corruption(error):
            raise
        where = f"rows {unit.start} to {unit.start + unit.rows}"
        raise UserError(f"{unit.shard.uri}: {where} are corrupt ({one_line(error)})") from error


def texts_of(table: pa.Table, text_column: str) -> tuple[list[str | None], dict[int, str]]:
    """The texts, one for each row (None for null), and by row index what is wrong with a text that is not UTF-8.

    A row in the second has None in the first.
    """
    column = _plain(table.column(text_column))
    try:
        return column.to_pylist(), {}
    except UnicodeDecodeError:
        return _decode_each(column.cast(pa.large_binary()).to_pylist())


class _Reader:
    """Reads row groups; keeps the last one. Its lock makes units that share a row group decode it once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[Shard, int, tuple[str, ...] | None] | None = None
        self._table: pa.Table | None = None

    def read(self, unit: Unit, columns: tuple[str, ...] | None) -> pa.Table:
        filesystem, path = storage.open_uri(unit.shard.uri)
        with self._lock, filesystem.open_input_file(path) as source:
            footer = footer_bytes(source)
            if footer_digest(footer, source.size()) != unit.shard.digest:
                raise UserError(f"{unit.shard.uri}: the file has changed since it was listed; start the run again")
            file = pq.ParquetFile(source, pre_buffer=True, page_checksum_verification=True)
            pieces = [
                self._group(file, (unit.shard, group, columns)).slice(offset, rows)
                for group, offset, rows in _overlaps(file.metadata, unit)
            ]
            table = pa.concat_tables(pieces) if pieces else file.schema_arrow.empty_table()
            return table if columns is None else table.select(list(columns))

    def _group(self, file: pq.ParquetFile, key: tuple[Shard, int, tuple[str, ...] | None]) -> pa.Table:
        if self._key != key or self._table is None:
            self._key = self._table = None  # the old one goes before the new one comes: one row group at a time
            self._table = file.read_row_group(key[1], columns=None if key[2] is None else list(key[2]))
            self._key = key
        return self._table


_READER = _Reader()


def _overlaps(metadata: pq.FileMetaData, unit: Unit) -> list[tuple[int, int, int]]:
    """(row group, offset in it, rows of it) for each row group the unit touches."""
    found = []
    first, end = 0, unit.start + unit.rows
    for group in range(metadata.num_row_groups):
        after = first + metadata.row_group(group).num_rows
        start, stop = max(first, unit.start), min(after, end)
        if start < stop:
            found.append((group, start - first, stop - start))
        first = after
    return found


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dictionary-encoded text as text."""
    kind = column.type
    return column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column


def _decode_each(rows: Sequence[bytes | None]) -> tuple[list[str | None], dict[int, str]]:
    texts: list[str | None] = []
    errors: dict[int, str] = {}
    for index, row in enumerate(rows):
        try:
            texts.append(None if row is None else row.decode("utf-8"))
        except UnicodeDecodeError as error:
            texts.append(None)
            errors[index] = f"the text is not UTF-8: {error.reason} at byte {error.start}"
    return texts, errors
