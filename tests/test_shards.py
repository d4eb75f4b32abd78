"""Shards: every readable file is found and cut into units; units give exactly the stored rows; bad files are named."""

from __future__ import annotations

import itertools
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import BUCKET, Proxy, point_at, s3_server

from ner_batch.errors import UserError
from ner_batch.io import storage, tables
from ner_batch.io.listing import covers, list_shards, read_unit
from ner_batch.io.shards import Shard, Unit, plan_units, texts_of

SCHEMA = pa.schema(
    [
        pa.field("text", pa.large_string(), metadata={"lang": "en"}),
        pa.field("n", pa.int64()),
        pa.field("kind", pa.dictionary(pa.int8(), pa.string())),
        pa.field("nested", pa.list_(pa.struct([("a", pa.string()), ("b", pa.map_(pa.string(), pa.float32()))]))),
    ],
    metadata={"owner": "me"},
)


def rows_table(first: int, rows: int) -> pa.Table:
    """``rows`` rows of every awkward type, numbered from ``first``."""
    numbers = range(first, first + rows)
    content = {
        "text": [None if n % 11 == 3 else f"text {n}" for n in numbers],
        "n": list(numbers),
        "kind": [f"k{n % 3}" for n in numbers],
        "nested": [[{"a": str(n), "b": [("x", 0.5)]}] * (n % 3) for n in numbers],
    }
    return pa.table(content, schema=SCHEMA)


def write(path: Path, table: pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def only(path: Path) -> Shard:
    """The one shard of a file."""
    (shard,) = list_shards(str(path), "text").shards
    return shard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Uneven shards in nested folders, among files that are not input."""
    root = tmp_path / "in"
    write(root / "b.parquet", rows_table(0, 0))
    write(root / "a" / "x.parquet", rows_table(0, 1))
    write(root / "c" / "x.parq", rows_table(1, 5000), row_group_size=700)
    write(root / "z z%20#?.pq", rows_table(5001, 10))
    write(root / "_hidden.parquet", rows_table(0, 3))
    write(root / ".tmp" / "x.parquet", rows_table(0, 3))
    (root / "readme.txt").write_text("not input")
    return root


def test_a_folder_is_listed_by_name(folder: Path) -> None:
    """All Parquet files below, sorted, hidden ones and others left out, with their rows and the columns they have."""
    listing = list_shards(str(folder), "text")
    assert [(shard.name, shard.rows) for shard in listing.shards] == [
        ("a/x.parquet", 1),
        ("b.parquet", 0),
        ("c/x.parq", 5000),
        ("z z%20#?.pq", 10),
    ]
    assert listing.corrupt == ()
    assert all(shard.columns == ("text", "n", "kind", "nested") for shard in listing.shards)
    assert all(shard.bytes == Path(shard.uri).stat().st_size for shard in listing.shards)


def test_a_relative_path_and_a_file_url_mean_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards name absolute places, so that a worker with another working directory reads them."""
    monkeypatch.chdir(folder.parent)
    assert list_shards("in", "text") == list_shards(folder.as_uri(), "text") == list_shards(str(folder), "text")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.parquet", ["_hidden.parquet", "b.parquet"]),
        ("*/x.*", [".tmp/x.parquet", "a/x.parquet", "c/x.parq"]),
        ("a/*.parquet", ["x.parquet"]),
        ("**/?.parquet", [".tmp/x.parquet", "a/x.parquet", "b.parquet"]),
        ("c/x.parq", ["x.parq"]),
        ("z z%20#?.pq", ["z z%20#?.pq"]),
    ],
)
def test_a_file_or_a_glob_is_listed(folder: Path, pattern: str, names: list[str]) -> None:
    """A glob is taken at its word; a file's own name goes before its reading as a glob."""
    assert [shard.name for shard in list_shards(f"{folder}/{pattern}", "text").shards] == names


def test_the_digest_tells_a_file_written_anew(tmp_path: Path) -> None:
    """The same content has the same digest; other content of the same row count has another."""
    path = write(tmp_path / "x.parquet", rows_table(0, 100))
    first = only(path)
    write(path, rows_table(0, 100))
    assert only(path) == first
    write(path, rows_table(1, 100))
    assert only(path).digest != first.digest


