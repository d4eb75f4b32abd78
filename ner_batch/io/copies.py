"""Folders in S3 as local folders: one copy per content, shared by the processes of a machine.

No process can clean up (replicas are killed, or leave by ``os._exit``), so copies lie in the system's folder for
temporary files, which the system empties. fsspec's `simplecache` hands out the half of a file whose writer was killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import posixpath
import tempfile
from pathlib import Path

from ner_batch.errors import UserError
from ner_batch.io import storage

_PARTS_AT_ONCE = 8  # of a file that is copied: 64 MB of memory


def fetched(folder: str) -> str:
    """A folder's local path: its own, or that of a copy of what is there now, which a listing tells each time.

    One process copies, and the others wait for it. What it leaves half done if it is killed the next one completes: a
    file is whole when it has its size.

    Raises:
        UserError: the copy cannot be made.
    """
    own = storage.local_path(folder)
    if own is not None:
        return own
    folder = folder.rstrip("/")
    with storage.explained(folder):
        files = storage.list_files(folder)
        # Another server, bucket, file, size or time of writing is another content.
        server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        content = json.dumps([server, folder, [(file.name, file.size, file.version) for file in files]])
        place = _home() / hashlib.sha256(content.encode()).hexdigest()[:16]
        copy = place / posixpath.basename(folder)
        copy.mkdir(parents=True, exist_ok=True)
        with (place / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed, or the process has ended
            for file in files:
                target = copy / file.name
                if not (target.is_file() and target.stat().st_size == file.size):
                    _copy(file, target)
    return str(copy)


def _home() -> Path:
    home = Path(tempfile.gettempdir()) / f"ner_batch-copies-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    about = home.lstat()
    if home.is_symlink() or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise UserError(f"{home}: others may write to this folder of copies: remove it, or set TMPDIR to another place")
    return home


def _copy(file: storage.File, target: Path) -> None:
    parts = [(start, min(start + storage.PART, file.size)) for start in range(0, file.size, storage.PART)]
    with storage.explained(str(target)):  # a local disk that is full is not the bucket's fault
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"")
    for first in range(0, len(parts), _PARTS_AT_ONCE):
        content = storage.read_ranges(file.uri, parts[first : first + _PARTS_AT_ONCE])
        with storage.explained(str(target)), target.open("ab") as stream:
            stream.writelines(content)
    if target.stat().st_size != file.size:
        raise OSError("was changed while it was copied: try again")
