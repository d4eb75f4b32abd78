"""JSON Lines and CSV files as shards: rows that stand one after another, plain or compressed.

To list a file it is read once, for how many rows it has, where they lie and of which types its columns are: a unit is
then read by its bytes, and its output has the columns of every other unit. What cannot be read as a row is a row all
the same; it says why (:data:`ner_batch.io.shards.UNREADABLE`).
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import IO, Any

import pyarrow as pa

from ner_batch.errors import UserError
from ner_batch.io import compressed, json_types, storage
from ner_batch.io.shards import UNREADABLE, Corrupt, Kind, NotRowsError, Part, Shard, Unit, missing_column, text_problem

PART_BYTES = 256 * 2**10  # bytes, about: what a unit reads beside its own rows is less than two of these
_LONGEST = 2**30  # bytes of a line; a longer one is no text
LONGEST_RECORD = 2**27  # bytes of a CSV record, of which a quote that nobody closes makes one: 15 times that in memory
ROWS_INFERRED = 1000  # rows whose types are looked at together, at most
BYTES_INFERRED = 8 * 2**20  # of their lines, about
_DELIMITERS = (",", "\t", ";", "|")

Row = Mapping[str, Any] | str
"""A row by its columns, or why it cannot be read."""


def inspect(file: storage.File, text_column: str | None, kind: Kind) -> tuple[Shard, str | None] | Corrupt:
    """Read a file through; a shard, and what is wrong with its text column.

    Raises:
        UserError: it cannot be reached, or is JSON of another kind.
    """
    cut, raw = _Cut(), None
    try:
        with storage.open_stream(file.uri) as raw, closing(compressed.unpacked(raw, file.uri)) as stream:
            if kind == "csv":
                shard, problem = _inspect_csv(file, text_column, _lines(stream), cut)
            else:
                shard, problem = _inspect_jsonl(file, text_column, _lines(stream), cut)
    except (NotRowsError, *compressed.NOT_COMPRESSED) as error:
        if isinstance(error, OSError) and (raw is None or raw.failure):
            raise UserError(f"{file.uri}: cannot be read ({storage.cause_of(error)})") from error
        return Corrupt(file.uri, file.name, storage.cause_of(error))
    return replace(shard, rows=cut.rows, digest=cut.digest.hexdigest()[:16], parts=cut.finished()), problem


def first_columns(file: storage.File, text_column: str, kind: Kind) -> tuple[str, ...]:
    """The columns of a file as its first rows have them, up to 1,000.

    Raises:
        UserError: it cannot be reached, or does not begin as one of its kind.
    """
    try:
        with storage.open_stream(file.uri) as raw, closing(compressed.unpacked(raw, file.uri)) as stream:
            if kind == "csv":
                return tuple(_header(_lines(stream), text_column)[1])
            rows = (row for _, row in islice(_objects(_lines(stream)), ROWS_INFERRED))
            return tuple(dict.fromkeys(name for row in rows if isinstance(row, Mapping) for name in row))
    except (NotRowsError, *compressed.NOT_COMPRESSED) as error:
        raise UserError(f"{file.uri}: cannot be read ({storage.cause_of(error)})") from error


def with_common_columns(shards: Sequence[Shard]) -> list[Shard]:
    """The shards, of which all JSON Lines have the columns of all of them, and one type for each.

    Raises:
        UserError: a folder ``name=value`` of one is a column of another: it would be null in the rows of the first.
    """
    types: dict[str, pa.DataType] = {}
    for shard in shards:
        if shard.kind == "jsonl" and shard.schema is not None:
            for column in shard.schema:
                types[column.name] = json_types.merged(types.get(column.name, pa.null()), column.type)
    schema = pa.schema([(name, json_types.settled(type_)) for name, type_ in types.items()])
    common = []
    for shard in shards:
        if shard.kind == "jsonl":
            folders = [name for name, _ in shard.partitions]
            if both := sorted(types.keys() & set(folders)):
                raise UserError(
                    f"{shard.uri}: its folder names {both[0]}, which rows of other files have as a column: rename one"
                )
            common.append(replace(shard, columns=(*schema.names, *folders), schema=schema))
        else:
            common.append(shard)
    return common


def read(unit: Unit, columns: Sequence[str] | None) -> pa.Table:
    """A unit's rows: all columns, or those named, and :data:`UNREADABLE` where a row cannot be read.

    Raises:
        UserError: the file is not the one that was listed.
        OSError: it cannot be reached at the moment.
    """
    shard = unit.shard
    assert shard.schema is not None
    rows: list[Row] = []
    if shard.parts:
        lines = _lines(io.BytesIO(_bytes(unit)))
        pairs = _records(lines, shard) if shard.kind == "csv" else _objects(lines)
        first = unit.start - shard.parts[0].row
        rows = [row for _, row in pairs if row is not None][first : first + unit.rows]
    whole = list(rows)
    errors: list[str | None] = [None] * len(rows)
    for place, row in enumerate(rows):
        if isinstance(row, str):
            errors[place] = f"row {unit.start + place}: {row}"
        elif shard.text_column is not None and not isinstance(text := _value(row, shard.text_column), str | None):
            errors[place] = f"row {unit.start + place}: {shard.text_column} is {_short(text)}, not a string"
            rows[place] = _without(row, shard.text_column)
    table: dict[str, pa.Array] = {}
    for name in shard.schema.names if columns is None else columns:
        type_ = pa.string() if name == shard.text_column else shard.schema.field(name).type
        values = [
            None if isinstance(row, str) else _value(row, name) for row in (whole if type_ == json_types.JSON else rows)
        ]
        table[name] = json_types.array(values, type_)
    if any(errors):
        table[UNREADABLE] = pa.array(errors, pa.string())
    return pa.table(table) if table else pa.table({"": pa.nulls(len(rows))}).select([])


@dataclass(slots=True)
class _Cut:
    """Rows counted, and cut into parts, while a file is read through."""

    rows: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    parts: list[Part] = field(default_factory=list)
    offset: int = 0
    open: Part | None = None

    def add(self, data: bytes, rows: int) -> None:
        """The next bytes: a row, or none (an empty line)."""
        self.digest.update(data)
        part = self.open or Part(self.rows, self.offset, 0, 0)
        self.open = Part(part.row, part.offset, part.size + len(data), zlib.crc32(data, part.crc))
        self.rows += rows
        self.offset += len(data)
        if self.open.size >= PART_BYTES:
            self.parts.append(self.open)
            self.open = None

    def skip(self, data: bytes) -> None:
        """Bytes before the first row."""
        self.digest.update(data)
        self.offset += len(data)

    def finished(self) -> tuple[Part, ...]:
        """All parts."""
        return (*self.parts, self.open) if self.open else tuple(self.parts)


def _inspect_jsonl(
    file: storage.File, text_column: str | None, lines: Iterator[bytes], cut: _Cut
) -> tuple[Shard, str | None]:
    types: dict[str, pa.DataType] = {}
    text_bytes, strings, others, pending_bytes = 0, 0, "", 0
    reason: str | None = None
    pending: list[Mapping[str, Any]] = []
    for line, row in _objects(lines):
        cut.add(line, row is not None)
        if cut.rows == 1 and row is not None and line.lstrip().startswith(b"["):
            raise NotRowsError("a JSON array, not an object a line: `jq -c '.[]'` makes lines of it")
        if not isinstance(row, Mapping):
            reason = reason or row
            continue
        pending_bytes += len(line)
        value = None if text_column is None else _value(row, text_column)
        if isinstance(value, str):
            strings += 1
            text_bytes += len(value.encode("utf-8", "surrogatepass"))
        elif value is not None:
            others = others or _short(value)
        pending.append(row if isinstance(value, str | None) else _without(row, text_column or ""))
        if len(pending) == ROWS_INFERRED or pending_bytes > BYTES_INFERRED:
            json_types.infer(pending, types)
            pending.clear()
            pending_bytes = 0
    json_types.infer(pending, types)
    if reason and not types:
        raise NotRowsError(f"no row can be read, the first for it is {reason}")
    schema, problem = pa.schema(list(types.items())), None
    if text_column is not None and others and not strings:
        problem = f"{file.uri}: column {text_column!r} holds {others}, not strings; name another column"
    elif text_column is not None and cut.rows and not strings:
        problem = text_problem(schema, text_column, file.uri)
    shard = Shard(
        file.uri,
        file.name,
        0,
        file.size,
        "",
        text_bytes,
        tuple(types),
        kind="jsonl",
        schema=schema,
        text_column=text_column,
    )
    return shard, problem


def _inspect_csv(
    file: storage.File, text_column: str | None, lines: Iterator[bytes], cut: _Cut
) -> tuple[Shard, str | None]:
    delimiter, header, start, lines = _header(lines, text_column)
    cut.skip(start)
    schema = pa.schema([(name, pa.string()) for name in header])
    shard = Shard(file.uri, file.name, 0, file.size, "", 0, tuple(header), (), "csv", schema, text_column, delimiter)
    text_bytes, last = 0, b""
    for record, row in _records(lines, shard):
        cut.add(record, row is not None)
        if row is not None:
            last = record
        if text_column in header and isinstance(row, Mapping):
            text_bytes += len(row[text_column])
    # A reader that asks for another line is within quotes.
    reader = csv.reader([last.decode("utf-8", "surrogateescape"), ""], delimiter=delimiter)
    with suppress(csv.Error):
        next(reader)
    if reader.line_num > 1:
        raise NotRowsError(f"row {cut.rows - 1}: a quote is opened and never closed")
    problem = None if text_column is None or text_column in header else missing_column(file.uri, text_column, header)
    return replace(shard, text_bytes=text_bytes), problem


def _header(lines: Iterator[bytes], text_column: str | None) -> tuple[str, list[str], bytes, Iterator[bytes]]:
    """The delimiter, the names of the columns, their bytes with empty lines before them, and the lines that follow.

    Of the delimiters it is the one that gives the text column, or most columns.
    """
    csv.field_size_limit(sys.maxsize)
    taken: list[bytes] = []
    headers: dict[str, tuple[list[str], int]] = {}
    problem = "no header: the first line names the columns"
    for mark in _DELIMITERS:
        consumed: list[bytes] = []
        reader = csv.reader(_texts(chain(taken, lines), consumed, "utf-8-sig", "strict"), delimiter=mark)
        try:
            names = next((fields for fields in reader if any(map(str.strip, fields))), [])
            headers[mark] = names, len(consumed)
        except (UnicodeDecodeError, csv.Error) as error:
            problem = f"the first line is no header of UTF-8 text ({error})"
            if "new-line" in str(error):
                problem = "its lines end in CR, not LF: convert them"
        taken = max(taken, consumed, key=len)
    mark = max(headers, key=lambda mark: (text_column in headers[mark][0], len(headers[mark][0])), default="")
    if not mark or not headers[mark][0]:
        raise NotRowsError(problem)
    header, count = headers[mark]
    json_types.check_width(header)
    names = [name or f"unnamed_{place}" for place, name in enumerate(header)]
    if repeated := sorted(name for name, times in Counter(names).items() if times > 1):
        raise NotRowsError(f"the header names {', '.join(map(repr, repeated))} more than once")
    return mark, names, b"".join(taken[:count]), chain(taken[count:], lines)


def _texts(lines: Iterable[bytes], consumed: list[bytes], encoding: str, errors: str) -> Iterator[str]:
    """Lines as the reader of CSV takes them, noted in ``consumed``, which is emptied after each record."""
    size = 0
    for line in lines:
        size = len(line) + (size if consumed else 0)
        consumed.append(line)
        if size > LONGEST_RECORD:
            raise NotRowsError(f"a row is longer than {LONGEST_RECORD:,} bytes: is a quote opened and never closed?")
        yield line.decode(encoding, errors)


def _objects(lines: Iterable[bytes]) -> Iterator[tuple[bytes, Row | None]]:
    """Each line with its row; None for an empty one."""
    for line in lines:
        if not line.strip(b" \t\r\n\xef\xbb\xbf"):
            yield line, None
            continue
        try:
            row = json.loads(line.removeprefix(codecs.BOM_UTF8).decode())  # of files one after another each may have it
            if isinstance(row, dict):
                "".join(row).encode()  # what no column can be called
        except UnicodeDecodeError as error:
            yield line, f"not UTF-8: {error.reason} at byte {error.start}"
        except UnicodeEncodeError:
            yield line, "not JSON of Unicode: half a surrogate pair in a name"
        except json.JSONDecodeError as error:
            yield line, f"not JSON: {error.msg.removesuffix(' at')} at character {error.pos}"
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
            yield line, f"not JSON: {error}"
        else:
            yield line, row if isinstance(row, dict) else f"a JSON {_short(row)}, not an object"


def _records(lines: Iterator[bytes], shard: Shard) -> Iterator[tuple[bytes, Row | None]]:
    """Each record of a CSV file, header excluded, with its bytes; None for an empty line."""
    csv.field_size_limit(sys.maxsize)
    consumed: list[bytes] = []

    assert shard.schema is not None
    names = shard.schema.names
    reader = csv.reader(_texts(lines, consumed, "utf-8", "surrogateescape"), delimiter=shard.delimiter)
    while True:
        row: Row | None = None
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fields, row = [], f"not CSV: {error}"
        record = b"".join(consumed)
        consumed.clear()
        if fields and len(fields) != len(names):
            row = f"{len(fields)} fields, where the header names {len(names)}"
        elif fields:
            try:
                record.decode()
                row = dict(zip(names, fields, strict=True))
            except UnicodeDecodeError as error:
                row = f"not UTF-8: {error.reason} at byte {error.start}"
        yield record, row


def _value(row: Mapping[str, Any], name: str) -> Any:
    """A column of a row by its name, or by a path of fields (``doc.body``) where the row has no such name."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _without(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A row with null for a value that :func:`_value` gives: it counts for no type, and fits into none."""
    path = [name] if name in row else name.split(".")
    copy: dict[str, Any] = dict(row)
    inner = copy
    for field_name in path[:-1]:
        inner[field_name] = dict(inner[field_name])
        inner = inner[field_name]
    inner[path[-1]] = None
    return copy