def test_the_size_of_the_text_is_known(tmp_path: Path) -> None:
    """A shard of whole books has few rows to a megabyte of text; other columns and compression do not count."""
    books = [chr(97 + n) + str(n) * 100_000 for n in range(20)]
    path = write(tmp_path / "x.parquet", pa.table({"text": books, "pages": ["p" * 9**6] * 20}), row_group_size=7)
    one = only(path)
    assert one.text_bytes == pytest.approx(sum(map(len, books)), rel=0.01)
    assert [plan_units([one], 100, size)[0].rows for size in (one.text_bytes // 4, 1)] == [5, 1]


def corrupt_files(root: Path) -> None:
    good = write(root / "good.parquet", rows_table(0, 5)).read_bytes()
    (root / "cut.parquet").write_bytes(good[: len(good) // 2])
    (root / "empty.parquet").write_bytes(b"")
    (root / "tail.parquet").write_bytes(good[:-8] + b"\xff\xff\xff\x7fPAR1")
    length = int.from_bytes(good[-8:-4], "little")
    (root / "footer.parquet").write_bytes(good[: -8 - length] + b"\xff" * length + good[-8:])


def test_a_corrupt_shard_among_good_ones_is_reported(tmp_path: Path) -> None:
    """Cut short, empty, a footer that lies and a footer of noise: each by name with one line, and the good one is listed."""
    corrupt_files(tmp_path)
    listing = list_shards(str(tmp_path), "text")
    assert [shard.name for shard in listing.shards] == ["good.parquet"]
    assert [Path(bad.uri).name for bad in listing.corrupt] == [
        "cut.parquet",
        "empty.parquet",
        "footer.parquet",
        "tail.parquet",
    ]
    assert all(bad.reason and "\n" not in bad.reason for bad in listing.corrupt)


def test_nothing_but_corrupt_shards_is_an_error(tmp_path: Path) -> None:
    """There is no work: one line that names a file and its trouble."""
    (tmp_path / "x.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(ValueError, match=r"no readable file; .*x\.parquet: .*magic bytes"):
        list_shards(str(tmp_path), "text")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", r"nowhere: no such file or folder"),
        ("text", r"text: no file of rows there \(found 1 other files\); names must end in \.parquet"),
        ("hollow", r"hollow: no file of rows there \(found nothing\)"),
        ("text/*.parquet", r"no file of rows there"),
        ("text/x.txt", r"no readable file"),
    ],
)
def test_a_wrong_path_is_one_line(tmp_path: Path, name: str, message: str) -> None:
    """A path that gives no input says so and says what was found."""
    (tmp_path / "hollow").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "x.txt").write_text("text\nof a person who took it for Parquet")
    with pytest.raises(ValueError, match=message) as error:
        list_shards(f"{tmp_path}/{name}", "text")
    assert "\n" not in str(error.value)


def test_column_problems_of_all_shards_come_together(tmp_path: Path) -> None:
    """A missing column names the file and what there is, with a guess; a wrong type names the type; one line each."""
    write(tmp_path / "a.parquet", pa.table({"Text": ["x"], "id": [1]}))
    write(tmp_path / "b.parquet", pa.table({"text": pa.array([b"x"])}))
    write(tmp_path / "c.parquet", pa.table({"text": [1]}))
    write(tmp_path / "d.parquet", pa.table({"text": ["fine"]}))
    with pytest.raises(ValueError) as error:
        list_shards(str(tmp_path), "text")
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert re.search(r"a\.parquet: no column 'text'; there are Text, id; did you mean 'Text'\?", lines[0])
    assert re.search(r"b\.parquet: column 'text' is binary, not string", lines[1])
    assert re.search(r"c\.parquet: column 'text' is int64, not string", lines[2])


def test_a_thousand_problems_are_eleven_lines(tmp_path: Path) -> None:
    """The list of problems is capped, with the count of the rest."""
    write(tmp_path / "0.parquet", pa.table({"id": [1]}))
    for n in range(1, 30):
        (tmp_path / f"{n}.parquet").write_bytes((tmp_path / "0.parquet").read_bytes())
    with pytest.raises(ValueError, match="and 20 more files like these") as error:
        list_shards(str(tmp_path), "text")
    assert len(str(error.value).splitlines()) == 11


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_every_string_type_is_text(tmp_path: Path, kind: pa.DataType) -> None:
    """Texts come out the same from every way Arrow stores strings, also when one row's bytes are not UTF-8."""
    values = pa.chunked_array([pa.array(["a", None, "猫🐈", ""]).cast(kind)])
    path = write(tmp_path / "x.parquet", pa.table({"text": values}))
    unit = units_of(only(path), 10)[0]
    assert read_unit(unit).schema.field("text").type == kind
    assert texts_of(read_unit(unit), "text") == (["a", None, "猫🐈", ""], {})


def test_an_all_null_column_is_text(tmp_path: Path) -> None:
    """A shard whose texts are all missing may have the null type."""
    path = write(tmp_path / "x.parquet", pa.table({"text": pa.nulls(3)}))
    unit = units_of(only(path), 10)[0]
    assert texts_of(read_unit(unit), "text") == ([None, None, None], {})


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_a_row_that_is_not_utf8_is_reported_alone(tmp_path: Path, kind: pa.DataType) -> None:
    """A corrupt writer's row does not take the others with it; its bytes pass through unchanged."""
    raw = pa.array([b"good", b"caf\xe9", None, b"\xed\xa0\x80"])
    text = pa.StringArray.from_buffers(4, *raw.buffers()[1:], raw.buffers()[0]).cast(kind)
    path = write(tmp_path / "x.parquet", pa.table({"text": text}))
    table = read_unit(units_of(only(path), 10)[0])
    texts, errors = texts_of(table, "text")
    assert texts == ["good", None, None, None]
    assert list(errors) == [1, 3]
    assert errors[1] == "the text is not UTF-8: unexpected end of data at byte 3"
    assert table["text"].cast(pa.binary()).to_pylist() == raw.to_pylist()


def shard(rows: int, name: str = "s.parquet", text_bytes: int = 0) -> Shard:
    return Shard(f"/in/{name}", name, rows, 1, "d", text_bytes, ("text",))


def units_of(one: Shard, unit_rows: int) -> tuple[Unit, ...]:
    return plan_units([one], unit_rows, 2**40)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 10_000)), max_size=6),
    st.integers(1, 20),
    st.integers(1, 2000),
    st.none() | st.integers(1, 120),
)
@settings(max_examples=200, deadline=None)
def test_units_tile_the_rows(sizes: list[tuple[int, int]], unit_rows: int, unit_bytes: int, limit: int | None) -> None:
    """Units, in order, are exactly the first ``limit`` rows of all shards; an empty shard is one unit of no rows. No unit
    has more rows or, rows being alike, more text than asked for, except that it has one row at least."""
    stored = [shard(rows, f"{i}.parquet", size) for i, (rows, size) in enumerate(sizes)]
    units = plan_units(stored, unit_rows, unit_bytes, limit)
    planned = [(unit.shard.name, row) for unit in units for row in range(unit.start, unit.start + unit.rows)]
    assert planned == [(one.name, row) for one in stored for row in range(one.rows)][:limit]
    assert all(unit.rows <= unit_rows for unit in units)
    assert all(unit.rows <= 1 or unit.rows * unit.shard.text_bytes <= unit_bytes * unit.shard.rows for unit in units)
    assert len({unit.name for unit in units}) == len(units)
    if limit is None:
        assert sum(unit.rows == 0 for unit in units) == sum(one.rows == 0 for one in stored)


