"""Compressed files: the bytes that they hold, by their places.

Nothing can be read from the middle of one, so a file is read on from where the last unit ended.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import threading
import zlib
from dataclasses import dataclass
from typing import IO

import pyarrow as pa

from ner_batch.io import storage

NOT_COMPRESSED = (EOFError, zlib.error, lzma.LZMAError, OSError, pa.ArrowException)
"""What is raised for bytes that are no compressed stream. That a store fails is an OSError too: see storage.Stream."""


def is_compressed(uri: str) -> bool:
    """Whether a file's name ends as that of a compressed one."""
    return uri.lower().endswith((".gz", ".bz2", ".xz", ".zst"))


def unpacked(stream: storage.Stream, uri: str) -> IO[bytes]:
    """A file's bytes as they were before they were compressed, which its name tells."""
    suffix = uri.rpartition(".")[2].lower()
    if suffix == "gz":
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]  # not an IO by name
    if suffix == "bz2":
        return bz2.BZ2File(stream)
    if suffix == "xz":
        return lzma.LZMAFile(stream)
    if suffix == "zst":
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd"), storage.PART)
    return stream


@dataclass(slots=True)
class _Unpacked:
    """A compressed file that is being read: as it is stored, uncompressed, how far, and the bytes of the last part."""

    stored: storage.Stream
    stream: IO[bytes]
    position: int = 0
    last: bytes = b""


_LOCK = threading.Lock()
UNPACKED: dict[tuple[str, str], _Unpacked] = {}  # the one read last, by its place and the digest it was listed with


def read(uri: str, digest: str, start: int, end: int, last_part: int) -> bytes:
    """Bytes ``start`` to ``end`` of what a file holds, of which those from ``last_part`` are kept for the next call.

    No bytes where it is not whole any more. ``digest`` is the one it was listed with.
    """
    with _LOCK:
        key = uri, digest
        file = UNPACKED.pop(key, None)
        if file is None or file.position - len(file.last) > start:
            for other in (*UNPACKED.values(), *([file] if file else [])):
                other.stream.close()
            UNPACKED.clear()
            stored = storage.open_stream(uri)
            file = _Unpacked(stored, unpacked(stored, uri))
        try:
            while file.position < start and (passed := len(file.stream.read(min(storage.PART, start - file.position)))):
                file.position += passed
            # Units share a part.
            data = file.last[len(file.last) - file.position + start :] if file.position > start else b""
            data += file.stream.read(end - start - len(data))
        except NOT_COMPRESSED:
            if file.stored.failure:
                raise
            return b""  # it was whole when it was listed
        file.position, file.last = start + len(data), data[last_part - start :]
        UNPACKED[key] = file
        return data
