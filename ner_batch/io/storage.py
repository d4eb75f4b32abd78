"""Files on a local disk, in S3 or wherever fsspec reaches, written whole or not at all.

A URI is a local path, ``file:///path``, ``s3://bucket/key`` (see :mod:`ner_batch.io.s3` for its environment), or one
of another scheme that fsspec knows (``gs://``, ``abfs://``, ``hdfs://``, ``memory://`` ...), its package installed.

What a person can put right (a wrong path, bucket, endpoint or permission) is a UserError of one line. Failures in the
middle of the work (disk full, connection lost) stay OSError, so that a caller can try again.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from fsspec import AbstractFileSystem, get_filesystem_class
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import registry
from pyarrow import fs

from ner_batch.errors import UserError

TEMPORARY_PREFIX = ".ner_batch-tmp-"
PART = 8 * 2**20  # bytes of an upload's or a download's part
_PROBE = 64 * 1024  # bytes; a full disk may well take an empty file
WHOLE = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci", "tos")  # an object is seen whole or not at all
_FULL = (errno.ENOSPC, errno.EDQUOT)
_POSSIBLE = "give a local path, file:///path or s3://bucket/key, or a scheme of fsspec: gs, abfs, hdfs, sftp ..."
_S3_REMEDY = "check the bucket, AWS_ENDPOINT_URL, AWS_REGION and the credentials"


@dataclass(frozen=True, slots=True, order=True)
class File:
    """A stored file: ``name`` is its path below the folder that was listed, ``size`` is in bytes."""

    name: str
    uri: str
    size: int
    version: str = ""  # another one when the file is written anew; empty where the store tells nothing of the kind
    written: float | None = field(default=None, compare=False)  # seconds since 1970; None where the store tells no time


def local_path(uri: str) -> str | None:
    """The absolute path that a URI means on the local disk; None for a place elsewhere."""
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return os.path.normpath(Path(uri).expanduser().absolute())
    if scheme in {"file", "local"}:
        return os.path.normpath(Path(unquote(urlsplit(uri).path)).absolute())
    return None


def open_uri(uri: str) -> tuple[AbstractFileSystem, str]:
    """The file system a URI lives on and the path within it; local paths are made absolute.

    The first use of a bucket in a process asks the server for it, so a wrong endpoint is known within seconds.

    Raises:
        UserError: an unknown scheme, one whose package is missing, an unreachable endpoint, or no such bucket.
    """
    path = local_path(uri)
    if path is not None:
        return LocalFileSystem(), path
    scheme, _, rest = uri.partition("://")
    if scheme in {"s3", "s3a"}:
        bucket = rest.partition("/")[0]
        if not bucket:
            raise UserError(f"{uri}: no bucket is named: give s3://bucket/key")
        from ner_batch.io import s3  # it takes half a second to import

        with explained(f"s3://{bucket}"):
            return s3.open_bucket(bucket), rest.strip("/")
    try:
        get_filesystem_class(scheme)
    except ImportError as error:
        package = (getattr(error.__cause__, "name", None) or scheme).partition(".")[0]
        raise UserError(f"{uri}: {scheme}:// needs a package that is not here: pip install {package}") from error
    except ValueError as error:
        raise UserError(f"{uri}: there is no scheme {scheme}://; {_POSSIBLE}") from error
    with explained(uri):
        filesystem, path = url_to_fs(uri)
    filesystem.invalidate_cache()  # others write there too: what is asked now is answered as of now
    return filesystem, str(path).rstrip("/")


def forget_connections() -> None:
    """Connect anew at the next use, with credentials as they are then: a file of them may have been renewed."""
    for kind in registry.values():
        kind.clear_instance_cache()
    if s3 := sys.modules.get("ner_batch.io.s3"):
        s3.forget_buckets()


@contextmanager
def _opened(uri: str) -> Iterator[tuple[AbstractFileSystem, str]]:
    """What :func:`open_uri` gives; errors of a kind that the file system's package defines become OSErrors."""
    filesystem, path = open_uri(uri)
    try:
        yield filesystem, path
    except Exception as error:
        kind = type(error)
        if isinstance(error, OSError) or kind.__module__.partition(".")[0] in {"builtins", "ner_batch", "pyarrow"}:
            raise
        raise OSError(f"{kind.__name__}: {error}") from error


def _trimmed(uri: str) -> str:
    scheme, separator, rest = uri.rpartition("://")
    return f"{scheme}{separator}{rest.rstrip('/')}"


def absolute(uri: str) -> str:
    """The same place, meaning the same in a process with another working directory."""
    filesystem, path = open_uri(uri)
    return path if isinstance(filesystem, LocalFileSystem) else _trimmed(uri)


def join(folder: str, name: str) -> str:
    """The URI of ``name`` in ``folder``."""
    folder = _trimmed(folder)
    return f"{folder}{name}" if folder.endswith("://") else f"{folder}/{name}"


