"""Files on a local disk or in S3, written whole or not at all.

A URI is a local path, ``file:///path`` or ``s3://bucket/key``. S3 is set up by the usual environment:
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``~/.aws/credentials`` or an instance role,
``AWS_REGION`` or ``AWS_DEFAULT_REGION``, and ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL`` for other servers than
Amazon's. Without credentials requests go unsigned, which is what public buckets want.

What a person can put right (a wrong path, bucket, endpoint or permission) is a ValueError of one line. Failures in the
middle of the work (disk full, connection lost) stay OSError, so that a caller can try again.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from ner_batch.errors import UserError

TEMPORARY_PREFIX = ".ner_batch-tmp-"
_S3_REMEDY = "check the bucket, AWS_ENDPOINT_URL, AWS_REGION and the credentials"


@dataclass(frozen=True, slots=True, order=True)
class File:
    """A stored file: ``name`` is its path below the folder that was listed, ``size`` is in bytes."""

    name: str
    uri: str
    size: int


def open_uri(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system a URI lives on and the path within it; local paths are made absolute.

    The first use of a bucket in a process asks the server for it, so a wrong endpoint is known within seconds.

    Raises:
        UserError: an unknown scheme, an unreachable endpoint, or no such bucket.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return fs.LocalFileSystem(), _absolute(uri)
    if scheme == "file":
        return fs.LocalFileSystem(), _absolute(unquote(urlsplit(uri).path))
    bucket = rest.partition("/")[0]
    if scheme != "s3" or not bucket:
        raise UserError(f"{uri}: not a place to read or write; give a local path, file:///path or s3://bucket/key")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None
    return _s3(bucket, endpoint, region), rest.strip("/")


def absolute(uri: str) -> str:
    """The same place, meaning the same in a process with another working directory."""
    return _uri(*open_uri(uri))


def join(folder: str, name: str) -> str:
    """The URI of ``name`` in ``folder``."""
    return f"{folder.rstrip('/')}/{name}"


def file_type(uri: str) -> fs.FileType:
    """Whether there is a file, a folder or nothing at ``uri``.

    Raises:
        UserError: the place cannot be asked.
    """
    with explained(uri):
        filesystem, path = open_uri(uri)
        return filesystem.get_file_info(path).type


def exists(uri: str) -> bool:
    """Whether there is a file at ``uri``."""
    return bool(file_type(uri) == fs.FileType.File)


def list_files(folder: str) -> list[File]:
    """All files below a folder, hidden ones too, sorted by name; none if the folder does not exist.

    Raises:
        UserError: the folder cannot be listed.
    """
    with explained(folder):
        filesystem, root = open_uri(folder)
        found = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    prefix = root.rstrip("/") + "/"
    return sorted(
        File(info.path.removeprefix(prefix), _uri(filesystem, info.path), info.size)
        for info in found
        if info.type == fs.FileType.File
    )


def read_bytes(uri: str) -> bytes:
    """The whole file.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
    """
    filesystem, path = open_uri(uri)
    with filesystem.open_input_file(path) as stream:
        return bytes(stream.read())


def read_json(uri: str) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: no such file, or not JSON.
    """
    with explained(uri):
        data = read_bytes(uri)
    try:
        return json.loads(data)
    except ValueError as error:
        raise UserError(f"{uri}: not JSON ({error})") from error


def write_bytes(uri: str, data: bytes | pa.Buffer) -> None:
    """Write a file whole or not at all, replacing one of that name; folders are made as needed.

    A process killed at any moment leaves the old file, the new file or none. On a local disk it may also leave a
    hidden temporary (see :func:`remove_stale_temporaries`); on S3 an unfinished upload, which no listing shows and a
    lifecycle rule (``AbortIncompleteMultipartUpload``) removes.
    """
    filesystem, path = open_uri(uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        _write_local(Path(path), data)
        return
    stream = filesystem.open_output_stream(path)
    stream.write(data)
    stream.close()


def write_json(uri: str, value: object) -> None:
    """Write a JSON file, indented, whole or not at all."""
    write_bytes(uri, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False).encode() + b"\n")


