"""Arrow's streams as shards: what Hugging Face's `datasets` saves, and Arrow's and Feather's own files.

A stream is messages one after another: a schema, then batches of rows. To list a file it is read once; a unit is read
by the bytes of its batches.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence

import pyarrow as pa

from ner_batch.errors import UserError
from ner_batch.io import storage
from ner_batch.io.shards import Corrupt, Part, Shard, Unit, named, text_problem

_FILE = b"ARROW1\0\0"  # begins a file, whose messages come then, and a footer


class _Tee:
    """A stream that is read, with what was read of it: its length, its digest, its CRC since the last message."""

    def __init__(self, stream: storage.Stream) -> None:
        self.stream, self.offset, self.crc, self.digest = stream, 0, 0, hashlib.sha256()
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.offset += len(data)
        self.crc = zlib.crc32(data, self.crc)
        self.digest.update(data)
        return data

    def readable(self) -> bool:
        return True


def inspect(file: storage.File, text_column: str | None) -> tuple[Shard, str | None] | Corrupt:
    """Read a file through; a shard, and what is wrong with its text column.

    Raises:
        UserError: it cannot be reached.
    """
    parts: list[Part] = []
    rows = text_bytes = 0
    stream: storage.Stream | None = None
    try:
        with storage.open_stream(file.uri) as stream:
            tee = _Tee(stream)
            is_file = stream.peek(len(_FILE))[: len(_FILE)] == _FILE
            if is_file:
                tee.offset = len(stream.read(len(_FILE)))
            reader = pa.ipc.MessageReader.open_stream(pa.PythonFile(tee, mode="r"))
            schema = pa.ipc.read_schema(reader.read_next_message())
            problem = None if text_column is None else text_problem(schema, text_column, file.uri)
            start, tee.crc = tee.offset, 0
            for message in reader:
                if message.type != "record batch":
                    return Corrupt(file.uri, file.name, f"a {message.type} in it: write it as Parquet (to_parquet)")
                batch = pa.ipc.read_record_batch(message, schema)
                parts.append(Part(rows, start, tee.offset - start, tee.crc))
                rows += len(batch)
                if text_column is not None and problem is None:
                    text_bytes += named(pa.Table.from_batches([batch]), [text_column]).nbytes
                start, tee.crc = tee.offset, 0
            if is_file and not stream.read().endswith(_FILE.rstrip(b"\0")):  # its messages may end between two batches
                return Corrupt(file.uri, file.name, "it ends before its footer: is it copied whole?")
    except (pa.ArrowException, EOFError, StopIteration, OSError) as error:
        if isinstance(error, OSError) and (stream is None or stream.failure):
            raise UserError(f"{file.uri}: cannot be read ({storage.cause_of(error)})") from error
        return Corrupt(file.uri, file.name, storage.cause_of(error))  # an OSError is Arrow's word for no message too
    shard = Shard(
        file.uri,
        file.name,
        rows,
        file.size,
        tee.digest.hexdigest()[:16],
        text_bytes,
        tuple(schema.names),
        kind="arrow",
        schema=schema,
        parts=tuple(parts),
    )
    return shard, problem


def read(unit: Unit, columns: Sequence[str] | None) -> pa.Table:
    """The unit's rows as they are stored: all columns, or those named.

    Raises:
        UserError: the file is not the one that was listed.
        OSError: it cannot be reached at the moment.
    """
    shard = unit.shard
    batches = []
    for part in shard.parts:
        (data,) = storage.read_ranges(shard.uri, [(part.offset, part.offset + part.size)])
        if zlib.crc32(data) != part.crc:
            raise UserError(f"{shard.uri}: the file has changed since it was listed; start the run again")
        batches.append(pa.ipc.read_record_batch(pa.ipc.read_message(data), shard.schema))
    table = pa.Table.from_batches(batches, shard.schema)
    if shard.parts:
        table = table.slice(unit.start - shard.parts[0].row, unit.rows)
    return table if columns is None else named(table, columns)
