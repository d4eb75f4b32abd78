"""Storage that fails for a while: what may pass, how long it is waited for, and what the job makes of it."""

import errno
import os
import socket
import threading
import time

import aiohttp
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.memory import MemoryFileSystem
from multidict import CIMultiDict, CIMultiDictProxy
from s3_server import BUCKET, CREDENTIALS, Proxy, point_at, s3_server
from s3fs.errors import translate_boto_error
from yarl import URL

from ner_batch.errors import JobError, UserError
from ner_batch.io import outage, s3, storage, tables
from ner_batch.io.listing import list_shards, read_unit
from ner_batch.io.shards import plan_units

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


def of_s3(code, status):
    """What s3fs makes of a refusal by S3."""
    response = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(ClientError(response, "GetObject"))


REQUEST = aiohttp.RequestInfo(URL("http://h"), "GET", CIMultiDictProxy(CIMultiDict()), URL("http://h"))


@pytest.mark.parametrize(
    ("error", "reading", "writing"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True, True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True, True),
        (OSError(errno.ESTALE, "Stale file handle"), True, True),
        (OSError(errno.EMFILE, "Too many open files"), True, True),
        (OSError(errno.EKEYEXPIRED, "Key has expired"), True, True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True, True),
        (TimeoutError("slow"), True, True),
        (FSTimeoutError(), True, True),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), True, True),
        (aiohttp.ServerDisconnectedError(), True, True),
        (aiohttp.http_exceptions.ContentLengthError("Not enough data"), True, True),
        (aiohttp.ClientResponseError(REQUEST, (), status=503), True, True),
        (aiohttp.ClientResponseError(REQUEST, (), status=404), False, False),
        (aiohttp.ClientResponseError(REQUEST, (), status=403), False, True),
        (of_s3("SlowDown", 503), True, True),
        (of_s3("InternalError", 500), True, True),
        (of_s3("ExpiredToken", 400), True, True),
        (of_s3("InvalidAccessKeyId", 403), True, True),
        (of_s3("SignatureDoesNotMatch", 403), True, True),
        (of_s3("RequestTimeTooSkewed", 403), True, True),
        (of_s3("RequestTimeout", 400), True, True),
        (of_s3("AccessDenied", 403), False, True),
        (of_s3("NoSuchBucket", 404), False, True),
        (of_s3("NoSuchKey", 404), False, False),
        (of_s3("InvalidRange", 416), False, False),
        (of_s3("EntityTooLarge", 400), False, False),
        (PermissionError(errno.EACCES, "Permission denied"), False, True),
        (OSError(errno.EROFS, "Read-only file system"), False, True),
        (OSError(errno.EIO, "Input/output error"), False, True),
        (OSError(errno.ENAMETOOLONG, "File name too long"), False, False),
        (FileNotFoundError("s3://texts/gone"), False, False),
        (IsADirectoryError(errno.EISDIR, "a folder"), False, False),
        (UserError("the file has changed since it was listed"), False, False),
    ],
    ids=repr,
)
def test_what_may_pass(monkeypatch, error, reading, writing):
    """All but what is of one file; what is refused, where others are refused too, that is, of writing only.

    As it comes from storage, within a line for a person, and as a file system of another package raises it.
    """
    outer = UserError("of one line")
    if isinstance(error, OSError | UserError):
        outer.__cause__ = error
    else:
        outer.__cause__ = OSError(str(error))
        outer.__cause__.__cause__ = error
    assert (outage.may_pass(outer), outage.may_pass(outer, writing=True)) == (reading, writing)

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    with pytest.raises((OSError, UserError)) as raised:
        storage.read_bytes("memory://a/b")
    assert outage.may_pass(raised.value) == reading


def test_a_corrupt_file_is_of_one_file(tmp_path):
    """Arrow says OSError of it, as of a store that is out of reach."""
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError) as raised:
        tables.read_table(str(tmp_path / "x.parquet"))
    assert not outage.may_pass(raised.value, writing=True)


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
    heard = []
    with pytest.raises(JobError, match=r"storage has failed for 0 s \(job.storage_wait_seconds\): .*No space left"):
        outage.wait_out(Failing(full, 10_000), 0.1, heard.append)
    assert len(heard) > 2


