"""JSON Lines, CSV and Arrow as input: the rows of a file, whatever units it is cut into, and what cannot be read."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from s3_server import BUCKET, Proxy, point_at, s3_server

from ner_batch.data import clean
from ner_batch.errors import UserError
from ner_batch.io import compressed, lines, s3, tables
from ner_batch.io import listing as listings
from ner_batch.io.listing import covers, list_shards, read_unit
from ner_batch.io.outage import may_pass
from ner_batch.io.shards import UNREADABLE, plan_units, texts_of

HYPOTHESIS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of some rows, so that small files have several; and types looked at a few rows at a time."""
    monkeypatch.setattr(lines, "PART_BYTES", 200)
    monkeypatch.setattr(lines, "ROWS_INFERRED", 3)


def written(path: Path, rows: list[Any]) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def read(path: Path | str, text_column: str | None = "text", unit_rows: int = 7) -> pa.Table:
    """All rows, unit by unit."""
    listing = list_shards(str(path), text_column)
    assert not listing.corrupt
    units = [read_unit(unit) for unit in plan_units(listing.shards, unit_rows, 10**9)]
    return pa.concat_tables(units, promote_options="default")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@HYPOTHESIS
@given(
    rows=st.lists(
        st.fixed_dictionaries({}, optional={"text": st.none() | st.text(), "a": JSON, "b": st.text(), "ç": JSON}),
        min_size=1,
        max_size=30,
    ),
    unit_rows=st.integers(1, 40),
    ascii_only=st.booleans(),
)
def test_json_lines_come_back(tmp_path: Path, rows: list[dict[str, Any]], unit_rows: int, ascii_only: bool) -> None:
    """Each value is itself, or itself as JSON where a column has no one type, for every cut into units."""
    (tmp_path / "x.jsonl").write_text(
        "".join(f"{json.dumps(row, ensure_ascii=ascii_only)}\n" for row in [*rows, {"text": "last", "b": "last"}])
    )
    table = read(tmp_path / "x.jsonl", unit_rows=unit_rows)
    assert table.num_rows == len(rows) + 1
    as_json = {f.name for f in list_shards(str(tmp_path), "text").shards[0].schema if f.type == pa.json_()}
    for row, read_row in zip(rows, table.to_pylist(), strict=False):
        assert read_row["text"] == row.get("text")
        for name in ("a", "b", "ç"):
            value = row.get(name)
            read_value = read_row.get(name)
            if value is not None and name in as_json:
                read_value = json.loads(read_value)
            assert without_nulls(read_value) == without_nulls(value)


def without_nulls(value: Any) -> Any:
    """Fields that are null mean the same as fields that are missing."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12)


@HYPOTHESIS
@given(
    rows=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=30),
    unit_rows=st.integers(1, 40),
    delimiter=st.sampled_from(",;\t|"),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_comes_back(tmp_path: Path, rows: list[tuple[str, str]], unit_rows: int, delimiter: str, ends: str) -> None:
    """Line ends, quotes and delimiters in fields; every column a string, as it is written."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=ends, quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "text"), *rows])
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbf" + out.getvalue().encode())
    table = read(tmp_path / "x.csv", unit_rows=unit_rows)
    assert table.to_pylist() == [{"id": id_, "text": text} for id_, text in rows]


