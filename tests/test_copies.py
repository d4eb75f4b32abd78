"""Copies of folders in S3: one per content and machine, however many processes want it and however they end."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from s3_server import BUCKET, Proxy, point_at, s3_server

from ner_batch.errors import UserError
from ner_batch.io import copies

SCRIPT = """
import os, sys
from ner_batch.io.copies import fetched
print(fetched(sys.argv[1]), flush=True)
os._exit(7)
"""


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """A client of a server that holds an adapter of two files; temporary files go to a folder of their own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with s3_server() as (endpoint, client):
        point_at(monkeypatch, endpoint)
        for name, body in (("a.bin", b"x" * 3_000_000), ("deep/b.json", b"{}")):
            client.put_object(Bucket=BUCKET, Key=f"adapters/news/{name}", Body=body)
        yield client


URI = f"s3://{BUCKET}/adapters/news"


def test_a_local_disk_that_takes_no_more(bucket, tmp_path):
    """It is named, not the bucket. A limit on the size of files stands for the full disk: the system refuses alike."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(UserError) as error:
            copies.fetched(URI)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(error.value).startswith(f"{tmp_path / 'tmp'}/ner_batch-copies-")
    assert contents(copies.fetched(URI))["a.bin"] == b"x" * 3_000_000


def started(uri=URI):
    """A process that fetches the folder and ends without cleaning up."""
    return subprocess.Popen([sys.executable, "-c", SCRIPT, uri], stdout=subprocess.PIPE, text=True)


def made(tmp_path):
    """Names of the copies and of what lies beside them."""
    return sorted(path.name for home in (tmp_path / "tmp").iterdir() for path in home.iterdir())


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_processes_that_leave_share_one_copy(bucket, tmp_path):
    """Four at once and one later, each ended by os._exit: one copy, whole, nothing else; this process takes it too."""
    running = [started() for _ in range(4)]
    told = {process.communicate(timeout=120)[0].strip() for process in running}
    assert [process.returncode for process in running] == [7] * 4
    told |= {started().communicate(timeout=120)[0].strip(), copies.fetched(URI), copies.fetched(f"{URI}/")}
    assert len(told) == 1
    (folder,) = told
    assert Path(folder).name == "news"
    assert contents(folder) == {"a.bin": b"x" * 3_000_000, "deep/b.json": b"{}"}
    assert len(made(tmp_path)) == 1


def test_a_process_killed_while_it_copies_leaves_no_half_copy(bucket, tmp_path, monkeypatch):
    """kill -9 with one of two files copied, beside two processes that wait for the same file: nobody sees half of it."""
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    with Proxy(endpoint) as proxy:
        point_at(monkeypatch, proxy.url)
        proxy.fail("/b.json", how="held")
        victims = [started() for _ in range(3)]
        assert proxy.holding.wait(60)
        for victim in victims:
            victim.kill()
            victim.communicate()
    point_at(monkeypatch, endpoint)
    folder = copies.fetched(URI)
    assert contents(folder) == {"a.bin": b"x" * 3_000_000, "deep/b.json": b"{}"}
    assert started().communicate(timeout=120)[0].strip() == folder


def test_another_content_is_another_copy(bucket, tmp_path):
    """What is in use stays as it is."""
    old = copies.fetched(URI)
    bucket.put_object(Bucket=BUCKET, Key="adapters/news/a.bin", Body=b"new")
    assert contents(copies.fetched(URI))["a.bin"] == b"new"
    assert len(contents(old)["a.bin"]) == 3_000_000
    assert len(made(tmp_path)) == 2


def test_a_copy_with_files_removed_is_made_whole(bucket, tmp_path):
    """The system tidies up temporary files one by one; what a killed process has left of one has not its size."""
    place = Path(copies.fetched(URI))
    whole = contents(place)
    (place / "a.bin").write_bytes(b"x" * 1000)
    (place / "deep" / "b.json").unlink()
    assert copies.fetched(URI) == str(place)
    assert contents(place) == whole
    assert made(tmp_path) == [place.parent.name]


def test_a_folder_that_others_may_write_to_is_refused(bucket, tmp_path):
    """Somebody else's weights would be served."""
    home = Path(copies.fetched(URI)).parents[1]
    home.chmod(0o777)
    with pytest.raises(UserError, match=f"^{home}: others may write .*TMPDIR"):
        copies.fetched(URI)