def test_unit_names_are_readable_safe_and_unique() -> None:
    """The name tells shard and row; equal stems in different folders differ; odd characters and long names are safe."""
    assert re.fullmatch(r"part-01-[0-9a-f]{10}-0000004000\.parquet", Unit(shard(9, "a/part-01.parquet"), 4000, 9).name)
    assert Unit(shard(1, "a/x.parquet"), 0, 1).name != Unit(shard(1, "b/x.parquet"), 0, 1).name
    assert Unit(shard(1, "a/x.parquet"), 0, 1).name != Unit(shard(1, "a/x.pq"), 0, 1).name
    for odd in ("猫.parquet", "_ a%b?c*#.parquet", "." + "x" * 300 + ".parquet", "é\udcff.parquet"):
        name = Unit(shard(1, odd), 0, 1).name
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.parquet", name)


def test_the_name_does_not_depend_on_rows_or_limit() -> None:
    """A unit that a limit cut short, or that grew, keeps its name; so resume with another limit sees it."""
    assert Unit(shard(10), 4, 2).name == Unit(shard(99), 4, 50).name


@pytest.mark.parametrize("unit_rows", [1000, 700, 333, 6000])
def test_units_give_exactly_the_stored_rows(folder: Path, unit_rows: int) -> None:
    """Every value, type and metadata entry of every row, in order, whatever the row groups; also from a pickled unit."""
    for one in list_shards(str(folder), "text").shards:
        units = pickle.loads(pickle.dumps(units_of(one, unit_rows)))
        tables = [read_unit(unit) for unit in units]
        assert [table.num_rows for table in tables] == [unit.rows for unit in units]
        assert all(table.schema.equals(SCHEMA, check_metadata=False) for table in tables)
        assert all(table.schema.metadata == SCHEMA.metadata for table in tables)
        assert all(table.schema.field("text").metadata[b"lang"] == b"en" for table in tables)
        assert pa.concat_tables(tables).to_pylist() == pq.read_table(one.uri).to_pylist()