def test_a_file_that_is_lost_is_no_outage(monkeypatch):
    """Its store answers, so only this one is given up, sooner than the run; where nothing is answered the run ends."""
    monkeypatch.setattr(outage, "ONE_FILE_SECONDS", 0.2)
    with s3_server() as (endpoint, _), Proxy(endpoint) as proxy:
        point_at(monkeypatch, proxy.url)
        storage.write_bytes(f"{S3}/in/x", b"x")
        proxy.fail("/texts/in/x")
        heard = []

        def read(seconds, one_file=f"{S3}/in/x"):
            return outage.wait_out(lambda: storage.read_bytes(f"{S3}/in/x"), seconds, heard.append, one_file=one_file)

        with pytest.raises(OSError, match="Internal Server Error"):
            read(600)
        assert len(heard) >= 2
        assert heard[-1] is None
        with pytest.raises(JobError):
            read(0.1, one_file=None)
        heard.clear()
        with pytest.raises(OSError, match="Internal Server Error"):  # another unit of the same file
            read(600)
        assert heard == []
        outage.LOST.clear()
        proxy.fail("/texts")
        with pytest.raises(JobError):
            read(0.1)


def test_last_words_take_no_longer_than_they_may():
    """Whatever becomes of them: a run that ends because storage does not answer does not wait for it."""
    ended = threading.Event()
    start = time.monotonic()
    outage.try_for(0.2, lambda: ended.wait(60))
    assert time.monotonic() - start < 30
    outage.try_for(60, Failing(OSError("x"), 1))
    outage.try_for(60, ended.set)
    assert ended.is_set()


@pytest.mark.parametrize("how", ["500", "dropped"])
def test_a_store_that_cannot_be_reached(monkeypatch, how):
    """A server in trouble, or none at all: reads, writes and the first look at a bucket may all succeed later."""
    with s3_server() as (endpoint, _), Proxy(endpoint) as proxy:
        point_at(monkeypatch, proxy.url)
        storage.write_bytes(f"{S3}/a", b"a")
        table = pa.table({"n": [1]})
        for action, writing, first_look in (
            (lambda: storage.read_bytes(f"{S3}/a"), False, False),
            (lambda: tables.read_table(f"{S3}/a"), False, True),
            (lambda: tables.write_table(f"{S3}/b", table, {}), True, False),
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
            tables.read_table(f"{S3}/none")
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


def test_credentials_that_are_gone_for_a_moment(monkeypatch, tmp_path):
    """A file that is being written anew is empty, or half there: nobody asks without credentials then, and is refused."""
    file = tmp_path / "credentials"
    whole = "[default]\naws_access_key_id = KEY\naws_secret_access_key = secret\n"
    with s3_server() as (endpoint, _), Proxy(endpoint) as proxy:
        point_at(monkeypatch, proxy.url)
        for name in [name for name in os.environ if name.startswith("AWS_") and name.endswith(("KEY", "KEY_ID"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        file.write_text(whole)
        storage.write_bytes(f"{S3}/x", b"x")
        for part in ("", whole[:20], whole[:40]):
            file.write_text(part)
            storage.forget_connections()
            asked = len(proxy.log)
            with pytest.raises((OSError, UserError)) as raised:
                storage.read_bytes(f"{S3}/x")
            assert outage.may_pass(raised.value), repr(raised.value)
            assert len(proxy.log) == asked
        file.write_text(whole)
        assert storage.read_bytes(f"{S3}/x") == b"x"


def test_a_token_that_has_run_out_is_known_by_every_request(monkeypatch, tmp_path):
    """S3 says so with status 400, and of a HEAD says no more: a unit is read and written without one."""
    table = pa.table({"text": ["Bob"] * 3})
    with s3_server() as (endpoint, _), Proxy(endpoint) as proxy:
        point_at(monkeypatch, proxy.url)
        tables.write_table(f"{S3}/in/x.parquet", table, {})
        (unit,) = plan_units(list_shards(f"{S3}/in", "text").shards, 10, 10**6)
        proxy.expired = CREDENTIALS["AWS_ACCESS_KEY_ID"]
        for forget in (False, True):
            if forget:
                storage.forget_connections()
            for action, writing in (
                (lambda: read_unit(unit), False),
                (lambda: tables.write_table(f"{S3}/out", table, {}), True),
            ):
                with pytest.raises((OSError, UserError)) as raised:
                    action()
                assert outage.may_pass(raised.value, writing=writing), repr(raised.value)