def _short(value: object) -> str:
    """A value of JSON for an error: what it is."""
    kinds: dict[type, str] = {
        bool: "boolean",
        int: "number",
        float: "number",
        str: "string",
        list: "array",
        dict: "object",
    }
    return kinds.get(type(value), "null")


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines with their ends."""
    first = True
    while line := stream.readline(_LONGEST):
        if first and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise NotRowsError("UTF-16, not UTF-8: convert it")
        first = False
        if len(line) == _LONGEST:
            raise NotRowsError(f"a line is longer than {_LONGEST:,} bytes: is this text?")
        yield line


def _bytes(unit: Unit) -> bytes:
    """The bytes of a unit's parts, checked against their sums."""
    uri, parts = unit.shard.uri, unit.shard.parts
    start, end = parts[0].offset, parts[-1].offset + parts[-1].size
    if compressed.is_compressed(uri):
        data = compressed.read(uri, unit.shard.digest, start, end, parts[-1].offset)
    else:
        ranges = [(place, min(place + storage.PART, end)) for place in range(start, end, storage.PART)]
        data = b"".join(storage.read_ranges(uri, ranges))
    for part in parts:
        if zlib.crc32(data[part.offset - start : part.offset - start + part.size]) != part.crc:
            raise UserError(f"{uri}: the file has changed since it was listed; start the run again")
    return data
