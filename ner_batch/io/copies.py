"""Folders in S3 as local folders: one copy per content, shared by the processes of a machine.

A copy is no process's own. A replica whose engine died leaves at once (``os._exit``) and Ray kills replicas, so nobody
would be there to remove it; and the replicas of a machine need one copy, not one each. Copies lie in the system's
folder for temporary files, which the system empties. fsspec's own caches do not do: `simplecache` hands out the half
of a file whose process was killed (tried: 1.5 of 3 MB), and both keep single files under flat names, not folders.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import posixpath
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from ner_batch.io import storage

_STALE = 24 * 3600.0  # seconds after which a copy that nobody finished is removed


def fetched(folder: str) -> str:
    """A folder's local path: its own, or that of a copy of what is there now, which a listing tells each time.

    Raises:
        UserError: the copy cannot be made.
    """
    own = storage.local_path(folder)
    if own is not None:
        return own
    folder = folder.rstrip("/")
    with storage.explained(folder):
        files = storage.list_files(folder)
        home = _home()
        place = home / _key(folder, files)
        copy = place / posixpath.basename(folder)
        if not _whole(copy, files):
            _remove_unfinished(home)
            _copy(folder, copy, files)
    return str(copy)


def _key(folder: str, files: Sequence[storage.File]) -> str:
    """Names a folder's content: another server, bucket, file, size or time of writing is another copy."""
    server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    content = json.dumps([server, folder, [(file.name, file.size, file.version) for file in files]])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _home() -> Path:
    """This user's folder for copies. One that others own or may write to is not trusted: this process makes its own."""
    home = Path(tempfile.gettempdir()) / f"ner_batch-copies-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    about = home.lstat()
    if not home.is_symlink() and about.st_uid == os.getuid() and not about.st_mode & 0o077:
        return home
    return _own_home()


@lru_cache(maxsize=1)
def _own_home() -> Path:
    own = Path(tempfile.mkdtemp(prefix="ner_batch-copies-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def _whole(copy: Path, files: Sequence[storage.File]) -> bool:
    """Whether a copy has all of the files, each of its size: the system may have removed some."""
    return copy.is_dir() and all(
        (copy / file.name).is_file() and (copy / file.name).stat().st_size == file.size for file in files
    )


def _copy(folder: str, copy: Path, files: Sequence[storage.File]) -> None:
    """Copy aside and rename: no process sees half of a copy, and of several that make it the first one's stays."""
    place = copy.parent
    scratch = Path(tempfile.mkdtemp(dir=place.parent, prefix=storage.TEMPORARY_PREFIX))
    try:
        new = scratch / "new" / copy.name
        new.mkdir(parents=True)
        storage.copy_folder(folder, new)
        if not _whole(new, files):
            raise OSError("was changed while it was copied: try again")
        with suppress(OSError):
            new.parent.rename(place)
        if not _whole(copy, files):  # one of which files were removed is in the way
            place.rename(scratch / "old")
            new.parent.rename(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_unfinished(home: Path) -> None:
    """What processes left that were killed while they copied."""
    for scratch in home.glob(f"{storage.TEMPORARY_PREFIX}*"):
        with suppress(OSError):
            if time.time() - scratch.stat().st_mtime > _STALE:
                shutil.rmtree(scratch, ignore_errors=True)
