"""Parquet shards: listed, cut into work units, and the rows of a unit read.

A unit is a run of rows of one shard. Its output name is a function of the shard's name and the start row alone, so a
finished unit is recognised by its file, in any later run, whatever was added to the input meanwhile.
"""

from __future__ import annotations

import difflib
import hashlib
import mmap
import os
import posixpath
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import merge_offset_ranges

from ner_batch.errors import UserError
from ner_batch.io import storage

# No part of a name begins with _ or .
_VISIBLE = re.compile(r"(?!(?:.*/)?[_.]).*\.(?:parquet|parq|pq)\Z", re.DOTALL | re.IGNORECASE)
# Files that hold no rows: of Hadoop and Spark, of Databricks' commits, of a run of ours, and checksums.
_MARKS = re.compile(
    r"(?:.*/)?(?:_SUCCESS|_manifest\.json|_metadata|_common_metadata|_(?:committed|started)_[^/]*|\.[^/]*\.crc|[^/]*\.crc|\.DS_Store)\Z",
    re.DOTALL,
)
# Tables with a log of their own, by a file of that log: the table's folder, and what it is called.
_TABLES = {
    re.compile(r"((?:.*/)?)_delta_log/", re.DOTALL): "a Delta table",
    re.compile(r"((?:.*/)?)\.hoodie/", re.DOTALL): "a Hudi table",
    re.compile(r"((?:.*/)?)metadata/(?:[^/]*\.metadata\.json|version-hint\.text)\Z", re.DOTALL): "an Iceberg table",
    re.compile(r"((?:.*/)?)_spark_metadata/", re.DOTALL): "written by a Spark stream",
}
_PARTITION = re.compile(r"([^/=]+)=([^/]*)\Z")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_MAX_PROBLEMS = 10
_NAMED = 5  # files in a line
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python 3.13 has a name for it
_MAX_GAP = 2**20  # bytes between two columns that are read along rather than asked for twice


@dataclass(frozen=True, slots=True)
class Shard:
    """One readable input file."""

    uri: str
    name: str  # path below the listed root
    rows: int
    bytes: int
    digest: str  # of the footer (counts, offsets, statistics, schema) and the size: another one when written anew
    text_bytes: int  # of the text column, uncompressed
    columns: tuple[str, ...]  # those of its partitions last
    partitions: tuple[tuple[str, str | None], ...] = ()  # by its folders `lang=en/`: names and values


@dataclass(frozen=True, slots=True)
class Corrupt:
    """An input file that cannot be read as Parquet, and why in one line."""

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
        return f"passed over (hidden, links to the same, or not .parquet, .parq, .pq): {named}"


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


def list_shards(uri: str, text_column: str | None) -> Listing:
    """The Parquet files at ``uri``: one file, a folder (with its folders), or a glob (``*``, ``?``, ``**/``).

    In folders, names that begin with ``_`` or ``.`` are passed over. Folders ``name=value/`` below the listed place are
    columns, as Hive and Spark write them: strings, ``__HIVE_DEFAULT_PARTITION__`` is null, and a column of that name in
    the file goes before. Footers are read, 16 at a time. Without a ``text_column`` no text is asked for, and
    ``text_bytes`` is 0.

    Raises:
        UserError: nothing there, no Parquet there, nothing readable, a table whose log alone tells which of its files
            count, or no usable ``text_column`` in some shards (one line each, at most ten).
    """
    files, passed_over = _find(uri)
    with ThreadPoolExecutor(16) as pool:
        inspected = list(pool.map(lambda file: _inspect(file, text_column), files))
    corrupt = tuple(file for file in inspected if isinstance(file, Corrupt))
    readable = [file for file in inspected if not isinstance(file, Corrupt)]
    if not readable:
        raise UserError(f"{uri}: no readable Parquet file; {corrupt[0].uri}: {corrupt[0].reason}")
    problems = [problem for _, problem in readable if problem]
    if len(problems) > _MAX_PROBLEMS:
        problems[_MAX_PROBLEMS:] = [f"and {len(problems) - _MAX_PROBLEMS} more files like these"]
    if problems:
        raise UserError("\n".join(problems))
    return Listing(tuple(shard for shard, _ in readable), corrupt, passed_over)