def test_named_columns_only(folder: Path) -> None:
    """Columns come in the order asked for, nested ones whole, in shards with rows and without."""
    for unit in plan_units(list_shards(str(folder), "text").shards, 4000, 2**40):
        table = read_unit(unit, ["nested", "text"])
        assert table.column_names == ["nested", "text"]
        assert table.equals(read_unit(unit).select(["nested", "text"]))


def test_a_huge_row_group_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 units of one row group, read by 8 threads, decode it once."""
    path = write(tmp_path / "x.parquet", rows_table(0, 10_000))
    decoded: list[int] = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: decoded.append(a[1]) or real(*a, **k))
    units = units_of(only(path), 100)
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(read_unit, units))
    assert [n for table in tables for n in table["n"].to_pylist()] == list(range(10_000))
    assert decoded == [0]


def test_only_overlapping_row_groups_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows 1000 to 1500 of groups of 700 lie in the second and third."""
    one = next(s for s in list_shards(str(folder), "text").shards if s.rows == 5000)
    decoded: list[int] = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: decoded.append(a[1]) or real(*a, **k))
    read_unit(Unit(one, 1000, 500))
    assert decoded == [1, 2]


@pytest.mark.parametrize("checksums", [True, False])
def test_corrupt_pages_name_file_and_rows(tmp_path: Path, checksums: bool) -> None:
    """Noise in the data of one row group fails the units that read it, by name; the other units are read."""
    path = write(
        tmp_path / "x.parquet",
        rows_table(0, 3000),
        row_group_size=1000,
        compression="zstd",
        write_page_checksum=checksums,
    )
    group = pq.read_metadata(path).row_group(1)
    data = bytearray(path.read_bytes())
    start = group.column(0).dictionary_page_offset or group.column(0).data_page_offset
    data[start + 40 : start + 400] = bytes(360)
    path.write_bytes(data)
    units = units_of(only(path), 1000)
    assert [read_unit(units[n])["n"][0].as_py() for n in (0, 2)] == [0, 2000]
    with pytest.raises(ValueError, match=r"x\.parquet: rows 1000 to 2000 are corrupt \(") as error:
        read_unit(units[1])
    assert "\n" not in str(error.value)


def test_a_flipped_bit_is_found_by_its_checksum(tmp_path: Path) -> None:
    """Uncompressed data decodes whatever it holds; where the file has page checksums they are verified."""
    path = write(
        tmp_path / "x.parquet",
        pa.table({"text": ["needle in the hay"] * 3}),
        compression="none",
        write_page_checksum=True,
        write_statistics=False,
    )
    path.write_bytes(path.read_bytes().replace(b"needle", b"noodle", 1))
    with pytest.raises(ValueError, match="corrupt"):
        read_unit(units_of(only(path), 10)[0])


def test_a_file_changed_since_the_listing_is_refused(tmp_path: Path) -> None:
    """Rows of another file may not land under this unit's name; a file that has gone is an OSError."""
    path = write(tmp_path / "x.parquet", rows_table(0, 100))
    unit = units_of(only(path), 100)[0]
    write(path, rows_table(1, 100))
    with pytest.raises(ValueError, match=r"x\.parquet: the file has changed since it was listed"):
        read_unit(unit)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_unit(unit)


