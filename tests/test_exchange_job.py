"""`ner-batch import` and `export` as commands: what they take, what they leave out and say, and hostile files."""

import json
import re
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from outputs import row, write_output
from s3_server import BUCKET, point_at, s3_server
from typer.testing import CliRunner

from ner_batch.cli import app
from ner_batch.data import Entity, Prediction, Status, Ungrounded, predictions_table
from ner_batch.exchange import job as exchange
from ner_batch.exchange import json_kinds
from ner_batch.exchange.files import ExportOptions
from ner_batch.exchange.kinds import KINDS, READABLE
from ner_batch.exchange.rows import open_rows
from ner_batch.io.examples import read_examples
from ner_batch.io.storage import list_files


def command(*arguments):
    """Exit code and the lines printed; no traceback."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, (result.stdout if result.exit_code == 0 else result.stderr).splitlines()


def done(*arguments):
    code, lines = command(*arguments)
    assert code == 0, lines
    return lines


def refused(*arguments):
    code, lines = command(*arguments)
    assert (code, len(lines)) == (2, 1), lines
    assert len(lines[0]) < 700
    return lines[0]


def imported(tmp_path, kind, content, *options):
    """The examples of a file of that content as (id, text, spans), and the lines printed."""
    (tmp_path / "in").write_bytes(content if isinstance(content, bytes) else content.encode())
    lines = done("import", kind, tmp_path / "in", tmp_path / "gold.parquet", *options)
    examples = read_examples(str(tmp_path / "gold.parquet"))
    (tmp_path / "gold.parquet").unlink()
    return [(e.id, e.text, [(s.start, s.end, s.type) for s in e.entities]) for e in examples], lines


def lines_of(*values):
    return "\n".join(map(json.dumps, values))


E = Entity
PREDICTIONS = [
    ("Ana saw Rome", Prediction((E(0, 3, "PER", "Ana", 0.9), E(8, 12, "LOC", "Rome", 0.4, False)))),
    ("", Prediction(status=Status.EMPTY)),
    ("Bob 👍 is in Oslo", Prediction((E(0, 3, "PER", "Bob", 0.55, True),), (Ungrounded("X", "PER", "not in text"),))),
    ("broken", Prediction(status=Status.MALFORMED, error="no")),
    ("Cy met Ana", Prediction((E(0, 2, "PER", "Cy", 0.99), E(7, 10, "PER", "Ana", 0.98)))),
    ("gone", Prediction(status=Status.FAILED, error="no")),
]


@pytest.fixture
def run(tmp_path):
    """An extraction's output of two files."""
    for name, part in (("a", PREDICTIONS[:3]), ("b", PREDICTIONS[3:])):
        table = predictions_table([prediction for _, prediction in part])
        table = table.append_column("text", pa.array([text for text, _ in part]))
        (tmp_path / "run").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "run" / f"{name}.parquet")
    (tmp_path / "run" / "_manifest.json").write_text(
        json.dumps({"state": "running", "types": {"news": ["PER", "ORG", "LOC"]}})
    )
    return tmp_path / "run"


def test_predictions_become_pre_annotations(tmp_path, run):
    """Rows that are ok, named by file and number; what is left out is counted, and the config lies beside."""
    lines = done("export", "label-studio", run, tmp_path / "tasks.json", "--model-version", "night 1")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [task["data"]["doc_id"] for task in tasks] == ["a-0", "a-2", "b-1"]
    (prediction,) = tasks[0]["predictions"]
    assert (prediction["model_version"], round(prediction["score"], 2)) == ("night 1", 0.9)
    assert [result["value"]["labels"] for result in prediction["result"]] == [["PER"]]
    labels = re.findall('<Label value="(.*)"/>', (tmp_path / "tasks.xml").read_text())
    assert labels == ["PER", "ORG", "LOC"]  # the task's, whether the model has named any or not
    assert lines[-1] == f"{tmp_path / 'tasks.json'}: 3 texts, 4 entities: PER 4"
    for line in (
        "1 rows of status empty, left out",
        "1 rows of status malformed, left out",
        "1 rows of status failed, left out",
        "1 entities that verification rejected, left out",
        "1 mentions that are not in their text (ungrounded), left out",
        f"{run}: its manifest says that the run is not complete",
    ):
        assert line in lines
    assert "is there already" in refused("export", "label-studio", run, tmp_path / "tasks.json")
    (tmp_path / "tasks.json").unlink()
    assert "tasks.xml: is there already" in refused("export", "label-studio", run, tmp_path / "tasks.json")


