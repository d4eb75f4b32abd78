"""Storage that cannot be reached, or is full, for a while: which failures may pass, and waiting until they have."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from ner_batch.errors import JobError, UserError
from ner_batch.io import storage

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between two attempts: the first pause, which doubles, and the longest."""

_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EBUSY", "EAGAIN", "EREMOTEIO", "ESTALE", "ENOTCONN", "ESHUTDOWN"),
        *("ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE", "ETIMEDOUT"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET"),
    )
    if hasattr(errno, name)
)
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})


def may_pass(error: BaseException, *, writing: bool = False) -> bool:
    """Whether a failure may pass: the store is out of reach, in trouble or full, or a token has run out.

    Writing: also where it is refused, or the disk is broken, for so it will be with every other file. A file that
    cannot be read is a matter of this file.
    """
    passing = _PASSING | (_REFUSED if writing else frozenset())
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ConnectionError, TimeoutError)) or (writing and isinstance(cause, PermissionError)):
            return True
        if isinstance(cause, OSError) and cause.errno in passing:
            return True
        answer = getattr(cause, "response", None)  # botocore's ClientError
        if isinstance(answer, dict):
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if status >= 500 or status == 429 or answer.get("Error", {}).get("Code") in _EXPIRED:
                return True
        cause = cause.__cause__
    return False


def wait_out(
    action: Callable[[], T], seconds: float, waiting: Callable[[str | None], None], *, writing: bool = False
) -> T:
    """What ``action`` gives, tried again while storage fails in a way that may pass.

    Args:
        action: reads or writes; what it has begun must not be in the way of its next attempt.
        seconds: how long after the first failure to go on trying; 0 does not try again.
        waiting: hears why, after every failure, and None once it works again.
        writing: see :func:`may_pass`.

    Raises:
        JobError: storage has failed for longer.
        OSError, UserError: what ``action`` raises, where that does not pass.
    """
    start, pause = time.monotonic(), FIRST_PAUSE
    failed = False
    while True:
        try:
            value = action()
        except (OSError, UserError) as error:
            if not seconds or not may_pass(error, writing=writing):
                raise
            cause = storage.cause_of(error)
            left = start + seconds - time.monotonic()
            if left <= 0:
                raise JobError(
                    f"storage has failed for {seconds:,.0f} s (job.storage_wait_seconds): {cause}; "
                    "what is finished stays: start the run again once it works"
                ) from error
            waiting(cause)
            failed = True
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)
            storage.forget_connections()
        else:
            if failed:
                waiting(None)
            return value