def test_another_scheme_of_fsspec(folder: Path, tmp_path: Path) -> None:
    """memory:// stands for all of them: the same shards and rows as from a disk, and a table written beside them."""
    root = f"memory://{tmp_path}/in"
    for path in folder.rglob("*.p*"):
        storage.write_bytes(f"{root}/{path.relative_to(folder)}", path.read_bytes())
    listing, local = list_shards(root, "text"), list_shards(str(folder), "text")
    assert [(s.name, s.rows, s.digest) for s in listing.shards] == [(s.name, s.rows, s.digest) for s in local.shards]
    assert [s.name for s in list_shards(f"{root}/c/*.parq", "text").shards] == ["x.parq"]
    units = plan_units(listing.shards, 1000, 2**40)
    table = pa.concat_tables([read_unit(unit) for unit in units])
    assert table.equals(pa.concat_tables([pq.read_table(shard.uri) for shard in local.shards]))
    tables.write_table(f"{root}/out/x.parquet", table, {"run": "1"})
    assert tables.read_table(f"{root}/out/x.parquet").to_pylist() == table.to_pylist()
    assert tables.read_metadata(f"{root}/out/x.parquet")["run"] == "1"
    storage.write_bytes(f"{root}/bad.parquet", b"PAR1")
    assert [bad.uri for bad in list_shards(root, "text").corrupt] == [f"{root}/bad.parquet"]


def test_wide_and_long_row_groups_are_read_in_pieces(tmp_path: Path) -> None:
    """Columns far apart, longer than one request, and a part of them in the file's tail: exactly what is stored."""
    noise = np.random.default_rng(0).integers(0, 2**62, (3, 1_500_000))  # 12 MB a column
    table = pa.table({"text": [str(n) for n in range(1_500_000)], "a": noise[0], "b": noise[1], "c.d": noise[2]})
    path = write(tmp_path / "x.parquet", table, row_group_size=10**9)
    unit = units_of(only(path), 10**9)[0]
    for columns in (["text"], ["c.d", "a"], ["b"], None):
        assert read_unit(unit, columns).equals(table if columns is None else table.select(columns))


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Any]]:
    with s3_server() as running:
        yield running