def file_type(uri: str) -> Literal["file", "directory"] | None:
    """Whether there is a file, a directory or nothing at ``uri``. Raises UserError where it cannot be asked."""
    with explained(uri), _opened(uri) as (filesystem, path):
        try:
            return "directory" if filesystem.info(path)["type"] == "directory" else "file"
        except (FileNotFoundError, NotADirectoryError):
            return None


def exists(uri: str) -> bool:
    """Whether there is a file at ``uri``."""
    return file_type(uri) == "file"


def size(uri: str) -> int:
    """Bytes of a file. Raises OSError where it cannot be asked, FileNotFoundError where there is none."""
    with _opened(uri) as (filesystem, path):
        size_in_bytes = filesystem.info(path)["size"]
    if size_in_bytes is None:  # some HTTP servers
        raise OSError(f"{uri}: the server does not say how long the file is")
    return int(size_in_bytes)


def list_files(folder: str) -> list[File]:
    """All files below a folder, hidden ones too, by name; none if it does not exist. Raises UserError otherwise."""
    with explained(folder), _opened(folder) as (filesystem, root):
        if isinstance(filesystem, LocalFileSystem):
            return sorted(_local_files(Path(root)))
        # fsspec passes over folders that it may not read; rows would go missing without a word.
        options = {"on_error": _raise_unless_gone} if type(filesystem).find is AbstractFileSystem.find else {}
        try:
            entries = filesystem.find(root, detail=True, **options)
        except FileNotFoundError:
            return []
    prefix = f"{root}/"
    return sorted(
        File(
            path.removeprefix(prefix),
            join(folder, path.removeprefix(prefix)),
            int(about["size"]),
            _version(about),
            _written(about),
        )
        for path, about in entries.items()
        if path.startswith(prefix) and not path.endswith("/")
    )