def write_table(uri: str, table: pa.Table, metadata: Mapping[str, str]) -> None:
    """Write a table as Parquet (zstd), whole or not at all; ``metadata`` is added to the schema's own."""
    merged = {**(table.schema.metadata or {}), **{key.encode(): value.encode() for key, value in metadata.items()}}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(merged), sink, compression="zstd")
    write_bytes(uri, sink.getvalue())


def read_table(uri: str) -> pa.Table:
    """A whole Parquet file.

    Raises:
        UserError: it is not there, or not Parquet.
    """
    with explained(uri):
        filesystem, path = open_uri(uri)
        return pq.read_table(path, filesystem=filesystem)


def read_metadata(uri: str) -> dict[str, str]:
    """The key-value metadata in a Parquet file's footer.

    Raises:
        UserError: it is not there, or not Parquet.
    """
    with explained(uri):
        filesystem, path = open_uri(uri)
        found = pq.read_metadata(path, filesystem=filesystem).metadata or {}
    return {key.decode(): value.decode() for key, value in found.items()}


def remove(uri: str) -> None:
    """Delete a file; none there is fine."""
    filesystem, path = open_uri(uri)
    with suppress(FileNotFoundError):
        filesystem.delete_file(path)


def remove_stale_temporaries(folder: str) -> int:
    """Delete what killed runs left of half-written files below ``folder``; returns how many.

    Only names that :func:`write_bytes` gives are touched. Nothing else may be writing below the folder.
    """
    stale = [file for file in list_files(folder) if file.name.rpartition("/")[2].startswith(TEMPORARY_PREFIX)]
    for file in stale:
        remove(file.uri)
    return len(stale)


def check_writable(folder: str) -> None:
    """Write and delete a hidden file, so that a wrong output is known before the work begins.

    Raises:
        UserError: the folder cannot be written to.
    """
    probe = join(folder, f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    with explained(folder):
        write_bytes(probe, b"")
        remove(probe)


def _uri(filesystem: fs.FileSystem, path: str) -> str:
    return path if isinstance(filesystem, fs.LocalFileSystem) else f"s3://{path}"


def _absolute(path: str) -> str:
    return os.path.normpath(Path(path).expanduser().absolute())


def _write_local(path: Path, data: bytes | pa.Buffer) -> None:
    """Temporary file in the same folder, fsync, rename, fsync of the folder: after a power cut too, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=64)
def _s3(bucket: str, endpoint: str | None, region: str | None) -> fs.S3FileSystem:
    """The file system of a bucket, asked for once per process with little patience, then used with much.

    The endpoint is passed on because pyarrow 26 reads no AWS_ENDPOINT_URL by itself. ``allow_delayed_open`` makes a
    small file one PUT. ``background_writes`` must stay on: without it a failed part is forgotten, and the stream's
    destructor completes the upload with the parts it has, a torn object in plain view.
    """
    with explained(f"s3://{bucket}"):
        if region is None and endpoint is None:
            region = fs.resolve_s3_region(bucket)
        hasty = _client(endpoint, region, timeout=4, attempts=2)
        if not _may_exist(hasty, bucket):
            raise UserError(f"s3://{bucket}: no such bucket; {_S3_REMEDY}")
    return _client(endpoint, region, timeout=60, attempts=5)


def _client(endpoint: str | None, region: str | None, timeout: float, attempts: int) -> fs.S3FileSystem:
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region or "us-east-1",
        connect_timeout=min(timeout, 5),
        request_timeout=timeout,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
        allow_delayed_open=True,
        background_writes=True,
    )


def _may_exist(client: fs.S3FileSystem, bucket: str) -> bool:
    """False where the server says there is no such bucket; one that may not be looked at may still be read."""
    try:
        return bool(client.get_file_info(bucket).type != fs.FileType.NotFound)
    except OSError as error:
        if "ACCESS_DENIED" in str(error):
            return True
        raise


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn an OSError into a ValueError of one line that names the place and the remedy."""
    try:
        yield
    except OSError as error:
        cause = " ".join(str(error).split(" (Request ID")[0].split())
        remedy = _S3_REMEDY if uri.startswith("s3://") else "check the path and its permissions"
        raise UserError(f"{uri}: {cause}; {remedy}") from error