def test_the_flat_table_of_mentions(tmp_path, run):
    """A row per mention with score and verdict, rejected ones too."""
    done("export", "mentions", run, tmp_path / "m.parquet", "--status", "ok", "--status", "partial")
    table = pq.read_table(tmp_path / "m.parquet")
    assert table.column_names == ["id", "start", "end", "type", "text", "score", "verified", "task"]
    rows = table.to_pylist()
    assert [(row["id"], row["text"], row["verified"]) for row in rows] == [
        ("a-0", "Ana", None),
        ("a-0", "Rome", False),
        ("a-2", "Bob", True),
        ("b-1", "Cy", None),
        ("b-1", "Ana", None),
    ]
    assert "end in .parquet" in refused("export", "mentions", run, tmp_path / "m.csv")


def test_entities_of_several_tasks(tmp_path):
    """One is chosen, or they are refused; the table of mentions has them side by side."""
    table = predictions_table(
        [Prediction((E(0, 3, "PER", "Ana", task="a"), E(0, 3, "X", "Ana", task="b")))], tagged=True
    )
    pq.write_table(table.append_column("text", pa.array(["Ana"])), tmp_path / "run.parquet")
    assert "several tasks (a, b)" in refused("export", "prodigy", tmp_path / "run.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done("export", "prodigy", tmp_path / "run.parquet", tmp_path / "out", "--task", "b")
    assert [s["label"] for s in json.loads((tmp_path / "out").read_text())["spans"]] == ["X"]
    done("export", "mentions", tmp_path / "run.parquet", tmp_path / "m.parquet")
    assert pq.read_table(tmp_path / "m.parquet")["task"].to_pylist() == ["a", "b"]


def test_the_task_of_a_run_of_one_may_be_named(tmp_path, run):
    """Its entities carry no task's name; one that the run had not is refused, with those that it had."""
    done("export", "prodigy", run, tmp_path / "all.jsonl")
    done("export", "prodigy", run, tmp_path / "news.jsonl", "--task", "news")
    assert (tmp_path / "news.jsonl").read_text() == (tmp_path / "all.jsonl").read_text()
    line = refused("export", "prodigy", run, tmp_path / "none.jsonl", "--task", "mews")
    assert line == "error: --task: no task 'mews' in this run; there are news"


def test_gold_is_imported_under_the_name_of_its_kind(tmp_path, run):
    """Parquet that is called JSON lines would be read as such."""
    done("export", "prodigy", run, tmp_path / "in.jsonl")
    assert "let it end in .parquet" in refused("import", "prodigy", tmp_path / "in.jsonl", tmp_path / "gold.jsonl")
    assert not (tmp_path / "gold.jsonl").exists()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_by_command(tmp_path, run, kind):
    """An extraction goes out, and what comes back are its texts (with `words`, but for white space)."""
    out = tmp_path / {"spacy": "o.spacy", "mentions": "o.parquet", "label-studio": "o.json"}.get(kind, "o")
    done("export", kind, run, out)
    if kind in READABLE:
        more = ["--predictions"] if kind == "label-studio" else []
        done("import", kind, out, tmp_path / "gold.parquet", *more)
        examples = read_examples(str(tmp_path / "gold.parquet"))
        assert [e.text for e in examples] == [PREDICTIONS[n][0] for n in (0, 2, 4)]
        assert [[s.text for s in e.entities] for e in examples] == [["Ana"], ["Bob"], ["Cy", "Ana"]]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("place", ["s3", "memory"])
def test_places_that_are_no_disk(tmp_path, run, monkeypatch, place):
    """A file is uploaded whole and read from there; a folder of files is refused before a row is read."""
    with s3_server() if place == "s3" else nullcontext((None, None)) as (endpoint, _):
        if endpoint:
            point_at(monkeypatch, endpoint)
        folder = f"{place}://{BUCKET}/{tmp_path.name}"
        done("export", "label-studio", run, f"{folder}/tasks.json")
        done("import", "label-studio", f"{folder}/tasks.json", f"{folder}/gold.parquet", "--predictions")
        done("export", "columns", f"{folder}/gold.parquet", f"{folder}/gold.conll")
        assert "local disk" in refused("export", "brat", run, f"{folder}/brat")
        assert "is there already" in refused("export", "columns", run, f"{folder}/gold.conll")
        names = [file.name for file in list_files(folder)]
    assert names == ["gold.conll", "gold.parquet", "tasks.json", "tasks.xml"]


def test_a_folder_of_docbins(tmp_path, run):
    """Without .spacy it is a folder, as `spacy train` takes one."""
    done("export", "spacy", run, tmp_path / "corpus")
    assert [path.name for path in (tmp_path / "corpus").iterdir()] == ["part-00000.spacy"]
    assert "xq" in refused("export", "spacy", run, tmp_path / "other.spacy", "--language", "xq")


def test_prodigy_rows(tmp_path):
    """Rejected, ignored and unannotated rows are left out; an accepted one may have nothing."""
    row = {"text": "Ana", "spans": [{"start": 0, "end": 3, "label": "PER", "token_start": 0}]}
    content = lines_of(
        {**row, "answer": "accept", "meta": {"id": 7}},
        *({**row, "answer": answer} for answer in ("reject", "ignore")),
        {"text": "raw"},
        {"text": "none", "answer": "accept"},
    )
    examples, lines = imported(tmp_path, "prodigy", content, "--name", "x")
    assert examples == [("7", "Ana", [(0, 3, "PER")]), ("x-000004", "none", [])]
    assert {"1 rows with the answer reject, left out", "1 rows without answer and spans, left out"} <= {*lines}


def test_doccano_rows_of_both_shapes(tmp_path):
    """As it imports and as it exports; offsets are JavaScript's."""
    content = lines_of(
        {"id": 3, "text": "👍 Ana", "label": [[3, 6, "PER"]]},
        {
            "id": 4,
            "text": "Bo",
            "entities": [{"id": 1, "start_offset": 0, "end_offset": 2, "label": "PER"}],
            "relations": [],
        },
        {"id": 5, "text": "unread"},
    )
    examples, lines = imported(tmp_path, "doccano", content)
    assert examples == [("3", "👍 Ana", [(2, 5, "PER")]), ("4", "Bo", [(0, 2, "PER")])]
    assert "1 rows without label or entities, left out" in lines


def label_studio_task(text, start, end, words, **more):
    value = {"start": start, "end": end, "labels": ["PER"], **({} if words is None else {"text": words})}
    result = [{"type": "labels", "value": value, "from_name": "l", "to_name": "t"}, {"type": "choices", "value": {}}]
    return {"id": 1, "data": {"text": text}, "annotations": [{"result": result}], **more}


@pytest.mark.parametrize(
    ("text", "start", "end", "words", "unit", "span"),
    [
        ("👍 Ana", 2, 5, "Ana", None, (2, 5)),
        ("👍 Ana", 3, 6, "Ana", "utf-16", (2, 5)),
        ("a\r\nAna", 3, 6, "Ana", None, (3, 6)),
        ("a\r\n\r\nAna", 3, 6, "Ana", None, (5, 8)),  # counted as one character each
        ("Ana\nBo", 0, 6, "Ana\\nBo", None, (0, 6)),  # its editor's way to write a line break
        ("Ana", 0, 3, None, None, (0, 3)),
    ],
)
def test_offsets_of_label_studio(tmp_path, text, start, end, words, unit, span):
    """The words of a result decide where CR LF was counted as one; results of other kinds are counted."""
    options = ["--offsets", unit] if unit else []
    content = json.dumps([label_studio_task(text, start, end, words)])
    ((_, _, spans),), lines = imported(tmp_path, "label-studio", content, *options)
    assert spans == [(*span, "PER")]
    assert "1 results of type 'choices', left out" in lines


def test_tasks_of_label_studio(tmp_path):
    """Cancelled, repeated and absent annotations; another field; predictions instead."""
    one = label_studio_task("Ana", 0, 3, "Ana")
    tasks = [
        {**one, "annotations": [{"was_cancelled": True, "result": []}, *one["annotations"], {"result": []}]},
        {**one, "id": 2, "annotations": [], "predictions": one["annotations"]},
    ]
    examples, lines = imported(tmp_path, "label-studio", json.dumps(tasks))
    assert examples == [("1", "Ana", [(0, 3, "PER")])]
    assert {"1 annotations of a task after its first, left out", "1 tasks without annotations, left out"} <= {*lines}
    examples, _ = imported(tmp_path, "label-studio", json.dumps(tasks), "--predictions")
    assert examples == [("2", "Ana", [(0, 3, "PER")])]
    (tmp_path / "in").write_text(json.dumps([{"id": 1, "data": {"body": "x"}, "annotations": [{"result": []}]}]))
    assert "--text-field" in refused("import", "label-studio", tmp_path / "in", tmp_path / "g")
    done("import", "label-studio", tmp_path / "in", tmp_path / "g", "--text-field", "body")


def test_brat_folders(tmp_path):
    """Entities over a line's end are one, others with gaps are left out; relations and unread texts too."""
    folder = tmp_path / "brat" / "sub"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_bytes("New\r\nYork Zoé and Ana".encode())
    (folder / "a.ann").write_text(
        "T1\tLOC 0 3;5 9\tNew York\nT2\tPER 10 13;18 21\tZoé Ana\nR1\tIn Arg1:T1 Arg2:T2\n#1\tNote T1\tx\nT3\tPER 18 21\tAna\n"
    )
    (folder / "b.txt").write_text("unread")
    lines = done("import", "brat", tmp_path / "brat", tmp_path / "g.parquet")
    (example,) = read_examples(str(tmp_path / "g.parquet"))
    assert (example.id, [(e.text, e.type) for e in example.entities]) == (
        "sub/a",
        [("New\r\nYork", "LOC"), ("Ana", "PER")],
    )
    for words in ("1 entities with gaps", "2 annotations that are no entities", "1 texts without .ann"):
        assert any(line.startswith(words) for line in lines)
    (folder / "c.ann").write_text("")
    assert "there is no sub/c.txt beside it" in refused("import", "brat", tmp_path / "brat", tmp_path / "h.parquet")


def test_mrc_rows(tmp_path):
    """Official rows: words inclusive, spans as "s;e", a row per type; Chinese characters are joined by nothing."""
    row = {"context": "中 共 中 央 在 京", "query": "q", "impossible": False}
    content = json.dumps(
        [
            {
                **row,
                "entity_label": "NT",
                "qas_id": "0.1",
                "start_position": [0],
                "end_position": [3],
                "span_position": ["0;3"],
            },
            {**row, "entity_label": "NS", "qas_id": "0.2", "start_position": [5], "end_position": [5]},
            {
                **row,
                "entity_label": "NS",
                "qas_id": "1.1",
                "start_position": [],
                "end_position": [],
                "impossible": True,
            },
        ]
    )
    examples, _ = imported(tmp_path, "mrc", content)
    assert examples == [("0", "中共中央在京", [(0, 4, "NT"), (5, 6, "NS")]), ("1", "中共中央在京", [])]


def test_langextract_documents(tmp_path):
    """What it did not place, or placed on other words, is left out."""
    extraction = {"extraction_class": "PER", "extraction_text": "Ana", "attributes": {}}
    places = [{"start_pos": 0, "end_pos": 3}, None, {"start_pos": 4, "end_pos": 7}]
    row = {"document_id": "d", "text": "Ana und", "extractions": [{**extraction, "char_interval": p} for p in places]}
    examples, lines = imported(tmp_path, "langextract", lines_of(row))
    assert examples == [("d", "Ana und", [(0, 3, "PER")])]
    assert "1 extractions without a place, left out" in lines
    assert "1 extractions whose words differ from the text, left out" in lines


@pytest.mark.parametrize(
    "content", ["EU\tNNP B-ORG\nrejects VBZ\tO\n", "EU \tB-ORG\nrejects\t O\t\n", "EU B-ORG\nrejects\tO\n"]
)
def test_tabs_and_spaces_mixed(tmp_path, content):
    """Within a line and from line to line; but a space within a tab's cell is the token's own."""
    examples, lines = imported(tmp_path, "columns", content)
    assert [(text, spans) for _, text, spans in examples] == [("EU rejects", [(0, 2, "ORG")])]
    assert ("2 lines parted at tabs and at spaces alike" in lines) == (content[-3:] != "\tO\n" or "NNP" in content)
    examples, _ = imported(tmp_path, "columns", "New York\tB-LOC\nis\tO\n", "--join", "space")
    assert [(text, spans) for _, text, spans in examples] == [("New York is", [(0, 8, "LOC")])]
    (tmp_path / "in").write_text("New York\tB-LOC\nis here now\tV O\n")
    assert "line 2: " in refused("import", "columns", tmp_path / "in", tmp_path / "g.parquet")


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("cluener", "--token-column", "0"),
        ("cluener", "--join", "space"),
        ("w2ner", "--numbered", None),
        ("columns", "--offsets", "utf-16"),
        ("brat", "--text-field", "x"),
        ("hf", "--predictions", None),
        ("columns", "--join", "tabs"),
        ("doccano", "--offsets", "bytes"),
    ],
)
def test_options_of_other_kinds(tmp_path, kind, option, value):
    """Refused by name, even where the value is the default; nothing is read."""
    line = refused("import", kind, tmp_path / "none", tmp_path / "g", option, *([value] if value else []))
    assert option in line
    assert "leave it out" in line or "known are" in line