def test_s3_folder_file_and_glob(folder: Path, server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same listing, names and rows from a bucket as from a disk; a corrupt object is named there too."""
    endpoint, client = server
    point_at(monkeypatch, endpoint)
    for path in folder.rglob("*.p*"):
        client.upload_file(str(path), BUCKET, f"in/{path.relative_to(folder)}")
    client.put_object(Bucket=BUCKET, Key="in/bad.parquet", Body=b"PAR1")
    root = f"s3://{BUCKET}/in"
    listing, local = list_shards(root, "text"), list_shards(str(folder), "text")
    assert [(s.name, s.rows, s.digest) for s in listing.shards] == [(s.name, s.rows, s.digest) for s in local.shards]
    assert [(bad.uri, bad.name) for bad in listing.corrupt] == [(f"{root}/bad.parquet", "bad.parquet")]
    assert [s.name for s in list_shards(f"{root}/**/x.*", "text").shards] == [
        ".tmp/x.parquet",
        "a/x.parquet",
        "c/x.parq",
    ]
    assert [s.name for s in list_shards(f"{root}/c/x.parq", "text").shards] == ["x.parq"]
    unit = units_of(listing.shards[2], 2000)[1]
    assert read_unit(unit)["n"].to_pylist() == list(range(2001, 4001))
    with pytest.raises(ValueError, match="no such file or folder"):
        list_shards(f"s3://{BUCKET}/nowhere", "text")


@pytest.mark.parametrize("how", ["dropped", "cut"])
def test_s3_a_lost_connection_is_not_corruption(
    folder: Path, server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    """An object that cannot be reached now is an OSError, which may be tried again, and never called corrupt."""
    endpoint, client = server
    client.upload_file(str(folder / "a" / "x.parquet"), BUCKET, "lost/x.parquet")
    with Proxy(endpoint) as proxy:
        point_at(monkeypatch, proxy.url)
        unit = units_of(list_shards(f"s3://{BUCKET}/lost", "text").shards[0], 10)[0]
        proxy.fail("lost/x.parquet", how=how)
        with pytest.raises(OSError) as error:
            read_unit(unit)
        assert not isinstance(error.value, FileNotFoundError)
        with pytest.raises(UserError, match=r"^s3://texts/lost/x\.parquet: cannot be read \("):
            list_shards(f"s3://{BUCKET}/lost", "text")


def test_timestamps_as_spark_writes_them(tmp_path: Path) -> None:
    """INT96 in microseconds and UTC, nested ones and those of a file without rows too: nanoseconds end in 2262.

    Without a zone Spark would read the output as local times.
    """
    days = ("9999-12-31T00:00:00Z", "0001-01-01T00:00:00Z", "2024-05-01T01:02:03.456789Z")
    given_values = [*map(datetime.fromisoformat, days), None]
    kind = pa.timestamp("us", "UTC")
    columns = {
        "text": ["a", "b", "c", "d"],
        "until": pa.array(given_values, kind),
        "nested": pa.array([[{"at": value}] for value in given_values], pa.list_(pa.struct([("at", kind)]))),
        "map": pa.array([[("a", [value])] for value in given_values], pa.map_(pa.string(), pa.large_list(kind))),
        "pairs": pa.array([[value] * 2 for value in given_values], pa.list_(kind, 2)),
        "day": pa.array([None if value is None else value.date() for value in given_values]),
    }
    for rows, store_schema in itertools.product(
        (4, 0), (False, True)
    ):  # Arrow's own schema, which Spark does not write
        table = pa.table(columns).slice(0, rows)
        options = {"use_deprecated_int96_timestamps": True, "store_schema": store_schema}
        path = write(tmp_path / f"{rows}-{store_schema}.parquet", table, **options)
        (unit,) = plan_units([only(path)], 10, 10**6)
        read = read_unit(unit)
        assert read.schema.field("until").type == kind
        assert read_unit(unit, ["day", "until"]).schema.types == [pa.date32(), kind]
        assert read["until"].to_pylist() == given_values[:rows]
        assert [value[0]["at"] for value in read["nested"].to_pylist()] == given_values[:rows]
        assert [value[0][1] for value in read["map"].to_pylist()] == [[value] for value in given_values[:rows]]
        assert [value[1] for value in read["pairs"].to_pylist()] == given_values[:rows]
        assert tables.read_table(str(path))["until"].to_pylist() == given_values[:rows]


def test_partitions_are_columns(tmp_path: Path) -> None:
    """Folders `name=value`, as Spark and Hive write them: strings, null, escapes; a file's own column goes before."""
    one = pa.table({"text": ["x", "y"]})
    write(tmp_path / "lang=en" / "day=2024-05-01" / "a.parquet", one)
    write(tmp_path / "lang=__HIVE_DEFAULT_PARTITION__" / "day=a%3Ab%20c" / "a.parquet", one)
    write(tmp_path / "lang=de" / "day=" / "a.parquet", one.append_column("lang", pa.array(["own", "own"])))
    rows = []
    for unit in plan_units(list_shards(str(tmp_path), "text").shards, 1, 10**6):
        assert list(unit.shard.columns) == read_unit(unit).column_names
        rows += read_unit(unit, ["day", "lang", "text"]).to_pylist()
    assert {tuple(row.values()) for row in rows} == {
        (day, lang, text) for day, lang in (("2024-05-01", "en"), ("a:b c", None), ("", "own")) for text in ("x", "y")
    }
    assert len(rows) == 6
    (shard,) = list_shards(f"{tmp_path}/lang=en", "text").shards
    assert shard.partitions == (("day", "2024-05-01"),)


@pytest.mark.parametrize(
    ("log", "name"),
    [
        ("_delta_log/00000000000000000000.json", "a Delta table"),
        (".hoodie/hoodie.properties", "a Hudi table"),
        ("metadata/v1.metadata.json", "an Iceberg table"),
        ("metadata/version-hint.text", "an Iceberg table"),
        ("_spark_metadata/0", "written by a Spark stream"),
    ],
)
@pytest.mark.parametrize("below", ["", "deep/table/"])
def test_tables_with_a_log_are_refused(tmp_path: Path, log: str, name: str, below: str) -> None:
    """Some of their Parquet files hold rows that were deleted: reading them all would bring those back."""
    write(tmp_path / below / "data" / "part-0.parquet", rows_table(0, 3))
    (tmp_path / below / log).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / below / log).write_text("{}")
    with pytest.raises(UserError, match=name) as caught:
        list_shards(str(tmp_path), "text")
    assert str(caught.value).startswith(str(tmp_path / below))
    (tmp_path / below / log).unlink()
    assert len(list_shards(str(tmp_path), "text").shards) == 1


