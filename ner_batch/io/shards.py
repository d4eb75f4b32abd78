"""Parquet shards: what there is, and how it is cut into work units.

A unit is a run of rows of one shard. Its output name is a function of the shard's name and the start row alone, so a
finished unit is recognised by its file, in any later run, whatever was added to the input meanwhile.
"""

from __future__ import annotations

import difflib
import hashlib
import posixpath
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from ner_batch.errors import UserError
from ner_batch.io import storage

SUFFIXES = (".parquet", ".parq", ".pq")
_MAX_PROBLEMS = 10
_FOOTER_GUESS = 64 * 1024  # bytes; one request fetches the footer of nearly every file


@dataclass(frozen=True, slots=True)
class Shard:
    """One readable input file.

    ``name`` is its path below the listed root, with ``/``. ``digest`` covers the footer (row counts, offsets, sizes,
    statistics, schema) and the file size, so a file that was written anew has another one. ``text_bytes`` is what the
    text column takes uncompressed, as the footer states it.
    """

    uri: str
    name: str
    rows: int
    bytes: int
    digest: str
    text_bytes: int
    columns: tuple[str, ...]

    def rows_of(self, text_bytes: int) -> int:
        """How many rows hold about ``text_bytes`` of text; 1 or more."""
        return max(1, text_bytes * self.rows // max(1, self.text_bytes))


@dataclass(frozen=True, slots=True)
class Corrupt:
    """An input file that cannot be read as Parquet, and why in one line. ``name`` as in :class:`Shard`."""

    uri: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All shards by name, and the files that cannot be read."""

    shards: tuple[Shard, ...]
    corrupt: tuple[Corrupt, ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows ``start`` to ``start + rows`` of a shard: what is computed, written and retried as one."""

    shard: Shard
    start: int
    rows: int

    @property
    def name(self) -> str:
        """The output file's name: readable, safe on any file system, and unique over shards of the same stem."""
        stem = re.sub(r"[^A-Za-z0-9.-]+", "_", posixpath.splitext(posixpath.basename(self.shard.name))[0])
        digest = hashlib.sha256(self.shard.name.encode("utf-8", "surrogateescape")).hexdigest()[:10]
        return f"{stem.strip('._')[:64] or 'shard'}-{digest}-{self.start:010d}.parquet"


def list_shards(uri: str, text_column: str | None) -> Listing:
    """The Parquet files at ``uri``: one file, a folder (with its folders), or a glob (``*``, ``?``, ``**/``).

    In folders, names that begin with ``_`` or ``.`` are passed over. Footers are read, 16 at a time. Without a
    ``text_column`` no text is asked for, and ``text_bytes`` is 0.

    Raises:
        UserError: nothing there, no Parquet there, nothing readable, or no usable ``text_column`` in some shards (one
            line each, at most ten).
    """
    files = _find(uri)
    with ThreadPoolExecutor(16) as pool:
        footers = list(pool.map(lambda file: _inspect(file, text_column), files))
    shards = [footer for footer in footers if isinstance(footer, _Footer)]
    corrupt = tuple(footer for footer in footers if isinstance(footer, Corrupt))
    if not shards:
        raise UserError(f"{uri}: no readable Parquet file; {corrupt[0].uri}: {corrupt[0].reason}")
    if text_column is not None:
        _require_text([(footer.shard.uri, footer.schema) for footer in shards], text_column)
    return Listing(tuple(footer.shard for footer in shards), corrupt)


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
        step = min(unit_rows, shard.rows_of(unit_bytes))
        units += [Unit(shard, start, min(step, rows - start)) for start in range(0, max(rows, 1), step)]
        left -= rows
    return tuple(units)


@dataclass(frozen=True, slots=True)
class _Footer:
    shard: Shard
    schema: pa.Schema


def _find(uri: str) -> list[storage.File]:
    """The files a URI means, by name."""
    kind = storage.file_type(uri)
    if kind == fs.FileType.File:
        return [_single(storage.absolute(uri))]
    if kind == fs.FileType.NotFound and not set("*?") & set(uri):
        raise UserError(f"{uri}: no such file or folder")
    root, pattern = (uri, None) if kind == fs.FileType.Directory else _split_glob(uri)
    files = storage.list_files(root)
    chosen = [file for file in files if (pattern.match(file.name) if pattern else _is_visible_parquet(file.name))]
    if not chosen:
        held = f"{len(files)} other files" if files else "nothing"
        raise UserError(f"{uri}: no Parquet file there (found {held}); names must end in {', '.join(SUFFIXES)}")
    return chosen


def _single(uri: str) -> storage.File:
    filesystem, path = storage.open_uri(uri)
    return storage.File(posixpath.basename(path), uri, filesystem.get_file_info(path).size)


def _is_visible_parquet(name: str) -> bool:
    return name.endswith(SUFFIXES) and not any(part.startswith(("_", ".")) for part in name.split("/"))


def _split_glob(uri: str) -> tuple[str, re.Pattern[str]]:
    """The folder before the first wildcard, and a pattern for names below it; ``*`` stops at ``/``, ``**`` does not."""
    uri = storage.absolute(uri)
    root = re.split(r"[*?]", uri, maxsplit=1)[0].rpartition("/")[0]
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", uri[len(root) + 1 :])
    wildcards = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return root, re.compile("".join(wildcards.get(part) or re.escape(part) for part in parts) + r"\Z", re.DOTALL)


def _inspect(file: storage.File, text_column: str | None) -> _Footer | Corrupt:
    """Read one file's footer.

    Raises:
        UserError: the file cannot be reached (which says nothing about what it holds).
    """
    try:
        filesystem, path = storage.open_uri(file.uri)
        with filesystem.open_input_file(path) as source:
            footer = footer_bytes(source)
        metadata = pq.read_metadata(pa.BufferReader(b"PAR1" + footer))
        schema = metadata.schema.to_arrow_schema()
    except (OSError, pa.ArrowException) as error:
        if not is_corruption(error):
            raise UserError(f"{file.uri}: cannot be read ({one_line(error)})") from error
        return Corrupt(file.uri, file.name, one_line(error))
    digest, size = footer_digest(footer, file.size), _column_bytes(metadata, text_column)
    shard = Shard(file.uri, file.name, metadata.num_rows, file.size, digest, size, tuple(schema.names))
    return _Footer(shard, schema)


def _column_bytes(metadata: pq.FileMetaData, column: str | None) -> int:
    """Uncompressed bytes of a column's pages."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    chunks = (group.column(i) for group in groups for i in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column)


def footer_bytes(source: pa.NativeFile) -> bytes:
    """Footer, its length and the closing magic: the last bytes of a Parquet file.

    Raises:
        pa.ArrowInvalid: the file does not end as Parquet does.
    """
    size = source.size()
    if size < 12:
        raise pa.ArrowInvalid(f"the file has {size} bytes, too few for Parquet")
    tail = bytes(source.read_at(min(size, _FOOTER_GUESS), max(0, size - _FOOTER_GUESS)))
    if tail[-4:] != b"PAR1":
        raise pa.ArrowInvalid("the file does not end with Parquet's magic bytes: cut short, or not Parquet")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > size:
        raise pa.ArrowInvalid(f"the footer claims {length} bytes of a file of {size}")
    return tail[-length:] if length <= len(tail) else bytes(source.read_at(length, size - length))


def footer_digest(footer: bytes, size: int) -> str:
    """Names a file by its footer and its size in bytes."""
    return hashlib.sha256(footer + size.to_bytes(8, "little")).hexdigest()[:16]


def _require_text(schemas: Sequence[tuple[str, pa.Schema]], column: str) -> None:
    problems = [problem for uri, schema in schemas if (problem := _text_problem(schema, column, uri))]
    if len(problems) > _MAX_PROBLEMS:
        problems[_MAX_PROBLEMS:] = [f"and {len(problems) - _MAX_PROBLEMS} more files like these"]
    if problems:
        raise UserError("\n".join(problems))


def _text_problem(schema: pa.Schema, column: str, uri: str) -> str | None:
    if schema.names.count(column) != 1:
        near = difflib.get_close_matches(column, schema.names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near and near[0] != column else ""
        count = "more than one" if column in schema.names else "no"
        return f"{uri}: {count} column {column!r}; there are {', '.join(schema.names) or 'none'}{hint}"
    kind = schema.field(column).type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if any(test(plain) for test in tests):
        return None
    return f"{uri}: column {column!r} is {kind}, not string; name another column or cast it"


def is_corruption(error: Exception) -> bool:
    """Whether bytes are bad, and not the way to them: Arrow raises OSError for both.

    An error of the system has an errno; one of S3 says so ("AWS Error"); decoders give neither.
    """
    return getattr(error, "errno", None) is None and "AWS Error" not in str(error)


def one_line(error: Exception) -> str:
    """What an error says, in one line and without S3's request ids."""
    return " ".join(str(error).split(" (Request ID")[0].split())
