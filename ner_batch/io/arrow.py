"""Storage for a library that asks for a file system of Arrow, as Ray Train does."""

from __future__ import annotations

import io

import pyarrow as pa
from fsspec import AbstractFileSystem
from pyarrow import fs

from ner_batch.io import storage


def arrow_filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """What :func:`storage.open_uri` gives, as a file system of Arrow; it pickles.

    Raises:
        UserError: as :func:`storage.open_uri`.
    """
    filesystem, path = storage.open_uri(uri)
    return fs.PyFileSystem(_WholeFiles(filesystem)), path


class _WholeFiles(fs.FSSpecHandler):  # type: ignore[misc]
    """fsspec for Arrow, except that a file is sent when it is closed.

    A stream of s3fs that is dropped half-written closes itself, and with that completes the upload: a torn object.
    """

    def open_output_stream(self, path: str, metadata: object) -> pa.PythonFile:  # noqa: ARG002
        return pa.PythonFile(_Upload(self.fs, path), mode="w")


class _Upload:
    """A stream for Arrow; what it is given becomes a file when it is closed, and not when it is dropped."""

    def __init__(self, filesystem: AbstractFileSystem, path: str) -> None:
        self.closed = False
        self._filesystem, self._path, self._content = filesystem, path, io.BytesIO()

    def write(self, data: bytes) -> int:
        return self._content.write(data)

    def tell(self) -> int:
        return self._content.tell()

    def flush(self) -> None:
        pass

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._filesystem.pipe_file(self._path, self._content.getvalue())