def test_what_is_passed_over_is_told(folder: Path) -> None:
    """Names of files that may have been meant; marks and checksums are not among them."""
    for name in ("_SUCCESS", ".b.parquet.crc", "_metadata", "_manifest.json", "more.csv"):
        (folder / name).write_text("x")
    write(folder / "SHOUTED.PARQUET", rows_table(0, 1))
    listing = list_shards(str(folder), "text")
    assert listing.passed_over == (".tmp/x.parquet", "_hidden.parquet", "more.csv", "readme.txt")
    assert "SHOUTED.PARQUET" in [shard.name for shard in listing.shards]
    assert listing.about_passed_over == (
        "passed over (hidden, links to the same, or files of another kind): "
        ".tmp/x.parquet, _hidden.parquet, more.csv, readme.txt"
    )
    for i in range(1200):
        (folder / f"{i:04}.csv").touch()
    assert list_shards(str(folder), "text").about_passed_over.endswith("0003.csv and 1,199 more")
    assert list_shards(f"{folder}/*.parquet", "text").passed_over == ()


def test_a_file_is_read_once_whatever_links_lead_to_it(tmp_path: Path) -> None:
    """By its own name; the others are told."""
    write(tmp_path / "2024-05" / "a.parquet", rows_table(0, 2))
    (tmp_path / "latest").symlink_to(tmp_path / "2024-05")
    (tmp_path / "0.parquet").symlink_to(tmp_path / "2024-05" / "a.parquet")
    write(tmp_path / "blobs" / "x", rows_table(2, 2))
    for snapshot in ("s1", "s2"):
        (tmp_path / snapshot).mkdir()
        (tmp_path / snapshot / "b.parquet").symlink_to(tmp_path / "blobs" / "x")
    listing = list_shards(str(tmp_path), "text")
    assert [shard.name for shard in listing.shards] == ["2024-05/a.parquet", "s1/b.parquet"]
    assert listing.passed_over == ("0.parquet", "blobs/x", "latest/a.parquet", "s2/b.parquet")
    assert [shard.name for shard in list_shards(f"{tmp_path}/*.parquet", "text").shards] == ["0.parquet"]


@pytest.mark.parametrize(
    ("source", "place", "inside"),
    [
        ("in", "in", True),
        ("in", "in/out", True),
        ("in", "out", False),
        ("in", "inn", False),
        ("*", "in", True),
        ("**/*.parquet", "in/out", True),
        ("in/*.parquet", "in/out", False),
        ("in/part-*.parquet", "in", True),
        ("in/part-?.parquet", "out", False),
        ("**/part-*.parquet", "in/out", True),
        ("linked", "in/out", True),
        ("in", "linked", True),
    ],
)
def test_what_would_be_read_next_time(tmp_path: Path, source: str, place: str, inside: bool) -> None:
    """A folder for output inside of what is read, by name, by a glob, through a link."""
    (tmp_path / "in").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    source = {"*": "*/*.parquet"}.get(source, source)
    assert covers(f"{tmp_path}/{source}", f"{tmp_path}/{place}") is inside


def test_links_to_nowhere_and_in_a_circle(folder: Path) -> None:
    """A link to nothing is an unreadable file, not a missing one; a folder that holds itself is refused."""
    (folder / "lost.parquet").symlink_to(folder / "no such file")
    assert [(file.name, file.reason) for file in list_shards(str(folder), "text").corrupt] == [
        ("lost.parquet", "0 bytes, or a link to nothing")
    ]
    (folder / "a" / "up").symlink_to(folder)
    with pytest.raises(UserError, match="a link to a folder that it lies in"):
        list_shards(str(folder), "text")
