"""Storage: what is visible is whole, on a disk and in S3, whatever kills the writer; wrong places are said at once."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from s3_server import BUCKET, Proxy, point_at, s3_server, written_and_read

from ner_batch.errors import UserError
from ner_batch.io import storage, tables
from ner_batch.io.storage import arrow_filesystem

S3 = f"s3://{BUCKET}"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Any]]:
    with s3_server() as running:
        yield running


@pytest.fixture
def client(server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The server's own view of the bucket, emptied, with the environment pointing at it."""
    endpoint, client = server
    point_at(monkeypatch, endpoint)
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    return client


def keys(client: Any) -> list[str]:
    return [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


@pytest.fixture(params=["local", "file", "s3", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of each kind; every test that takes it must hold on all of them."""
    if request.param == "memory":
        return f"memory://{tmp_path}/a folder/out"
    if request.param == "s3":
        request.getfixturevalue("client")
        return f"{S3}/a folder/out"
    return (tmp_path / "a folder").as_uri() if request.param == "file" else str(tmp_path / "a folder")


def test_what_is_written_is_read_back(root: str) -> None:
    """Bytes, JSON and tables come back as they went in, replace what was there, and are listed by name and size."""
    uri = storage.join(root, "deep/x.bin")
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"old and longer")
    storage.write_bytes(uri, b"new")
    storage.write_json(storage.join(root, "m.json"), {"名": [1, None]})
    assert storage.exists(uri)
    assert storage.read_bytes(uri) == b"new"
    assert storage.read_json(storage.join(root, "m.json")) == {"名": [1, None]}
    assert next((file.name, file.size) for file in storage.list_files(root)) == ("deep/x.bin", 3)
    assert [storage.read_bytes(file.uri)[:1] for file in storage.list_files(root)] == [b"n", b"{"]
    storage.remove(uri)
    storage.remove(uri)
    assert [file.name for file in storage.list_files(root)] == ["m.json"]


def test_tables_keep_their_schema_and_gain_metadata(root: str) -> None:
    """Field and schema metadata, dictionaries and large strings survive; the added keys stand beside the old."""
    schema = pa.schema(
        [
            pa.field("t", pa.large_string(), metadata={"k": "v"}),
            pa.field("d", pa.dictionary(pa.int32(), pa.string())),
            pa.field("n", pa.list_(pa.struct([("a", pa.int8())]))),
        ],
        metadata={"old": "1"},
    )
    table = pa.Table.from_pylist([{"t": "x", "d": "y", "n": [{"a": 1}]}], schema=schema)
    uri = storage.join(root, "t.parquet")
    tables.write_table(uri, table, {"run": "né"})
    back = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
    assert back.equals(table)
    assert back.schema.metadata == {b"old": b"1", b"run": "né".encode()}
    assert back.schema.field("t").metadata[b"k"] == b"v"


def test_a_missing_folder_is_empty_and_a_missing_file_is_an_error(root: str) -> None:
    """Listing a folder that is not there gives nothing; reading a file that is not there names it."""
    assert storage.list_files(storage.join(root, "nowhere")) == []
    with pytest.raises(ValueError, match=r"nowhere\.json"):
        storage.read_json(storage.join(root, "nowhere.json"))
    storage.write_bytes(storage.join(root, "bad.json"), b"{")
    with pytest.raises(ValueError, match=r"bad\.json: not JSON"):
        storage.read_json(storage.join(root, "bad.json"))


def test_only_our_temporaries_are_removed(root: str) -> None:
    """Half-written files of killed runs go; hidden files of others, and finished files, stay."""
    for name in (f"{storage.TEMPORARY_PREFIX}1", f"deep/{storage.TEMPORARY_PREFIX}2", ".keep", "_tmp", "x.parquet"):
        storage.write_bytes(storage.join(root, name), b"1")
    assert storage.remove_stale_temporaries(root) == 2
    assert [file.name for file in storage.list_files(root)] == [".keep", "_tmp", "x.parquet"]


def test_check_writable_leaves_nothing(root: str) -> None:
    """The probe of an output folder is gone afterwards."""
    storage.check_writable(root)
    assert storage.list_files(root) == []


class Refusal(Exception):
    """As packages of file systems define their own: no OSError."""


class Grumpy(MemoryFileSystem):
    """A file system of somebody else's, which refuses."""

    protocol = "grumpy"

    def info(self, *_: Any, **__: Any) -> Any:
        raise Refusal("not\ntoday")

    def pipe_file(self, *_: Any, **__: Any) -> None:
        raise Refusal("not\ntoday")


def test_errors_of_other_packages_are_told_like_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line to a person before the work, an OSError in it; a bug (here: in the file system) shows itself."""
    fsspec.register_implementation("grumpy", Grumpy, clobber=True)
    with pytest.raises(UserError, match=r"^grumpy://a/b: Refusal: not today; check the path") as error:
        storage.exists("grumpy://a/b")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"^grumpy://a: Refusal: not today"):
        storage.check_writable("grumpy://a")
    with pytest.raises(OSError, match="Refusal"):
        storage.write_bytes("grumpy://a/b", b"")
    monkeypatch.delattr(Grumpy, "info")
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *_, **__: {}["type"])
    with pytest.raises(KeyError):
        storage.exists("grumpy://a/b")


def test_a_root_is_a_folder() -> None:
    """Also where a scheme's slashes are all that is left of a URI."""
    assert storage.join("memory://", "x") == "memory://x"
    assert storage.join("s3://bucket/", "x") == "s3://bucket/x"
    assert storage.join("/", "x") == "/x"
    storage.write_bytes(storage.join("memory://", "at the root"), b"1")
    assert "at the root" in [file.name for file in storage.list_files("memory://")]


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URI handed to another process means the same file there."""
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a/../b") == str(tmp_path / "b")
    assert storage.absolute(f"file://{tmp_path}/x%20y") == f"{tmp_path}/x y"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nowhere://bucket/x", r"local path, file:///path or s3://bucket/key, or a scheme of fsspec: gs"),
        ("s3://", "no bucket is named"),
        ("gs://bucket/x", "pip install gcsfs"),
        ("abfs://container/x", "pip install adlfs"),
        ("sftp://host/x", "pip install paramiko"),
    ],
)
def test_an_unknown_scheme_is_refused(uri: str, message: str) -> None:
    """One line that says what a place may look like, or which package the scheme needs."""
    with pytest.raises(UserError, match=message) as error:
        storage.list_files(uri)
    assert str(error.value).startswith(uri)
    assert "\n" not in str(error.value)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A file where a folder should be: one line naming the folder."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"/file/out: .*check the path") as error:
        storage.check_writable(str(tmp_path / "file" / "out"))
    assert "\n" not in str(error.value)


WRITER = """
import sys, pyarrow as pa, pyarrow.parquet as pq
from ner_batch.io import storage
from ner_batch.io.storage import arrow_filesystem
whole = []
for rows in (1, 200_000, 500_000):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": range(rows)}).replace_schema_metadata({"rows": str(rows)}), sink)
    whole.append(sink.getvalue())
while True:
    for n in range(15):
        storage.write_bytes(storage.join(sys.argv[1], f"{n % 5}.parquet"), whole[n % 3])
        print(n, flush=True)
"""


def killed_after(seconds: float, script: str, *arguments: str) -> None:
    """Run a Python script, wait for its first line, and SIGKILL it ``seconds`` later."""
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        time.sleep(seconds)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout and process.stdout.close()


def test_kill_9_never_leaves_a_torn_file(tmp_path: Path) -> None:
    """A writer killed 20 times at odd moments: every visible file is whole; what is left over is hidden and removable."""
    left_over = 0
    for round_ in range(20):
        killed_after(0.002 * round_, WRITER, str(tmp_path))
        files = [file for file in storage.list_files(str(tmp_path)) if not file.name.startswith(".")]
        assert files
        for file in files:
            table = pq.read_table(file.uri)
            assert table["n"].to_numpy().tolist() == list(range(int(table.schema.metadata[b"rows"])))
        left_over += storage.remove_stale_temporaries(str(tmp_path))
        assert all(file.name.endswith(".parquet") for file in storage.list_files(str(tmp_path)))
    assert left_over > 0, "no kill hit a write: the test shows nothing"


def test_a_full_disk_leaves_no_temporary(tmp_path: Path) -> None:
    """A write that fails half way (here: a file size limit) raises OSError and cleans up; the old file stays."""
    script = (
        "import resource, signal, sys\nfrom ner_batch.io import storage\n"
        "storage.write_bytes(sys.argv[1], b'old')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: storage.write_bytes(sys.argv[1], b'x' * 5000)\nexcept OSError: sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "f")], check=False).returncode == 7
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"old")]


def test_s3_small_files_are_one_request(client: Any, server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file is one PUT; a large one becomes visible with the last request only."""
    with Proxy(server[0]) as proxy:
        point_at(monkeypatch, proxy.url)
        storage.exists(f"{S3}/warm")
        proxy.log.clear()
        storage.write_bytes(f"{S3}/small", b"1" * 1000)
        assert [method for method, _ in proxy.log] == ["PUT"]
        proxy.log.clear()
        storage.write_bytes(f"{S3}/large", b"1" * 21_000_000)
        assert proxy.log[0][0] == proxy.log[-1][0] == "POST"
        assert client.head_object(Bucket=BUCKET, Key="large")["ContentLength"] == 21_000_000


@pytest.mark.parametrize("how", ["500", "dropped"])
def test_s3_a_failed_part_leaves_nothing_visible(
    client: Any, server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    """The server refuses one part of a multipart upload for good: OSError after five attempts, the old object stays,
    and no torn one comes, also after the stream object is gone (its destructor may not complete the upload)."""
    table = pa.table({"n": pa.array(np.random.default_rng(0).integers(0, 2**62, 3_500_000))})
    with Proxy(server[0]) as proxy:
        point_at(monkeypatch, proxy.url)
        storage.write_bytes(f"{S3}/torn", b"old")
        proxy.fail("partNumber=2", how=how)
        with pytest.raises(OSError):
            tables.write_table(f"{S3}/torn", table, {})
        gc.collect()
        paths = [(method, path) for method, path in proxy.log if "uploadId=" in path]
        attempts = sum("partNumber=2" in path for _, path in paths)
        assert 5 <= attempts <= 10, "aiohttp sends again once by itself where a kept connection is dropped"
        assert any("partNumber=1" in path for _, path in paths)
        assert not any(method == "POST" for method, _ in paths), "completed without a part"
        assert storage.read_bytes(f"{S3}/torn") == b"old"
        assert client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []


S3_WRITER = """
import sys
from ner_batch.io import storage
from ner_batch.io.storage import arrow_filesystem
storage.write_bytes(sys.argv[1] + "/whole", b"1" * 100)
print("started", flush=True)
while True:
    storage.write_bytes(sys.argv[1] + "/large", b"1" * 40_000_000)
"""


def settled() -> dict[str, int]:
    """What the bucket holds once the server has worked off what the dead writer had already sent."""
    before: dict[str, int] | None = None
    while (now := {file.name: file.size for file in storage.list_files(S3)}) != before:
        before = now
        time.sleep(1.0)
    return now


@pytest.mark.parametrize("seconds", [0.02, 0.15, 0.4])
def test_s3_kill_9_during_an_upload_leaves_nothing_torn(client: Any, seconds: float) -> None:
    """A killed multipart upload is invisible: there is the whole object or none, and the listing agrees."""
    killed_after(seconds, S3_WRITER, S3)
    found = settled()
    assert found in ({"whole": 100}, {"whole": 100, "large": 40_000_000})
    assert sorted(found) == sorted(keys(client))


def test_s3_a_writer_killed_between_parts_leaves_the_old_object(
    client: Any, server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 while the server still waits for one part of the upload: the old object stays, whole."""
    with Proxy(server[0]) as proxy:
        point_at(monkeypatch, proxy.url)
        proxy.fail("partNumber=3", how="held")
        process = subprocess.Popen([sys.executable, "-c", S3_WRITER, S3], stdout=subprocess.DEVNULL)
        assert proxy.holding.wait(60)
        process.kill()
        process.wait()
    point_at(monkeypatch, server[0])
    assert keys(client) == ["whole"]
    assert {file.name: file.size for file in storage.list_files(S3)} == {"whole": 100}


@pytest.mark.parametrize("how", ["500", "dropped", "cut"])
def test_s3_five_attempts(client: Any, server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, how: Any) -> None:
    """A server that fails four times and answers then: written, listed, read in whole and in ranges, as if nothing was."""
    data = bytes(range(256)) * 1000
    with Proxy(server[0]) as proxy:
        point_at(monkeypatch, proxy.url)
        storage.exists(f"{S3}/warm")
        if how != "cut":  # half an answer to a PUT is a whole one
            proxy.fail("/texts/x", 4, how)
        storage.write_bytes(f"{S3}/x", data)
        proxy.fail("/texts/x", 4, how)
        assert storage.read_ranges(f"{S3}/x", [(256, 1000)]) == [data[256:1000]]
        assert storage.read_bytes(f"{S3}/x") == data
        assert [file.name for file in storage.list_files(S3)] == ["x"]


ANOTHER = """
import sys
from ner_batch.io import storage
from ner_batch.io.storage import arrow_filesystem
for name in sys.argv[2:]:
    storage.write_bytes(storage.join(sys.argv[1], name), b"theirs")
"""


def test_what_another_process_writes_is_seen(client: Any) -> None:
    """A listing and a question are of this moment, however often they were asked before."""
    storage.write_bytes(f"{S3}/in/a", b"ours")
    assert [file.name for file in storage.list_files(f"{S3}/in")] == ["a"]
    assert not storage.exists(f"{S3}/in/b")
    assert storage.file_type(f"{S3}/in/deep") is None
    subprocess.run([sys.executable, "-c", ANOTHER, f"{S3}/in", "a", "b", "deep/c"], check=True)
    assert [(file.name, file.size) for file in storage.list_files(f"{S3}/in")] == [("a", 6), ("b", 6), ("deep/c", 6)]
    assert storage.exists(f"{S3}/in/b")
    assert storage.file_type(f"{S3}/in/deep") == "directory"
    assert storage.read_bytes(f"{S3}/in/a") == b"theirs"


@pytest.mark.parametrize("start", ["threads", "spawn", "fork"])
def test_s3_from_threads_and_processes(client: Any, start: str) -> None:
    """Threads share the file system; a spawned process makes its own, and so does a forked one, whose parent goes on."""
    storage.write_bytes(f"{S3}/many/shared", b"shared")
    pool: Any
    if start == "threads":
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(written_and_read, range(40)))
    else:
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(start)) as pool:
            running = pool.map(written_and_read, range(8))
            assert all(written_and_read(number) for number in range(100, 110))
            assert all(running)
    assert written_and_read(200)


def test_s3_a_profile_of_the_config_file(
    client: Any, server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """AWS_PROFILE: keys, region and endpoint from the config file; AWS_REGION goes before its region."""
    with Proxy(server[0]) as proxy:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
            monkeypatch.delenv(name)
        (tmp_path / "config").write_text(
            "[profile work]\naws_access_key_id = profiled\naws_secret_access_key = secret\n"
            f"region = eu-north-1\nendpoint_url = {proxy.url}\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "work")
        storage.write_bytes(f"{S3}/x", b"1")
        assert all("Credential=profiled/" in signature for signature in proxy.signatures if signature)
        assert all("/eu-north-1/s3/" in signature for signature in proxy.signatures if signature)
        assert len(proxy.signatures) == 2
        monkeypatch.setenv("AWS_REGION", "eu-south-1")
        storage.write_bytes(f"{S3}/x", b"1")
        assert "/eu-south-1/s3/" in (proxy.signatures[-1] or "")
    monkeypatch.setenv("AWS_PROFILE", "play")
    with pytest.raises(UserError, match=r"^s3://texts: .*profile \(play\) could not be found; check the bucket"):
        storage.list_files(S3)


def test_s3_endpoint_url_s3_wins(client: Any, server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's own variable goes before the general one, as in Amazon's tools."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"{server[0]}/")
    storage.write_bytes(f"{S3}/x", b"1")
    assert "x" in keys(client)


def test_s3_without_credentials_is_anonymous(
    client: Any, server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A public object is read with no credentials at all; a private one is an access error."""
    client.put_object(Bucket=BUCKET, Key="public", Body=b"1", ACL="public-read")
    client.put_object(Bucket=BUCKET, Key="private", Body=b"1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server[0].replace("127.0.0.1", "localhost"))  # a client of its own
    assert storage.read_bytes(f"{S3}/public") == b"1"
    with pytest.raises(PermissionError):
        storage.read_bytes(f"{S3}/private")


def test_s3_wrong_credentials_are_one_line(
    client: Any, server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that knows the keys says so when the bucket is asked for, before any work."""
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "stranger")
    with pytest.raises(
        UserError, match=r"^s3://texts: The AWS Access Key Id .* does not exist .*; check the bucket, "
    ) as error:
        storage.list_files(f"{S3}/x")
    assert "\n" not in str(error.value)
    assert "equest" not in str(error.value)


def test_s3_a_dropped_stream_of_arrow_leaves_nothing(client: Any) -> None:
    """What Ray Train writes through: a file is there once it is closed, whole, and a stream that is dropped leaves none."""
    filesystem, path = arrow_filesystem(f"{S3}/arrow")
    filesystem = pickle.loads(pickle.dumps(filesystem))
    stream = filesystem.open_output_stream(f"{path}/dropped")
    stream.write(b"1" * 20_000_000)
    del stream
    gc.collect()
    with filesystem.open_output_stream(f"{path}/closed") as stream:
        stream.write(b"1" * 20_000_000)
    assert [(file.name, file.size) for file in storage.list_files(f"{S3}/arrow")] == [("closed", 20_000_000)]
    with filesystem.open_input_file(f"{path}/closed") as source:
        assert source.read() == b"1" * 20_000_000


def test_s3_a_missing_bucket_is_one_line(client: Any) -> None:
    """Known before any work, with the remedy."""
    with pytest.raises(ValueError, match=r"^s3://nobucket: no such bucket; check the bucket, .*AWS_REGION.*$"):
        storage.list_files("s3://nobucket/x")


def test_s3_a_bucket_that_can_only_be_read_is_one_line(
    client: Any, server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known before any work, and it can be read all the same."""
    client.put_object(Bucket=BUCKET, Key="only/read", Body=b"1")
    with Proxy(server[0]) as proxy:
        proxy.fail("/only/", how="read only")
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert storage.read_bytes(f"{S3}/only/read") == b"1"
        with pytest.raises(UserError, match=r"^s3://texts/only: .*(Access Denied|Forbidden)") as error:
            storage.check_writable(f"{S3}/only")
    assert "\n" not in str(error.value)


def silent_endpoint() -> tuple[str, socket.socket]:
    """A server that accepts connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    return f"http://127.0.0.1:{listener.getsockname()[1]}", listener


def full_endpoint() -> tuple[str, list[socket.socket]]:
    """A server whose queue of connections is full, so that connecting hangs as behind a firewall that drops packets."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(3)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(listener.getsockname())
    return f"http://127.0.0.1:{listener.getsockname()[1]}", [listener, *waiting]


def refusing_endpoint() -> tuple[str, None]:
    return "http://127.0.0.1:1", None


@pytest.mark.parametrize("endpoint", [refusing_endpoint, full_endpoint, silent_endpoint])
def test_s3_a_wrong_endpoint_fails_fast(
    endpoint: Callable[[], tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody there, packets dropped, or no answer: one line with the remedy, in less than 15 seconds."""
    url, keep = endpoint()
    point_at(monkeypatch, url)
    # A bucket of its own: the system may give the port of a server of an earlier test, whose buckets this process knows.
    bucket = f"s3://texts-{uuid.uuid4().hex}"
    started = time.monotonic()
    with pytest.raises(ValueError, match=rf"^{bucket}: .*AWS_ENDPOINT_URL") as error:
        storage.list_files(f"{bucket}/x")
    assert time.monotonic() - started < 15
    assert "\n" not in str(error.value)
    del keep


def test_links_are_followed(tmp_path: Path) -> None:
    """A link to a file or a folder is what it points to; one that points nowhere is a file of 0 bytes."""
    storage.write_bytes(str(tmp_path / "there" / "x"), b"12")
    (tmp_path / "in").mkdir()
    for name, target in (
        ("file", tmp_path / "there" / "x"),
        ("folder", tmp_path / "there"),
        ("nowhere", tmp_path / "no"),
    ):
        (tmp_path / "in" / name).symlink_to(target)
    listed = [(file.name, file.size) for file in storage.list_files(str(tmp_path / "in"))]
    assert listed == [("file", 2), ("folder/x", 2), ("nowhere", 0)]


def test_permission_denied_is_one_line(tmp_path: Path) -> None:
    """A folder that may not be read (skipped for root, who may)."""
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(ValueError, match=r"closed: .*permissions"):
        storage.list_files(str(tmp_path / "closed"))


def test_a_folder_that_cannot_be_synced_takes_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older CIFS and VirtualBox refuse it for folders; another error is one."""
    sync = os.fsync

    def on_a_share(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", on_a_share)
    for code in (errno.EINVAL, errno.ENOTSUP):
        storage.write_bytes(str(tmp_path / f"{code}"), b"x")
        assert storage.read_bytes(str(tmp_path / f"{code}")) == b"x"
    code = errno.EIO
    with pytest.raises(OSError, match="put/output"):
        storage.write_bytes(str(tmp_path / "x"), b"x")


def test_json_may_name_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    """Names on a disk are bytes."""
    value = {"name": os.fsdecode(b"M\xfcller.parquet"), "other": "Ü"}
    storage.write_json(str(tmp_path / "x.json"), value)
    assert storage.read_json(str(tmp_path / "x.json")) == value
