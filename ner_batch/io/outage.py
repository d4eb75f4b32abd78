"""Storage that cannot be reached, or is full, for a while: which failures may pass, and waiting until they have."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from ner_batch.errors import JobError, UserError
from ner_batch.io import storage, tables

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between two attempts: the first pause, which doubles, and the longest."""

ONE_FILE_SECONDS = 120.0
"""A file that cannot be read for so long from a store that answers is lost: its units are left out."""

LOST: set[str] = set()  # files that were waited for in vain; of a large one each of hundreds of units would wait

_ONE_FILE = frozenset(
    {errno.ENOENT, errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EFBIG}
    | {errno.EMSGSIZE, errno.ENOSYS, errno.ENOTSUP}
)
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, getattr(errno, "EUCLEAN", errno.EIO)})
# Refusals of S3 that are of a key, a token, a clock or a busy store, and so of every file.
_EVERY_FILE = frozenset(
    (
        *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "InvalidToken"),
        *("InvalidTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "RequestTimeout"),
        *("SlowDown", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled"),
        *("RequestThrottledException", "TooManyRequestsException", "RequestLimitExceeded", "LimitExceededException"),
        *("BandwidthLimitExceeded", "PriorRequestNotComplete", "OperationAborted", "QuotaExceeded"),
    )
)
_BUSY = frozenset({408, 425, 429})  # HTTP's, beside all from 500 on


def may_pass(error: BaseException, *, writing: bool = False) -> bool:
    """Whether a failure may be over after a while: the store is out of reach, in trouble or full, a token has run out.

    What is known to be of one file is not: it is gone, changed or corrupt, or may not be read. Writing: what is refused
    may pass too, for so it is with every other file.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__
    if any(isinstance(link, tables.NotParquetError) for link in chain):
        return False
    answers = [answer for link in chain if isinstance(answer := getattr(link, "response", None), dict)]
    if answers:  # botocore's ClientError
        return _passing_answer(answers[-1], writing)
    if statuses := [status for link in chain if (status := _http_status(link))]:
        return statuses[-1] >= 500 or statuses[-1] in _BUSY or (writing and statuses[-1] in {401, 403})
    failure = next((link for link in chain if isinstance(link, OSError)), None)
    if failure is None:
        return False
    if isinstance(failure, PermissionError) or failure.errno in _REFUSED:
        return writing
    of_one_file = isinstance(failure, (FileNotFoundError, IsADirectoryError, NotADirectoryError))
    return not of_one_file and failure.errno not in _ONE_FILE


def _passing_answer(answer: dict[str, Any], writing: bool) -> bool:
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = answer.get("Error", {}).get("Code", "")
    if status >= 500 or status in _BUSY or code in _EVERY_FILE:
        return True
    return writing and (status in {401, 403} or code == "NoSuchBucket")


def _http_status(error: BaseException) -> int:
    """The status of an HTTP answer that an error of some package carries; 0 for none."""
    if type(error).__module__ == "aiohttp.http_exceptions":  # of an answer that broke off: 400 is aiohttp's own number
        return 0
    values = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((value for value in values if type(value) is int and 100 <= value < 600), 0)


def wait_out(
    action: Callable[[], T],
    seconds: float,
    waiting: Callable[[str | None], None],
    *,
    writing: bool = False,
    one_file: str | None = None,
) -> T:
    """What ``action`` gives, tried again while storage fails in a way that may pass.

    Args:
        action: reads or writes; what it has begun must not be in the way of its next attempt.
        seconds: how long after the first failure to go on trying; 0 does not try again.
        waiting: hears why, after every failure, and None once it works again.
        writing: see :func:`may_pass`.
        one_file: the file that is read; where its store answers and it cannot be read for two minutes, it is lost, and
            nobody in this process waits for it again.

    Raises:
        JobError: storage has failed for longer.
        OSError, UserError: what ``action`` raises, where that does not pass, or is of one file.
    """
    first_failure, pause = 0.0, FIRST_PAUSE
    while True:
        try:
            value = action()
        except (OSError, UserError) as error:
            if not seconds or one_file in LOST or not may_pass(error, writing=writing):
                raise
            cause, now = storage.cause_of(error), time.monotonic()
            first_failure = first_failure or now
            left = first_failure + seconds - now
            waiting(cause)
            if one_file and (left <= 0 or now - first_failure >= ONE_FILE_SECONDS) and _store_answers(one_file):
                waiting(None)
                LOST.add(one_file)
                raise
            if left <= 0:
                raise JobError(
                    f"storage has failed for {now - first_failure:,.0f} s (job.storage_wait_seconds): {cause}; "
                    "what is finished stays: start the run again once it works"
                ) from error
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)
            storage.forget_connections()
        else:
            if first_failure:
                waiting(None)
            return value


def _store_answers(uri: str) -> bool:
    """Whether the store of a file tells that another one beside it is not there."""
    try:
        storage.exists(f"{uri.rpartition('/')[0]}/{storage.TEMPORARY_PREFIX}is-there-no-such-file")
    except (OSError, UserError):
        return False
    return True


def try_for(seconds: float, action: Callable[[], object]) -> None:
    """Do what would be good to have done, for no longer than that; whether it failed, nobody hears.

    For the way out of a run that ends because storage does not answer: an attempt at S3 can take five minutes.
    """

    def attempt() -> None:
        with suppress(OSError, UserError):
            action()

    thread = threading.Thread(target=attempt, name="last words", daemon=True)
    thread.start()
    thread.join(seconds)