@pytest.mark.parametrize("end", ["", ".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("backwards", [False, True])
def test_compressed_files_are_cut_too(tmp_path: Path, end: str, backwards: bool) -> None:
    """Units of a compressed file may be read in any order."""
    rows = [{"text": f"text {number} " * (number % 7), "n": number} for number in range(200)]
    data = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, "": bytes}
    half = len(data) // 2  # of two streams, as `cat` of two files has
    compress[".zst"] = lambda part: pa.compress(part, "zstd", asbytes=True)
    (tmp_path / f"x.jsonl{end}").write_bytes(compress[end](data[:half]) + compress[end](data[half:]))
    units = plan_units(list_shards(str(tmp_path), "text").shards, 30, 10**9)
    tables = [read_unit(unit) for unit in (units[::-1] if backwards else units)]
    table = pa.concat_tables(tables[::-1] if backwards else tables)
    assert table.to_pylist() == rows


def test_a_row_that_cannot_be_read_is_a_row(tmp_path: Path) -> None:
    """Torn, of another kind, not UTF-8, or with a text that is none: a row that says why, and the others are whole."""
    (tmp_path / "x.jsonl").write_bytes(
        b'\xef\xbb\xbf{"text": "good", "n": 1}\n\n  \n{"text": "torn\n[1]\n{"text": 5, "n": 2}\n'
        b'{"text": "\xff"}\n{"text": "\\ud800 \\ud83d\\ude00"}\n{"text": "no line end", "n": 3}'
    )
    table = read(tmp_path / "x.jsonl")
    texts, errors = texts_of(table, "text")
    assert texts == ["good", None, None, None, None, clean("\ud800 😀"), "no line end"]
    assert [errors[row].partition(":")[0] for row in sorted(errors)] == ["row 1", "row 2", "row 3", "row 4"]
    assert errors[1].startswith("row 1: not JSON: Invalid control character")
    assert errors[2] == "row 2: a JSON array, not an object"
    assert errors[3] == "row 3: text is number, not a string"
    assert errors[4] == "row 4: not UTF-8: invalid start byte at byte 10"
    assert table["n"].to_pylist() == [1, None, None, 2, None, None, 3]
    (tmp_path / "z.jsonl").write_text(
        '{"doc": {"body": "good", "n": 1}}\n{"doc": {"body": [5], "n": 2}}\n{"doc": {"n": 3}}\n'
    )
    (unit,) = plan_units(list_shards(str(tmp_path / "z.jsonl"), "doc.body").shards, 7, 10**9)
    table = read_unit(unit, ["doc", "doc.body"])
    assert texts_of(table, "doc.body") == (["good", None, None], {1: "row 1: doc.body is array, not a string"})
    assert table["doc"].to_pylist() == [{"body": "good", "n": 1}, {"body": None, "n": 2}, {"body": None, "n": 3}]
    (tmp_path / "z.jsonl").write_text('{"doc": {"body": "good"}}\n{"doc": {"body": 5}}\n{"doc": "x"}\n')
    (unit,) = plan_units(list_shards(str(tmp_path / "z.jsonl"), "doc.body").shards, 7, 10**9)
    table = read_unit(unit, ["doc", "doc.body"])  # the column is JSON, which holds whatever there was
    assert table["doc"].to_pylist() == ['{"body": "good"}', '{"body": 5}', '"x"']
    (tmp_path / "y.csv").write_bytes(b'id,text\n\n1,"a\nb"\n2,x,y\n3\n4,\xff\n5,a"b\n')
    table = read(tmp_path / "y.csv")
    texts, errors = texts_of(table, "text")
    assert texts == ["a\nb", None, None, None, 'a"b']
    assert errors == {
        1: "row 1: 3 fields, where the header names 2",
        2: "row 2: 1 fields, where the header names 2",
        3: "row 3: not UTF-8: invalid start byte at byte 2",
    }


def test_the_columns_of_all_files_are_the_same(tmp_path: Path) -> None:
    """What one file lacks is null, and a type holds for all of them."""
    written(tmp_path / "a.jsonl", [{"text": "a", "n": 1, "meta": {"x": 1}}])
    written(tmp_path / "b.jsonl", [{"text": "b", "n": 1.5, "more": [], "meta": {"y": ["z"]}, "odd": 1}])
    written(tmp_path / "c.jsonl", [{"text": "c", "odd": "one", "void": None, "empty": {}}])
    table = read(tmp_path)
    assert table.schema.remove_metadata() == pa.schema(
        [
            ("text", pa.string()),
            ("n", pa.float64()),
            ("meta", pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))])),
            ("more", pa.list_(pa.string())),
            ("odd", pa.string()),
            ("void", pa.string()),
            ("empty", pa.string()),
        ]
    )
    assert table["odd"].to_pylist() == [None, "1", '"one"']
    assert table["empty"].to_pylist() == [None, None, "{}"]
    wide = [{"text": "x", "map": {f"key {number}": number}} for number in range(300)]
    written(tmp_path / "c.jsonl", wide)
    assert read(tmp_path).schema.field("map").type == pa.string()


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow"])
def test_the_text_may_be_a_field(tmp_path: Path, kind: str) -> None:
    """By its path; the column it is a field of stays as it is, and a wrong path is one line."""
    rows = [{"doc": {"body": f"text {number}", "n": number}} for number in range(20)] + [{"doc": None}]
    dataset = Dataset.from_list(rows)
    if kind == "jsonl":
        written(tmp_path / "x.jsonl", rows)
    elif kind == "parquet":
        dataset.to_parquet(tmp_path / "x.parquet")
    else:
        dataset.save_to_disk(tmp_path)
    (shard,) = list_shards(str(tmp_path), "doc.body").shards
    assert shard.columns == ("doc",)
    assert shard.text_bytes > 100
    units = plan_units([shard], 6, 10**9)
    table = pa.concat_tables([read_unit(unit, ["doc", "doc.body"]) for unit in units])
    assert table["doc.body"].to_pylist() == [*(f"text {number}" for number in range(20)), None]
    assert table["doc"].to_pylist() == [row["doc"] for row in rows]
    assert read_unit(units[0], ["doc.body"]).column_names == ["doc.body"]
    for wrong in ("doc.n", "dok.body", "doc.boddy", "doc"):
        with pytest.raises(UserError, match=r"no column 'do[ck]\.bodd?y'|column 'doc(\.n)?' (is|holds)") as caught:
            list_shards(str(tmp_path), wrong)
        assert "\n" not in str(caught.value)