TEXT, SPAN = {"text": "abc"}, {"start": 0, "end": 3, "label": "X"}


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        *((kind, b"", "no annotated text") for kind in ("hf", "prodigy", "doccano", "label-studio", "mrc", "langextract")),
        *((kind, b'{"text": "a', "not JSON") for kind in ("hf", "prodigy", "spacy-jsonl", "doccano", "mrc")),
        *((kind, b"[1, 2]", "row 0") for kind in ("hf", "prodigy", "doccano", "label-studio", "mrc", "langextract")),
        *((kind, b"\xff\xfe\x00", "not UTF-8") for kind in ("hf", "columns", "prodigy", "label-studio", "mrc")),
        ("spacy", b"\x00\x01\x02", "not a DocBin"),
        ("spacy", b"", "not a DocBin"),
        ("hf", b"PAR1 and no more", "not a readable Parquet"),
        ("hf", lines_of({"tokens": ["a", "b"], "ner_tags": ["O"]}), "2 tokens and 1 tags"),
        ("hf", lines_of({"tokens": ["a"], "tags": [True]}), "tags"),
        ("hf", lines_of({"tokens": ["a"]}), "no ner_tags"),
        ("hf", lines_of({"tokens": ["a"], "labels": [10**50]}), "does not name its tags"),
        ("prodigy", lines_of({**TEXT, "spans": [{**SPAN, "end": 4}]}), "no span of its 3 characters"),
        ("prodigy", lines_of({**TEXT, "spans": [{**SPAN, "end": 10**400}]}), "no span"),
        ("prodigy", b'{"text": "abc", "spans": [{"start": 0, "end": ' + b"9" * 5000 + b', "label": "X"}]}', "not JSON"),
        ("prodigy", lines_of({**TEXT, "spans": [{**SPAN, "start": -1}]}), "no span"),
        ("prodigy", lines_of({**TEXT, "spans": [{**SPAN, "start": 3}]}), "no span"),
        ("prodigy", lines_of({**TEXT, "spans": [{**SPAN, "start": float("nan")}]}), "spans.0.start"),
        ("prodigy", lines_of({**TEXT, "spans": [{**SPAN, "start": 0.0}]}), "spans.0.start"),
        ("prodigy", lines_of({**TEXT, "spans": [{**SPAN, "label": "a\nerror: b"}]}), "cannot be printed"),
        ("prodigy", lines_of({**TEXT, "spans": [{**SPAN, "label": ""}]}), "label"),
        ("prodigy", lines_of({**TEXT, "spans": [], "answer": "maybe"}), "maybe"),
        ("prodigy", lines_of({"text": None, "spans": []}), "text"),
        ("prodigy", b'{"text": "a\\ud800b", "spans": []}', "surrogate"),
        ("prodigy", b'{"text": 1, "x\\ud800": 2, "answer": "\\ud800", "spans": "\\ud800"}', "in line 1"),
        ("doccano", lines_of({"text": "👍a", "label": [[1, 3, "X"]]}), "no span of its 3 characters"),
        ("doccano", lines_of({"id": 1, **TEXT, "label": []}, {"id": 1, **TEXT, "label": []}), "have the id '1'"),
        ("label-studio", json.dumps([label_studio_task("👍 Ana", 3, 6, "Ana")]), "--offsets utf-16"),
        ("label-studio", json.dumps([label_studio_task("Bob Ana", 0, 3, "Ana")]), "correct it"),
        ("label-studio", json.dumps([label_studio_task("Ana", 0, 99, None)]), "no span"),
        ("label-studio", json.dumps([{"data": {"text": "a"}, "annotations": [{"result": 1}]}]), "list of results"),
        ("label-studio", json.dumps([{"data": {"text": "a"}, "annotations": []}]), "without annotations"),
        ("mrc", json.dumps([{"context": "a b", "entity_label": "X", "span_position": ["0;2"]}]), "outside of its 2 words"),
        ("mrc", json.dumps([{"context": "a b", "entity_label": "X", "start_position": [0], "end_position": []}]), "1 starts"),
        ("mrc", json.dumps([{"context": "a", "entity_label": "X", "qas_id": "0.1"}, {"context": "b", "entity_label": "Y", "qas_id": "0.2"}]), "another context"),
        ("brat", b"x", "not a folder"),
    ],
)  # fmt: skip
def test_hostile_files(tmp_path, kind, content, message):
    """One line with the place; nothing is written."""
    (tmp_path / "line 1").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message.replace("in line 1", "line 1") in refused(
        "import", kind, tmp_path / "line 1", tmp_path / "g.parquet"
    )
    assert not (tmp_path / "g.parquet").exists()


