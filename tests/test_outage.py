"""Storage that fails for a while: what may pass, how long it is waited for, and what the job makes of it."""

import errno
import os

import pyarrow as pa
import pytest
from s3_server import BUCKET, Proxy, point_at, s3_server

from ner_batch.errors import JobError, UserError
from ner_batch.io import outage, s3, storage

S3 = f"s3://{BUCKET}"


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(s3, "ATTEMPTS", 2)


class Failing:
    """An action that raises so many times before it gives its value."""

    def __init__(self, error, times):
        self.error, self.times = error, times

    def __call__(self):
        self.times -= 1
        if self.times >= 0:
            raise self.error
        return "value"


@pytest.mark.parametrize(
    ("error", "reading", "writing"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True, True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True, True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True, True),
        (TimeoutError("slow"), True, True),
        (OSError(errno.EBUSY, "SlowDown"), True, True),
        (PermissionError(errno.EACCES, "Permission denied"), False, True),
        (OSError(errno.EROFS, "Read-only file system"), False, True),
        (OSError(errno.EIO, "Input/output error"), False, True),
        (OSError(errno.ENAMETOOLONG, "File name too long"), False, False),
        (FileNotFoundError(errno.ENOENT, "gone"), False, False),
        (OSError("Couldn't deserialize thrift"), False, False),
        (UserError("the file has changed since it was listed"), False, False),
    ],
)
def test_what_may_pass(error, reading, writing):
    """A place that is full or out of reach; where one file is refused, others are: of writing only."""
    assert (outage.may_pass(error), outage.may_pass(error, writing=True)) == (reading, writing)
    outer = UserError("of one line")
    outer.__cause__ = error
    assert (outage.may_pass(outer), outage.may_pass(outer, writing=True)) == (reading, writing)


def test_a_failure_is_waited_out():
    """Who waits hears why, and that it works again; nobody hears of what works at once."""
    heard = []
    full = OSError(errno.ENOSPC, "No space left on device")
    assert outage.wait_out(Failing(full, 2), 60, heard.append) == "value"
    assert heard == [f"[Errno {errno.ENOSPC}] No space left on device"] * 2 + [None]
    heard.clear()
    assert outage.wait_out(Failing(full, 0), 60, heard.append) == "value"
    assert heard == []


def test_what_does_not_pass_is_raised():
    """At once: another kind of failure, and any where nobody wants to wait. After the time is over: a JobError."""
    full, gone = OSError(errno.ENOSPC, "No space left on device"), FileNotFoundError("x")
    for error, seconds in ((gone, 60), (full, 0)):
        heard = []
        with pytest.raises(type(error)) as raised:
            outage.wait_out(Failing(error, 1), seconds, heard.append)
        assert raised.value is error
        assert heard == []
    with pytest.raises(JobError, match=r"storage has failed for 0 s \(job.storage_wait_seconds\): .*No space left"):
        outage.wait_out(Failing(full, 10_000), 0.1, lambda _: None)


@pytest.mark.parametrize("how", ["500", "dropped"])
def test_a_store_that_cannot_be_reached(monkeypatch, how):
    """A server in trouble, or none at all: reads, writes and the first look at a bucket may all succeed later."""
    with s3_server() as (endpoint, _), Proxy(endpoint) as proxy:
        point_at(monkeypatch, proxy.url)
        storage.write_bytes(f"{S3}/a", b"a")
        table = pa.table({"n": [1]})
        for action, writing, first_look in (
            (lambda: storage.read_bytes(f"{S3}/a"), False, False),
            (lambda: storage.read_table(f"{S3}/a"), False, True),
            (lambda: storage.write_table(f"{S3}/b", table, {}), True, False),
        ):
            if first_look:
                storage.forget_connections()
            proxy.fail("/texts", how=how)
            with pytest.raises((OSError, UserError)) as raised:
                action()
            assert outage.may_pass(raised.value, writing=writing), repr(raised.value)
            proxy.mend()
        assert outage.wait_out(lambda: storage.read_bytes(f"{S3}/a"), 60, lambda _: None) == b"a"
        with pytest.raises(UserError) as raised:
            storage.read_table(f"{S3}/none")
        assert not outage.may_pass(raised.value)
    with pytest.raises((OSError, UserError)) as raised:
        storage.read_bytes(f"{S3}/a")
    assert outage.may_pass(raised.value)


def test_renewed_credentials_are_taken(monkeypatch, tmp_path):
    """Keys in a file that somebody writes anew while the process runs: the next attempt signs with them."""
    file = tmp_path / "credentials"
    with s3_server() as (endpoint, _), Proxy(endpoint) as proxy:
        point_at(monkeypatch, proxy.url)
        for name in [name for name in os.environ if name.startswith("AWS_") and name.endswith(("KEY", "KEY_ID"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        for key in ("FIRST", "SECOND"):
            file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")
            proxy.fail("/texts/x", 2, "500")
            outage.wait_out(lambda: storage.write_bytes(f"{S3}/x", b"x"), 60, lambda _: None, writing=True)
            assert f"Credential={key}/" in proxy.signatures[-1]