def covers(uri: str, place: str) -> bool:
    """Whether listing ``uri`` would find Parquet files that are written to the folder ``place``, also through links."""
    source, target = (os.path.realpath(uri) if "://" not in uri else uri.rstrip("/") for uri in (uri, place))
    if not set("*?") & set(uri) or storage.file_type(uri):
        return f"{target}/".startswith(f"{source}/")
    root, pattern = _split_glob(uri)
    root = os.path.realpath(root) if "://" not in root else root
    # The names of output files begin as those of the input's do.
    name = re.sub(r"[*?]+", "x", uri.rpartition("/")[2])
    return f"{target}/".startswith(f"{root}/") and bool(pattern.match(f"{target}/{name}"[len(root) + 1 :]))


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
        units += [Unit(shard, start, min(step, rows - start)) for start in range(0, max(rows, 1), step)]
        left -= rows
    return tuple(units)


def read_unit(unit: Unit, columns: Sequence[str] | None = None) -> pa.Table:
    """The unit's rows as they are stored: all columns, or those named, with the file's schema and its metadata.

    The last row group stays decoded, so that a huge one is decoded once for all its units; memory is bounded by one.

    Raises:
        UserError: the file is corrupt in these rows, or is not the file that was listed.
        OSError: it cannot be reached at the moment.
    """
    shard, end = unit.shard, unit.start + unit.rows
    with _LOCK:
        tail = storage.read_tail(shard.uri, shard.bytes)  # where the file is longer or shorter now, another
        if _footer_digest(tail, shard.bytes) != shard.digest:
            raise UserError(f"{shard.uri}: the file has changed since it was listed; start the run again")
        file = storage.parquet_file(tail)
        metadata, pieces = file.metadata, [] if unit.rows else [file.schema_arrow.empty_table()]
        partitions = dict(shard.partitions)
        stored = None if columns is None else [name for name in columns if name not in partitions]
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
    table = storage.with_instants(pa.concat_tables(pieces), file)
    for name, value in shard.partitions:
        table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), unit.rows))
    return table if columns is None else table.select(list(columns))


_LOCK = threading.Lock()  # makes units that share a row group decode it once
_DECODED: dict[tuple[Shard, int, tuple[str, ...] | None], pa.Table] = {}  # the last row group