def test_what_datasets_saves(tmp_path: Path) -> None:
    """Both splits, in shards of several batches; files of its cache are none of the data."""
    rows = [{"text": f"text {number}", "n": number} for number in range(2500)]
    train, test = Dataset.from_list(rows[:2300]), Dataset.from_list(rows[2300:])
    DatasetDict({"a": train, "b": test}).save_to_disk(tmp_path, num_shards={"a": 2, "b": 1})
    (tmp_path / "a" / "cache-0123.arrow").write_bytes(b"of the cache")
    listing = list_shards(str(tmp_path), "text")
    assert listing.passed_over == ("a/cache-0123.arrow",)
    assert len(listing.shards) == 3
    assert {len(shard.parts) for shard in listing.shards} == {1, 2}
    assert read(tmp_path, unit_rows=333).to_pylist() == rows
    (tmp_path / "a" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(UserError, match=r"a/data-00001-of-00002\.arrow, which it names, is not there"):
        list_shards(str(tmp_path), "text")
    (tmp_path / "a" / "state.json").write_text('["of something else"]')
    assert len(list_shards(str(tmp_path / "a"), "text").shards) == 1


def test_a_file_of_arrow(tmp_path: Path) -> None:
    """Not a stream; cut between two of its batches it is not whole."""
    path = tmp_path / "x.feather"
    with pa.ipc.new_file(str(path), pa.schema([("text", pa.string())])) as file:
        for _ in range(2):
            file.write(pa.record_batch({"text": ["of a file, not a stream"]}))
    assert read(path)["text"].to_pylist() == ["of a file, not a stream"] * 2
    (part, _) = list_shards(str(path), "text").shards[0].parts
    path.write_bytes(path.read_bytes()[: part.offset + part.size])
    with pytest.raises(UserError, match=r"it ends before its footer: is it copied whole\?"):
        list_shards(str(path), "text")


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.jsonl.gz", "data.arrow"])
def test_a_file_changed_since_the_listing_is_refused(tmp_path: Path, name: str) -> None:
    """By the bytes of the unit's parts, also where the length is the same."""
    contents = [f"text {digit}" * 20 for digit in "123"]
    path = tmp_path / name

    def write(texts: list[str]) -> None:
        if name.endswith("arrow"):
            with pa.ipc.new_stream(str(path), pa.schema([("text", pa.string())])) as stream:
                for text in texts:
                    stream.write(pa.record_batch({"text": [text]}))
            return
        header = "text\n" if "csv" in name else ""
        data = header + "".join(f"{text if 'csv' in name else json.dumps({'text': text})}\n" for text in texts)
        path.write_bytes(gzip.compress(data.encode()) if name.endswith("gz") else data.encode())

    write(contents)
    units = plan_units(list_shards(str(path), "text").shards, 1, 10**9)
    write([*contents[:2], contents[2].replace("3", "4")])
    if not name.endswith("gz"):  # its stream is still open, on what it was
        assert read_unit(units[0])["text"].to_pylist() == contents[:1]
    with pytest.raises(UserError, match=r"the file has changed since it was listed; start the run again"):
        read_unit(units[2])


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("x.json", b'[{"text": "x"}]', "a JSON array, not an object a line: `jq -c"),
        ("x.json", b'{\n"text": "x"\n}\n', "no row can be read, the first for it is not JSON"),
        ("x.jsonl", "﻿{}".encode("utf-16"), "UTF-16, not UTF-8: convert it"),
        ("x.csv", "text\nx\n".encode("utf-16"), "UTF-16, not UTF-8: convert it"),
        ("x.csv", b"text,text\nx,y\n", "the header names 'text' more than once"),
        ("x.csv", b"\n\n", "no header: the first line names the columns"),
        ("x.csv", b'text\nx\n"y\nz\n', "row 1: a quote is opened and never closed"),
        ("x.csv", b"\xff\xff\n", "the first line is no header of UTF-8 text"),
        ("x.csv", b"id,text\r1,a\r", "its lines end in CR, not LF: convert them"),
        ("x.csv", b'text,id\n"a"b,"open\nc,2\n', "row 0: a quote is opened and never closed"),
        ("x.csv", b"text," * 10_001, "more than 10,000 columns: names that are data belong in one column"),
        ("x.jsonl", json.dumps({str(n): n for n in range(10_001)}).encode(), "more than 10,000 columns"),
        ("x.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 999, mtime=0)[:-12], "Compressed file ended before the end"),
        ("x.jsonl.gz", b'{"text": "x"}\n', "Not a gzipped file"),
        ("x.jsonl.zst", b'{"text": "x"}\n', "ZSTD|zstd"),
        ("x.csv.bz2", b"text\nx\n", "Invalid data stream"),
        ("x.arrow", b"no arrow at all, but many bytes", "."),
        ("x.arrow", b"", "0 bytes"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    """Alone it is an error of one line, beside others it is told and they are read."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=reason) as caught:
        list_shards(str(tmp_path / name), "text")
    assert str(caught.value).count("\n") == 0
    written(tmp_path / "good.jsonl", [{"text": "good"}])
    listing = list_shards(f"{tmp_path}/*", "text")
    assert [shard.name for shard in listing.shards] == ["good.jsonl"]
    assert [corrupt.name for corrupt in listing.corrupt] == [name]


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("x.jsonl", b'{"Text": "x"}', r"no column 'text'; there are Text; did you mean 'Text'\?"),
        ("x.jsonl", b'{"text": 1}\n{"text": [2]}', r"column 'text' holds number, not strings"),
        ("x.csv", b"Text;id\nx;1\n", r"no column 'text'; there are Text, id; did you mean 'Text'\?"),
        ("x.arrow", None, r"column 'text' is int64, not string"),
    ],
)
def test_a_wrong_text_column_is_one_line(tmp_path: Path, name: str, data: bytes | None, problem: str) -> None:
    """As in Parquet."""
    if data is None:
        with pa.ipc.new_stream(str(tmp_path / name), pa.schema([("text", pa.int64())])) as stream:
            stream.write(pa.record_batch({"text": [1]}))
    else:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=problem) as caught:
        list_shards(str(tmp_path), "text")
    assert "\n" not in str(caught.value)


def test_which_files_of_a_folder_are_read(tmp_path: Path) -> None:
    """Parquet, if there is any; else one kind. JSON that is no data, as many folders have, is passed over."""
    written(tmp_path / "a.jsonl", [{"text": "a"}])
    (tmp_path / "config.json").write_text("{}")
    assert list_shards(str(tmp_path), "text").passed_over == ("config.json",)
    (tmp_path / "b.csv").write_text("text\nb\n")
    with pytest.raises(UserError, match=r"files of several kinds \(a\.jsonl and b\.csv\): name those to read"):
        list_shards(str(tmp_path), "text")
    assert [shard.name for shard in list_shards(f"{tmp_path}/*.csv", "text").shards] == ["b.csv"]
    assert not covers(f"{tmp_path}/**/*.jsonl", f"{tmp_path}/out")
    assert covers(str(tmp_path), f"{tmp_path}/out")
    Dataset.from_dict({"text": ["c"]}).to_parquet(tmp_path / "c.parquet")
    listing = list_shards(str(tmp_path), "text")
    assert [shard.name for shard in listing.shards] == ["c.parquet"]
    assert listing.passed_over == ("a.jsonl", "b.csv", "config.json")


def test_folders_of_partitions_are_columns(tmp_path: Path) -> None:
    """As of Parquet; a column of that name in any file goes before."""
    for lang, rows in {"en": [{"text": "a"}], "de": [{"text": "b", "n": 1}]}.items():
        (tmp_path / f"lang={lang}").mkdir()
        written(tmp_path / f"lang={lang}" / "x.jsonl", rows)
    assert read(tmp_path).to_pylist() == [
        {"text": "b", "n": 1, "lang": "de"},
        {"text": "a", "n": None, "lang": "en"},
    ]


def test_a_folder_and_a_column_of_one_name(tmp_path: Path) -> None:
    """In the rows of the folder the value would be lost for those of the other file."""
    (tmp_path / "lang=en").mkdir()
    written(tmp_path / "lang=en" / "x.jsonl", [{"text": "a"}])
    written(tmp_path / "y.jsonl", [{"text": "b", "lang": "de"}])
    with pytest.raises(UserError, match=r"lang=en/x\.jsonl: its folder names lang, which rows of other files have"):
        list_shards(str(tmp_path), "text")


def test_a_long_listing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes without a line look as if it hung; Parquet's footers take none."""
    monkeypatch.setattr(listings, "SLOW_LISTING_BYTES", 10)
    written(tmp_path / "x.jsonl", [{"text": "some words"}])
    progress_lines: list[str] = []
    list_shards(str(tmp_path), "text", progress_lines.append)
    assert progress_lines == ["1 files of 0.0 GB are read through to be listed ..."]
    Dataset.from_dict({"text": ["c"]}).to_parquet(tmp_path / "c.parquet")
    list_shards(str(tmp_path), "text", progress_lines.append)
    assert len(progress_lines) == 1


def test_the_digest_is_of_the_contents(tmp_path: Path) -> None:
    """A copy has the same, another row another."""
    one = written(tmp_path / "a.jsonl", [{"text": "x"}])
    other = written(tmp_path / "b.jsonl", [{"text": "x"}])
    third = written(tmp_path / "c.jsonl", [{"text": "y"}])
    digests = [list_shards(str(path), "text").shards[0].digest for path in (one, other, third)]
    assert digests[0] == digests[1] != digests[2]


def test_no_row_can_be_read_and_none_is_named(tmp_path: Path) -> None:
    """Columns that are asked for come alone, with the reasons."""
    written(tmp_path / "x.jsonl", [{"text": "x", "id": 7}, "no object"])
    (unit,) = plan_units(list_shards(str(tmp_path), "text").shards, 10, 10**9)
    table = read_unit(unit, ["id"])
    assert table.column_names == ["id", UNREADABLE]
    assert table["id"].to_pylist() == [7, None]


def test_a_header_ends_where_its_record_ends(tmp_path: Path) -> None:
    """A quote within a name opens nothing, and a quoted name may have line ends in it: by the delimiter that counts."""
    (tmp_path / "x.csv").write_text('id,size 5",text\n1,a,b\n2,c,d\n')
    assert read(tmp_path / "x.csv").to_pylist() == [
        {"id": "1", 'size 5"': "a", "text": "b"},
        {"id": "2", 'size 5"': "c", "text": "d"},
    ]
    (tmp_path / "x.csv").write_text('id;"si\nze";text\n1;a,1;b\n2;c;d\n')
    assert read(tmp_path / "x.csv").to_pylist() == [
        {"id": "1", "si\nze": "a,1", "text": "b"},
        {"id": "2", "si\nze": "c", "text": "d"},
    ]


def test_a_quote_that_stays_open_is_not_read_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by the longest row there may be."""
    monkeypatch.setattr(lines, "LONGEST_RECORD", 100)
    (tmp_path / "x.csv").write_text('text,id\n"abc,1\n' + "x,1\n" * 50)
    with pytest.raises(UserError, match=r"a row is longer than 100 bytes: is a quote opened and never closed\?"):
        list_shards(str(tmp_path), "text")
    (tmp_path / "x.csv").write_text("text,id\n" + f"{'x' * 60},1\n" * 50)
    assert read(tmp_path).num_rows == 50


def test_names_that_no_column_can_have(tmp_path: Path) -> None:
    """Half a surrogate pair fails its row; a byte order mark, as in files put one after another, does not."""
    rows = [b'{"text": "a", "n": 1}', b'{"\\ud800": 1, "text": "b"}', b'\xef\xbb\xbf{"text": "c", "n": "x"}']
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(row for row in rows for _ in range(30)))
    table = read(tmp_path, unit_rows=1)
    texts, errors = texts_of(table, "text")
    assert texts == ["a"] * 30 + [None] * 30 + ["c"] * 30
    assert errors == {row: f"row {row}: not JSON of Unicode: half a surrogate pair in a name" for row in range(30, 60)}
    assert table["n"].to_pylist() == ["1"] * 30 + [None] * 30 + ['"x"'] * 30


@pytest.mark.parametrize(("start", "end"), ["[]", ('{"a":', "}")])
def test_what_is_deep_stays_json(tmp_path: Path, start: str, end: str) -> None:
    """Parquet of 100 levels cannot be read again, and some hundreds are too many for Python."""
    for depth in (10, 50, 700):
        value = start * depth + "1" + end * depth
        (tmp_path / "x.jsonl").write_text(f'{{"text": "a", "n": {value}}}\n{{"text": "b"}}\n')
        table = read(tmp_path)
        tables.write_table(str(tmp_path / "x.out"), table, {})
        assert tables.read_table(str(tmp_path / "x.out")).num_rows == 2
        if depth > 10:
            assert table["n"].to_pylist() == [value.replace(":", ": "), None]


def test_keys_that_are_data_take_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As columns of their own, each would have a value in every row."""
    rows = [{"text": "a", "map": {f"{row}-{key}": key for key in range(100)}} for row in range(300)]
    written(tmp_path / "x.jsonl", rows)
    monkeypatch.setattr(lines, "ROWS_INFERRED", 300)
    before = pa.default_memory_pool().max_memory()
    assert [json.loads(value) for value in read(tmp_path)["map"].to_pylist()] == [row["map"] for row in rows]
    assert pa.default_memory_pool().max_memory() - before < 30 * 2**20


@pytest.mark.parametrize(("end", "now"), [(".gz", "cut"), (".bz2", "plain"), (".zst", "cut"), (".zst", "plain")])
def test_a_compressed_file_that_is_none_now_has_changed(tmp_path: Path, end: str, now: str) -> None:
    """It is no failure of the store, which would be waited for."""
    data = "".join(f"{json.dumps({'text': hex(row**9)})}\n" for row in range(300)).encode()
    compress = {".gz": gzip.compress, ".bz2": bz2.compress}
    compress[".zst"] = lambda part: pa.compress(part, "zstd", asbytes=True)
    packed = compress[end](data)
    path = tmp_path / f"x.jsonl{end}"
    path.write_bytes(packed)
    last = plan_units(list_shards(str(path), "text").shards, 50, 10**9)[-1]
    path.write_bytes(data if now == "plain" else packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"the file has changed since it was listed; start the run again"):
        read_unit(last)


@pytest.mark.parametrize("name", ["x.jsonl.zst", "x.arrow"])
def test_a_store_that_fails_says_nothing_of_the_file(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """While it is listed or read; answers that break off are asked for again, and a file that is cut is corrupt."""
    data = "".join(f"{json.dumps({'text': hex(row**99)})}\n" for row in range(999)).encode()
    if name.endswith("arrow"):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, pa.schema([("text", pa.string())])) as stream:
            stream.write(pa.record_batch({"text": [hex(row**99) for row in range(999)]}))
        data = sink.getvalue().to_pybytes()
    else:
        data = pa.compress(data, "zstd", asbytes=True)
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    with s3_server() as (endpoint, client), Proxy(endpoint) as proxy:
        point_at(monkeypatch, proxy.url)
        client.put_object(Bucket=BUCKET, Key=name, Body=data)
        uri = f"s3://{BUCKET}/{name}"
        proxy.fail(name, 1, "cut")
        (unit,) = plan_units(list_shards(uri, "text").shards, 999, 10**9)
        assert read_unit(unit).num_rows == 999
        compressed.UNPACKED.clear()
        proxy.fail(name, how="cut")
        with pytest.raises(UserError, match="cannot be read") as listing:
            list_shards(uri, "text")
        with pytest.raises(OSError, match="broke off 2 times") as reading:
            read_unit(unit)
        assert may_pass(listing.value)
        assert may_pass(reading.value)
        proxy.mend()
        assert read_unit(unit).num_rows == 999
        client.put_object(Bucket=BUCKET, Key=name, Body=data[:-50])
        with pytest.raises(UserError, match="no readable file"):
            list_shards(uri, "text")
