"""Holds a Ray worker in the middle of a read or a write, so that a test can kill it there; and logs every read.

Python imports this file at its start where this folder is on PYTHONPATH. With NER_BATCH_HOLD=FOLDER every row group that
a Ray worker decodes is a line `PID PATH GROUP` in FOLDER/read.log, every fsync of a file a line in FOLDER/write.log; where
FOLDER/read.hold (write.hold) exists, the worker then waits until it is gone. Where FOLDER/disk.full exists, fsync fails as
it does on a full disk (some file systems, NFS among them, say so no earlier).
"""

import errno
import os
import sys
import time
from pathlib import Path

FOLDER = os.environ.get("NER_BATCH_HOLD")
HOLD_SECONDS = 120


def pause(spot: str, line: str) -> None:
    """Log one passage of a spot and wait there while it is held."""
    with (Path(FOLDER) / f"{spot}.log").open("a") as log:
        log.write(f"{os.getpid()} {line}\n")
    end = time.monotonic() + HOLD_SECONDS
    while (Path(FOLDER) / f"{spot}.hold").exists() and time.monotonic() < end:
        time.sleep(0.01)


if FOLDER and any("default_worker.py" in word for word in sys.orig_argv):
    import pyarrow.parquet as pq

    read_row_group, fsync = pq.ParquetFile.read_row_group, os.fsync

    def logged_read(self, group, *args, **kwargs):
        """ParquetFile.read_row_group, logged and held."""
        pause("read", str(group))
        return read_row_group(self, group, *args, **kwargs)

    def logged_fsync(descriptor):
        """os.fsync, logged and held."""
        pause("write", str(descriptor))
        if (Path(FOLDER) / "disk.full").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return fsync(descriptor)

    pq.ParquetFile.read_row_group, os.fsync = logged_read, logged_fsync