def _version(info: Mapping[str, Any]) -> str:
    return next((str(info[key]) for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime") if info.get(key)), "")


def _written(info: Mapping[str, Any]) -> float | None:
    """When a file was written, as s3fs, gcsfs, adlfs, and the others that tell it name and type the time."""
    times = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
    value = next((info[key] for key in times if info.get(key)), None)
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.timestamp()
    return float(value) if isinstance(value, int | float) else None


def _raise_unless_gone(error: Exception) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _local_files(root: Path) -> Iterator[File]:
    """Regular files below a folder, through links too (fsspec takes a link to a folder for a file).

    A link to nothing is a file of 0 bytes, so that somebody hears of it. One to a folder that it lies in is refused.
    """
    for folder, folders, names in os.walk(root, onerror=_raise_unless_gone, followlinks=True):
        here = Path(folder).resolve()
        for link in (Path(folder, name) for name in folders):
            if link.is_symlink() and here.is_relative_to(link.resolve()):
                raise OSError(
                    errno.ELOOP,
                    "a link to a folder that it lies in: its files would be read again and again",
                    str(link),
                )
        for name in names:
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            try:
                about = path.stat()
            except FileNotFoundError:
                if path.is_symlink():
                    yield File(relative, str(path), 0)
                continue
            if stat.S_ISREG(about.st_mode):
                yield File(relative, str(path), about.st_size, str(about.st_mtime_ns), about.st_mtime)


class Stream(io.BufferedReader):
    """A file to be read from its beginning to its end; ``failure`` is set where the store has failed meanwhile.

    For who reads through a decoder: what it raises besides is about the bytes, not the store.
    """

    def __init__(self, uri: str) -> None:
        self._pieces = _Pieces(uri)
        super().__init__(self._pieces, PART)

    @property
    def failure(self) -> Exception | None:
        """What a read has raised."""
        return self._pieces.failure


class _Pieces(io.RawIOBase):
    """A file read piece by piece, each asked for as :func:`read_ranges` does, with its attempts and its errors."""

    def __init__(self, uri: str) -> None:
        self._uri, self._position, self._size = uri, 0, size(uri)
        self.failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        if end == self._position:
            return 0
        try:
            (data,) = read_ranges(self._uri, [(self._position, end)])
        except (OSError, UserError) as error:
            self.failure = error
            raise
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def open_stream(uri: str) -> Stream:
    """A file to be read from its beginning to its end. Raises OSError where it cannot be read."""
    return Stream(uri)


def read_bytes(uri: str) -> bytes:
    """The whole file. Raises OSError where it cannot be read, FileNotFoundError where there is none."""
    with _opened(uri) as (filesystem, path):
        return bytes(filesystem.cat_file(path))


def read_ranges(uri: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Pieces of a file, from ``start`` to before ``end`` each, fetched at once where the store can; no range is empty.

    A piece is shorter where the file ends before. Raises OSError where the file cannot be read.
    """
    starts, ends = zip(*ranges, strict=True)
    with _opened(uri) as (filesystem, path):
        pieces = filesystem.cat_ranges([path] * len(ranges), list(starts), list(ends), on_error="raise")
    return [bytes(piece) for piece in pieces]


def read_json(uri: str) -> Any:
    """What a JSON file holds. Raises UserError where there is no such file, or not JSON."""
    with explained(uri):
        data = read_bytes(uri)
    try:
        return json.loads(data)
    except ValueError as error:
        raise UserError(f"{uri}: not JSON ({error})") from error


def write_bytes(uri: str, data: bytes | pa.Buffer) -> None:
    """Write a file whole or not at all, replacing one of that name; folders are made as needed.

    A process killed at any moment leaves the old file, the new file or none; on a disk perhaps a hidden temporary too
    (:func:`remove_stale_temporaries`), on S3 an unfinished upload, which no listing shows and a lifecycle rule removes.
    Raises OSError where it cannot be written; the old file, if any, is still there.
    """
    with _opened(uri) as (filesystem, path):
        if uri.partition("://")[0] in WHOLE:
            # One request; on S3, of two parts or more, an upload that s3fs completes when it has sent all of them.
            filesystem.pipe_file(path, bytes(data), **({"chunksize": PART} if uri.startswith("s3") else {}))
        else:
            _write_aside(filesystem, path, data)


def write_json(uri: str, value: object) -> None:
    """Write a JSON file, indented, whole or not at all."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    try:
        content = text.encode()
    except UnicodeEncodeError:  # the name of a file that is not UTF-8
        content = json.dumps(value, indent=2, allow_nan=False).encode()
    write_bytes(uri, content + b"\n")


def remove(uri: str) -> None:
    """Delete a file; none there is fine."""
    with _opened(uri) as (filesystem, path), suppress(FileNotFoundError):
        filesystem.rm_file(path)


def remove_stale_temporaries(folder: str) -> int:
    """Delete what killed writers left half-written below ``folder``, where nobody writes now; returns how many."""
    stale = [file for file in list_files(folder) if file.name.rpartition("/")[2].startswith(TEMPORARY_PREFIX)]
    for file in stale:
        remove(file.uri)
    return len(stale)


def check_writable(folder: str) -> None:
    """Write and delete a hidden file: a UserError says before the work begins that a folder cannot be written to.

    What was not there before is not there afterwards, the folder itself included.
    """
    probe = join(folder, f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    path = local_path(folder)
    with explained(folder):
        missing = [] if path is None else [place for place in (Path(path), *Path(path).parents) if not place.exists()]
        try:
            write_bytes(probe, b"\0" * _PROBE)
            remove(probe)
        except NotImplementedError as error:
            raise UserError(f"{folder}: can only be read: name a folder that can be written to") from error
        finally:
            for place in missing:
                with suppress(OSError):  # not made after all, or somebody else has put something there meanwhile
                    place.rmdir()


def _write_aside(filesystem: AbstractFileSystem, path: str, data: bytes | pa.Buffer) -> None:
    """Where a file is seen while it is written (disks, SFTP, HDFS ...): write another in its folder and rename it."""
    folder = path.rpartition("/")[0]
    temporary = f"{folder}/{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    filesystem.makedirs(folder, exist_ok=True)
    try:
        if isinstance(filesystem, LocalFileSystem):
            with Path(temporary).open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).replace(path)
            directory = os.open(folder or "/", os.O_RDONLY)
            try:
                os.fsync(directory)  # keeps the new name through a power cut
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # older CIFS, VirtualBox: not for folders
                    raise
            finally:
                os.close(directory)
            return
        filesystem.pipe_file(temporary, bytes(data))
        try:
            filesystem.mv(temporary, path)
        except FileExistsError:  # HDFS and SMB rename to nothing that is there
            filesystem.rm_file(path)
            filesystem.mv(temporary, path)
    except BaseException:
        with suppress(Exception):
            filesystem.rm_file(temporary)
        raise


def arrow_filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """What :func:`open_uri` gives, for a library that asks for a file system of Arrow, as Ray Train does; it pickles.

    A file is sent when its stream is closed: one of s3fs that is dropped half-written closes itself, and with that
    completes the upload of a torn object.
    """
    filesystem, path = open_uri(uri)
    return fs.PyFileSystem(_WholeFiles(filesystem)), path


class _WholeFiles(fs.FSSpecHandler):  # type: ignore[misc]
    def open_output_stream(self, path: str, metadata: object) -> pa.PythonFile:  # noqa: ARG002
        return pa.PythonFile(_Upload(self.fs, path), mode="w")


class _Upload:
    """A stream for Arrow. Not a subclass of io's, which close themselves when they are dropped."""

    def __init__(self, filesystem: AbstractFileSystem, path: str) -> None:
        self.closed = False
        self._filesystem, self._path, self._content = filesystem, path, io.BytesIO()
        self.write, self.tell, self.flush = self._content.write, self._content.tell, self._content.flush

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._filesystem.pipe_file(self._path, self._content.getvalue())


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn an OSError into a UserError of one line that names the place and the remedy."""
    try:
        yield
    except OSError as error:
        remedy = _S3_REMEDY if uri.startswith(("s3://", "s3a://")) else "check the path and its permissions"
        remedy = "make room there" if error.errno in _FULL else remedy
        raise UserError(f"{uri}: {cause_of(error)}; {remedy}") from error


def cause_of(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, FileNotFoundError) and error.errno is None:  # fsspec gives the path alone
        return "no such file or folder"
    return " ".join(str(error).split()) or type(error).__name__