@pytest.mark.parametrize("kind", [kind for kind in READABLE if kind != "brat"])
def test_a_folder_and_nothing_for_a_file(tmp_path, kind):
    """Both are one line for every kind."""
    refused("import", kind, tmp_path, tmp_path / "g.parquet")
    refused("import", kind, tmp_path / "absent", tmp_path / "g.parquet")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("T1 PER 0 3 Ana", "is not like"),
        ("T1\tPER 0 3\tBob", "reads 'Ana'"),
        ("T1\tPER 0 99\tAna", "no span"),
        ("T1\tPER 3 0\tAna", "no span"),
        ("T1\tPER 0 99999999999\tAna", "is not like"),
    ],
)
def test_annotations_of_brat_that_are_wrong(tmp_path, line, message):
    """Named by file and line where they have one."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_text("Ana")
    (tmp_path / "b" / "x.ann").write_text(line)
    assert message in refused("import", "brat", tmp_path / "b", tmp_path / "g.parquet")


GOLD = {"id": ["1"], "text": ["abc"], "entities": [[{"start": 0, "end": 3, "type": "X", "text": "abc"}]]}
ENTITY = GOLD["entities"][0][0]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"text": [None]}, [], "text is null"),
        ({"entities": [None]}, [], "entities is null"),
        ({"entities": [[{**ENTITY, "end": 4}]]}, [], "reads None"),
        ({"entities": [[{**ENTITY, "text": "abd"}]]}, [], "reads 'abc'"),
        ({"entities": [[{**ENTITY, "type": "a\nb"}]]}, [], "cannot be printed"),
        ({"entities": [[{**ENTITY, "score": float("nan")}]]}, [], "no probability"),
        ({"entities": [["x"]]}, [], "not a list of"),
        ({"id": [1.5]}, [], "id is float"),
        (
            {
                "entities": pa.array([], pa.list_(pa.null())),
                "text": pa.array([], pa.string()),
                "id": pa.array([], pa.string()),
            },
            [],
            "has no rows",
        ),
        ({"status": ["good"]}, [], "status 'good'"),
        ({"status": ["failed"]}, [], "nothing to export"),
        ({}, ["--status", "ok"], "no column 'status'"),
        ({"status": ["ok"]}, ["--status", "fine"], "known are ok"),
        ({}, ["--id-column", "key"], "no column 'key'"),
        ({}, ["--text-column", "body"], "no column 'body'"),
        ({}, ["--select", "random", "--count", "1"], "no column 'status'"),
        ({}, ["--count", "1"], "only with --select"),
        ({"status": ["ok"]}, ["--select", "best", "--count", "1"], "known are uncertain"),
        ({"status": ["ok"]}, ["--select", "random"], "needs --count"),
        ({"status": ["ok"]}, ["--select", "disagreement", "--count", "1"], "--against"),
        ({"status": ["ok"]}, ["--select", "random", "--count", "1", "--spread"], "--spread"),
        ({"status": ["ok"]}, ["--select", "random", "--count", "1", "--status", "ok"], "leave it out"),
        ({}, ["--scheme", "BIO"], "not an option of the kind prodigy"),
    ],
)
def test_rows_and_options_that_cannot_be_exported(tmp_path, change, options, message):
    """One line, and nothing is left behind."""
    pq.write_table(pa.table({**GOLD, **change}), tmp_path / "in.parquet")
    assert message in refused("export", "prodigy", tmp_path / "in.parquet", tmp_path / "out", *options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_ids_that_name_no_files(tmp_path):
    """brat's files are named by ids: two of one name and an empty one are refused, strange ones come back."""
    strange = ["../up", "a/b", ".hidden", "nul\0", "con:%41", "Ä\n"]
    for ids, message in (
        (strange, None),
        (["a", "a"], "names two texts"),
        ([""], "cannot name"),
        (["x" * 300], "cannot name"),
    ):
        table = pa.table({"id": ids, "text": ["abc"] * len(ids), "entities": GOLD["entities"] * len(ids)})
        pq.write_table(table, tmp_path / "in.parquet")
        if message:
            assert message in refused("export", "brat", tmp_path / "in.parquet", tmp_path / "out")
        else:
            done("export", "brat", tmp_path / "in.parquet", tmp_path / "brat")
            done("import", "brat", tmp_path / "brat", tmp_path / "g.parquet")
            assert sorted(e.id for e in read_examples(str(tmp_path / "g.parquet"))) == sorted(strange)
        assert {path.name for path in tmp_path.iterdir()} == {"in.parquet", "brat", "g.parquet"}


