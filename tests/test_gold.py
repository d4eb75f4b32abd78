"""Gold examples: read as they are written, and what is wrong with them is named by file and row."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ner_batch import retrieval
from ner_batch.data import Entity, Example
from ner_batch.io.examples import examples_digest, examples_table, read_examples

EXAMPLES = [
    Example("1", "Anna sings.", (Entity(0, 4, "PER", "Anna"),)),
    Example("2", "𠀀👩‍👩‍👧 在北京大学。", (Entity(8, 10, "LOC", "北京"), Entity(8, 12, "ORG", "北京大学"))),
    Example("3", "nothing", ()),
]


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


SPAN = {"start": 0, "end": 4, "type": "PER", "text": "Anna"}


def write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return str(path)


def test_gold_is_read_as_it_is_written(tmp_path: Path) -> None:
    """examples_table and read_examples are inverse; other columns and surfaces that were left out do not matter."""
    pq.write_table(examples_table(EXAMPLES), tmp_path / "gold.parquet")
    assert read_examples(str(tmp_path / "gold.parquet")) == EXAMPLES
    bare = {name: SPAN[name] for name in ("start", "end", "type")}
    path = write(tmp_path / "loose.parquet", [{"source": {"page": 3}, "text": "Anna sings.", "entities": [bare]}])
    assert read_examples(path) == [Example("loose-0", "Anna sings.", (Entity(0, 4, "PER", "Anna"),))]


def test_a_folder_of_gold_is_read_in_order(tmp_path: Path) -> None:
    """All files of rows below a folder, by name; a file that never saw an entity has none."""
    write(
        tmp_path / "b.parquet",
        [{"id": "2", "text": "Two.", "entities": []}, {"id": "3", "text": "Anna.", "entities": [SPAN]}],
    )
    write(tmp_path / "a" / "x.parquet", [{"id": "1", "text": "One.", "entities": []}])
    (tmp_path / "README.md").write_text("not data")
    assert [example.id for example in read_examples(str(tmp_path))] == ["1", "2", "3"]
    (tmp_path / "c.jsonl").write_text('{"text": "Four.", "entities": []}\n')
    assert read_examples(str(tmp_path / "c.jsonl")) == [Example("c-0", "Four.", ())]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "Bob.", "entities": [SPAN]}, r"row 1: entity \[0, 4\) PER reads 'Bob.'"),
        ({"text": "Bob.", "entities": [{**SPAN, "end": 9}]}, "row 1: entity"),
        ({"text": "Bob.", "entities": [{**SPAN, "start": None}]}, "row 1: an entity without start"),
        ({"text": None, "entities": [SPAN]}, "row 1: text is null"),
        ({"text": "Anna", "entities": None}, r"row 1: entities is null: \[\] means"),
        (
            {"text": "A     B", "entities": [{**SPAN, "start": 1, "end": 5, "text": "    "}]},
            "row 1: .*white space alone",
        ),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    """A wrong span or a missing text names file and row."""
    path = write(tmp_path / "gold.parquet", [{"text": "Anna sings.", "entities": [SPAN]}, row])
    with pytest.raises(ValueError, match=said) as error:
        read_examples(path)
    assert one_line(error).startswith(path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "Anna"}, "no column 'entities' among text"),
        ({"tekst": "Anna", "entities": [SPAN]}, "no column 'text'; there are tekst, entities"),
        ({"text": 3, "entities": [SPAN]}, "column 'text' is int64, not string"),
        (
            {"text": "Anna", "entities": [{"start": 0.0, "end": 4.0, "type": "PER"}]},
            "row 0: entity from 0.0 to 4.0: offsets are whole numbers",
        ),
        ({"text": "Anna", "entities": [{**SPAN, "type": 5}]}, "row 0: entity .* has the type 5: a string is needed"),
        ({"text": "Anna", "entities": ["Anna"]}, "column 'entities' is list"),
        ({"text": "Anna", "entities": "Anna"}, "column 'entities' is string"),
        ({"text": "Anna", "entities": [{"start": 0, "end": 4}]}, "column 'entities' is list"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    """A missing column, and one of another type, name the file and what is there."""
    path = write(tmp_path / "gold.parquet", [row])
    with pytest.raises(ValueError, match=said) as error:
        read_examples(path)
    assert one_line(error).startswith(path)


def test_unreadable_gold_is_one_line(tmp_path: Path) -> None:
    """Nothing there, a folder without files of rows, and a file that is none."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.parquet").write_text("not parquet at all")
    for name, said in (
        ("nowhere", "no such file"),
        ("empty", "no file of rows"),
        ("notes.parquet", "no readable file"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            read_examples(str(tmp_path / name))
        assert name in one_line(error)


def test_the_digest_names_a_set_of_examples(tmp_path: Path) -> None:
    """Ids, texts, spans, their order and what else is said decide; an index built in version 0.1 keeps its fingerprint."""
    reversed_, changed = EXAMPLES[::-1], [*EXAMPLES[:2], Example("3", "nothing", (Entity(0, 7, "PER", "nothing"),))]
    named = [*EXAMPLES[:2], Example("4", "nothing", ())]
    digests = [examples_digest(examples) for examples in (EXAMPLES, reversed_, changed, named, EXAMPLES[:2], [])]
    digests.append(examples_digest(EXAMPLES, after="more"))
    assert len(set(digests)) == len(digests)
    assert examples_digest(iter(EXAMPLES)) == digests[0]
    assert retrieval.build(EXAMPLES, "random", tmp_path / "index").fingerprint == "a45e80975721e7a7"


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_gold_text_may_be_of_any_kind_of_string(tmp_path: Path, kind: pa.DataType) -> None:
    """As pandas (categories) and Polars (views) write it, with any suffix a corpus may have."""
    table = examples_table(EXAMPLES)
    pq.write_table(table.set_column(1, "text", table["text"].cast(kind)), tmp_path / "gold.parq")
    assert read_examples(str(tmp_path)) == EXAMPLES


def test_white_space_at_the_edges_of_a_span_is_trimmed(tmp_path: Path) -> None:
    """What label-studio and doccano take along; no answer can name it."""
    span = {"start": 0, "end": 11, "type": "PER", "text": "Anna Smith "}
    spans = [span, {"start": 14, "end": 20, "type": "PER", "text": "\u00a0Bob.\n"}]
    path = write(tmp_path / "gold.parquet", [{"id": "1", "text": "Anna Smith met\u00a0Bob.\n", "entities": spans}])
    (example,) = read_examples(path)
    assert example.entities == (Entity(0, 10, "PER", "Anna Smith"), Entity(15, 19, "PER", "Bob."))


def test_all_wrong_rows_are_counted(tmp_path: Path) -> None:
    """The first ten are named, over all files."""
    rows = [{"text": "Bob.", "entities": [SPAN]}] * 60
    write(tmp_path / "a.parquet", rows)
    write(tmp_path / "b.parquet", rows)
    with pytest.raises(ValueError) as caught:
        read_examples(str(tmp_path))
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert "a.parquet row 9: entity" in lines[9]
    assert lines[10] == f"{tmp_path}: and 110 more rows are wrong"