def texts_of(table: pa.Table, text_column: str) -> tuple[list[str | None], dict[int, str]]:
    """The texts, None for null or not UTF-8, and by row index what is wrong with those that are not UTF-8."""
    column = table.column(text_column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return column.to_pylist(), {}
    except UnicodeDecodeError:
        rows = column.cast(pa.large_binary()).to_pylist()
    texts: list[str | None] = [None] * len(rows)
    errors: dict[int, str] = {}
    for index, row in enumerate(rows):
        try:
            texts[index] = None if row is None else row.decode("utf-8")
        except UnicodeDecodeError as error:
            errors[index] = f"the text is not UTF-8: {error.reason} at byte {error.start}"
    return texts, errors


def _find(uri: str) -> tuple[list[storage.File], tuple[str, ...]]:
    """The Parquet files that ``uri`` means, and names of those beside them that might have been meant."""
    kind = storage.file_type(uri)
    if kind == "file":
        uri = storage.absolute(uri)
        with storage.explained(uri):
            return [storage.File(posixpath.basename(uri), uri, storage.size(uri))], ()
    if kind is None and not set("*?") & set(uri):
        raise UserError(f"{uri}: no such file or folder")
    root, pattern = (storage.absolute(uri), _VISIBLE) if kind == "directory" else _split_glob(uri)
    files = storage.list_files(root)
    matching = [file for file in files if pattern.match(file.name)]
    for sign, kind_of_table in _TABLES.items():
        for table in {match[1] for file in files if (match := sign.match(file.name))}:
            if any(file.name.startswith(table) for file in matching):
                raise UserError(
                    f"{storage.join(root, table).rstrip('/')}: {kind_of_table}: its log tells which of its Parquet "
                    "files count, and some hold rows that were deleted; write its rows to a folder of Parquet first"
                )
    if not matching:
        held = f"{len(files)} other files" if files else "nothing"
        raise UserError(f"{uri}: no Parquet file there (found {held}); names must end in .parquet, .parq, .pq")
    matching = _once(matching, root)
    read = {file.name for file in matching}
    # A glob is a choice; a folder is meant whole.
    others = [file.name for file in files if file.name not in read and not _MARKS.match(file.name)]
    return matching, tuple(others) if kind == "directory" else ()


def _once(files: Sequence[storage.File], root: str) -> list[storage.File]:
    """Files without those that links make appear again; one that lies below ``root`` itself goes before its links."""
    if "://" in root:
        return list(files)
    real, folder = {file.name: os.path.realpath(file.uri) for file in files}, os.path.realpath(root)
    names: dict[str, str] = {}
    for name in sorted(real, key=lambda name: (real[name] != f"{folder}/{name}", name)):
        names.setdefault(real[name], name)
    return [file for file in files if names[real[file.name]] == file.name]


def _split_glob(uri: str) -> tuple[str, re.Pattern[str]]:
    """The folder before the first wildcard, and a pattern for names below it; ``*`` stops at ``/``, ``**`` does not."""
    uri = storage.absolute(uri)
    root = re.split(r"[*?]", uri, maxsplit=1)[0].rpartition("/")[0]
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", uri[len(root) + 1 :])
    wildcards = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return root, re.compile("".join(wildcards.get(part) or re.escape(part) for part in parts) + r"\Z", re.DOTALL)


def _inspect(file: storage.File, text_column: str | None) -> tuple[Shard, str | None] | Corrupt:
    """Read one file's footer; a shard, and what is wrong with its text column."""
    if not file.size:
        return Corrupt(file.uri, file.name, "0 bytes, or a link to nothing")
    try:
        tail = storage.read_tail(file.uri, file.size)
    except OSError as error:  # not reached, which says nothing about what it holds
        raise UserError(f"{file.uri}: cannot be read ({storage.cause_of(error)})") from error
    try:
        parquet = storage.parquet_file(tail)
        metadata, schema = parquet.metadata, parquet.schema_arrow
    except (OSError, pa.ArrowException) as error:
        return Corrupt(file.uri, file.name, storage.cause_of(error))
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    chunks = (group.column(i) for group in groups for i in range(group.num_columns))
    text_bytes = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == text_column)
    digest, partitions = _footer_digest(tail, file.size), _partitions(file.name, schema.names)
    columns = (*schema.names, *dict(partitions))
    shard = Shard(file.uri, file.name, metadata.num_rows, file.size, digest, text_bytes, columns, partitions)
    return shard, None if text_column is None else _text_problem(schema, text_column, file.uri)


def _partitions(name: str, columns: Sequence[str]) -> tuple[tuple[str, str | None], ...]:
    """Of a shard by its path: names and values of the folders ``name=value``, where no column has that name."""
    folders = [match for part in name.split("/")[:-1] if (match := _PARTITION.match(part))]
    pairs = {unquote(match[1]): None if match[2] == _NO_VALUE else unquote(match[2]) for match in folders}
    return tuple((key, value) for key, value in pairs.items() if key not in columns)


def _footer_digest(tail: bytes, size: int) -> str:
    """Names a file by its footer, with which its tail ends, and its size in bytes."""
    footer = tail[-8 - int.from_bytes(tail[-8:-4], "little") :]
    return hashlib.sha256(footer + size.to_bytes(8, "little")).hexdigest()[:16]


def _text_problem(schema: pa.Schema, column: str, uri: str) -> str | None:
    if schema.names.count(column) != 1:
        near = difflib.get_close_matches(column, schema.names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near and near[0] != column else ""
        count = "more than one" if column in schema.names else "no"
        return f"{uri}: {count} column {column!r}; there are {', '.join(schema.names) or 'none'}{hint}"
    kind = schema.field(column).type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if plain in (pa.string(), pa.large_string(), pa.string_view(), pa.null()):
        return None
    return f"{uri}: column {column!r} is {kind}, not string; name another column or cast it"


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
        file = storage.parquet_file(content, metadata)
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