def test_gold_and_output_in_one_folder_are_refused(tmp_path):
    """As gold, the rows of the output that no model has read would count as read, without entities."""
    for name, columns in (("a", ["text", "entities", "status"]), ("b", ["text", "entities"])):
        table = predictions_table([Prediction(status=Status.FAILED)])
        pq.write_table(table.append_column("text", pa.array(["Ada"])).select(columns), tmp_path / f"{name}.parquet")
    line = refused("export", "prodigy", tmp_path, tmp_path / "out.jsonl")
    assert "b.parquet: no column 'status', which others have" in line
    assert not (tmp_path / "out.jsonl").exists()


def test_tasks_do_not_stay_without_their_config(tmp_path, monkeypatch):
    """Where the config cannot be written, what was written before it goes again."""
    pq.write_table(predictions_table([Prediction()]).append_column("text", pa.array(["Ada"])), tmp_path / "run.parquet")
    monkeypatch.setattr(json_kinds, "labels_config", lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        exchange.export("label-studio", open_rows(str(tmp_path)), str(tmp_path / "tasks.json"), ExportOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["run.parquet"]


def test_columns_are_those_of_the_run(tmp_path):
    """What was read and what named rows, by the manifest: a field of a column that the run renamed, and another column."""
    texts = ["Anna met Li.", "Nobody came."]
    rows = [row("x", texts[0], ("Anna", "PER")), row("y", texts[1])]
    documents = [{"body": text} for text in texts]
    folder = write_output(tmp_path / "out", rows, document=documents, number=["one", "two"])
    for file in Path(folder).glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.drop_columns(["id", "text"]), file)
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    manifest["config"]["input"] |= {"text_column": "doc.body", "id_column": "number", "rename": {"doc": "document"}}
    (tmp_path / "out" / "_manifest.json").write_text(json.dumps(manifest))
    done("export", "spacy-jsonl", folder, str(tmp_path / "out.jsonl"))
    exported = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["text"] for line in exported] == texts
    assert "one" in json.dumps(exported[0])
    done("report", folder)
    page = (tmp_path / "out" / "_report.html").read_text()
    assert "Anna met Li." in page
    assert '"two"' in page
