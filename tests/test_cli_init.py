"""`ner-batch init`: configs that run as they are, whatever the labels and paths are called; nothing is overwritten."""

import gzip
import os
import pty
import subprocess
import sys
from pathlib import Path

import jsonschema
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny import BASE, FILES
from typer.testing import CliRunner

from ner_batch.cli import app
from ner_batch.command import project
from ner_batch.command.schema import config_class, json_schema
from ner_batch.config import core_value, load, read_yaml
from ner_batch.task import load_task

LABELS = ["--label", "PER=a person", "--label", "地名/GPE=城市, 国家: 等", "--label", "NO", "--label", "Work of art"]


def invoke(*arguments):
    """(exit code, stdout lines, stderr lines)."""
    result = CliRunner().invoke(app, ["init", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout.splitlines(), result.stderr.splitlines()


def test_a_project_runs_as_it_is(tmp_path, monkeypatch):
    """Every job's checks pass in the folder, where model, texts and gold exist; relative paths go on to mean the same."""
    from ner_batch.evaluate import job as evaluation
    from ner_batch.extraction import plan as extraction
    from ner_batch.jobs import index
    from ner_batch.train import plan as training

    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(BASE.parent)
    gold = pq.read_table(FILES / "gold" / "train.parquet").slice(0, 40)
    pq.write_table(gold.drop(["entities"]), tmp_path / "texts.parquet")
    names = sorted({entity["type"] for row in gold["entities"].to_pylist() for entity in row})
    labels = [word for name in names for word in ("--label", f"{name}=a {name.lower()}")]
    given = ["--model", "models/base", "--input", "texts.parquet", "--output", "here/entities"]
    code, out, err = invoke("my project", *labels, *given)
    assert (code, err) == (0, [])
    assert "cd 'my project'" in out
    assert [line.split()[1] for line in out if line.startswith("ner-batch")] == [
        "doctor",
        "extract",
        "extract",
        "report",
    ]
    (tmp_path / "my project" / "gold").mkdir()
    for split in ("train", "test"):
        pq.write_table(gold, tmp_path / "my project" / "gold" / f"{split}.parquet")
    pq.write_table(gold, tmp_path / "my project" / "test-entities")

    monkeypatch.chdir("my project")
    configs = {kind: load(config_class(kind), f"{kind}.yaml") for kind in project.KINDS if kind != "task"}
    plan = extraction.prepare(configs["extract"])
    assert plan.rows == 40
    assert Path(configs["extract"].output.path).resolve() == tmp_path / "here" / "entities"
    assert list(load_task("task.yaml").names) == names
    assert index.prepare(configs["index"]).report
    assert training.prepare(configs["train"]).report
    assert evaluation.prepare(configs["evaluate"]).report
    for kind in project.KINDS:
        text = Path(f"{kind}.yaml").read_text(encoding="utf-8")
        first, values = text.partition("\n")[0], core_value(read_yaml(f"{kind}.yaml"))
        written = yaml.safe_load(Path(first.removeprefix("# yaml-language-server: $schema=")).read_text())
        assert written == json_schema(kind)
        jsonschema.Draft7Validator(written).validate(values)
        assert "$" not in text.removeprefix(first)


def test_nothing_is_overwritten(tmp_path):
    """One file that is there is enough, and no other is written; --force replaces it."""
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "train.yaml").write_text("mine")
    arguments = [folder, *LABELS, "--model", "m", "--input", "s3://bucket/corpus"]
    code, out, (line,) = invoke(*arguments)
    assert (code, out) == (2, [])
    assert str(folder / "train.yaml") in line
    assert "--force" in line
    assert [path.name for path in folder.iterdir()] == ["train.yaml"]
    assert invoke(*arguments, "--force")[0] == 0
    assert load_task(str(folder / "task.yaml")).names == ("PER", "地名/GPE", "NO", "Work of art")
    values = load(config_class("extract"), folder / "extract.yaml")
    assert (values.input.path, values.engine.model, values.output.path) == ("s3://bucket/corpus", "m", "entities")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--label", "A"], "--model, --input"),
        (["--label", "a:b", "--model", "m", "--input", "i"], "label 'a:b'"),
        (["--label", "A", "--label", "A=b", "--model", "m", "--input", "i"], "--label A: given twice"),
        (["--label", "=b", "--model", "m", "--input", "i"], "label ''"),
        (["--label", "A=\udcff", "--model", "m", "--input", "i"], "not UTF-8"),
        (["--language", "de"], "--language"),
    ],
)
def test_what_is_refused(tmp_path, arguments, words):
    """One line, and no file."""
    code, out, (line,) = invoke(tmp_path / "p", *arguments)
    assert (code, out) == (2, [])
    assert words in line
    assert not (tmp_path / "p").exists()


def test_places_that_cannot_be_written(tmp_path):
    """A file in the folder's place, and a bucket."""
    (tmp_path / "file").write_text("")
    rest = ["--label", "A", "--model", "m", "--input", "i"]
    for folder in (tmp_path / "file", tmp_path / "file" / "below", "s3://bucket/p"):
        code, _, (line,) = invoke(folder, *rest)
        assert code == 2
        assert "folder" in line


def test_the_columns_of_the_input(tmp_path, monkeypatch):
    """A column of texts of another name is asked for before an engine starts; a name that is not there yet is told."""
    monkeypatch.chdir(tmp_path)
    rest = ["--label", "A", "--model", "m", "--input", "mail"]
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "x.csv").write_text("ticket_id;body, if any;c\n1;Anna;2\n")
    code, _, (line,) = invoke("p", *rest)
    assert (code, line) == (
        2,
        "error: --text-column: mail has the columns ticket_id, body, if any, c: name the one of texts",
    )
    assert not (tmp_path / "p").exists()
    code, _, (line,) = invoke("p", *rest, "--text-column", "c", "--id-column", "id")
    assert (code, line) == (0, "--id-column id: not among the columns ticket_id, body, if any, c of mail")
    assert invoke("p", *rest, "--text-column", "c", "--id-column", "ticket_id", "--force")[2] == []
    source = load(config_class("extract"), "p/extract.yaml").input
    assert (source.text_column, source.id_column) == ("c", "ticket_id")
    (tmp_path / "mail" / "x.csv").unlink()
    for name, content in (
        ("x.jsonl", b'{"doc": {"body": "x"}, "id": 1}\n'),
        ("x.jsonl.gz", gzip.compress(b'{"doc": 2}')),
        ("x.csv", b"\x00" * 99),
        ("x.parquet", b"PAR1 no more"),
    ):
        (tmp_path / "mail" / name).write_bytes(content)
        code, _, notes = invoke("p", *rest, "--text-column", "doc.body", "--force")
        assert code == 0
        assert bool(notes) == (name == "x.csv")
        assert load(config_class("extract"), "p/extract.yaml").input.id_column is None
        (tmp_path / "mail" / name).unlink()


def test_a_home_directory_in_a_path(tmp_path, monkeypatch):
    """`~` that no shell has expanded is expanded here: the configs are started elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    out = invoke(tmp_path / "p", "--label", "A", "--model", "m", "--input", "~/x.csv", "--output", "~/an out")[1]
    assert load(config_class("extract"), tmp_path / "p" / "extract.yaml").input.path == f"{tmp_path}/x.csv"
    assert out[-1].startswith(f"ner-batch report '{tmp_path}/an out'")
    monkeypatch.chdir(tmp_path)
    assert invoke("p", "--label", "A", "--model", "m", "--input", "entities", "--force")[0] == 0
    config = load(config_class("extract"), tmp_path / "p" / "extract.yaml")
    assert (config.input.path, config.output.path) == ("../entities", "entities")  # the input's is no default


@pytest.mark.parametrize("without_gpu", [True, False])
def test_an_engine_without_a_gpu_is_not_compiled(tmp_path, monkeypatch, without_gpu):
    """Compiling takes a minute of each start on a CPU; the file says so where it says how."""
    monkeypatch.setattr(project, "is_without_gpu", lambda: without_gpu)
    assert invoke(tmp_path, "--label", "A", "--model", "m", "--input", "i")[0] == 0
    assert load(config_class("extract"), tmp_path / "extract.yaml").engine.enforce_eager == without_gpu


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"\\|[]{}<>@#,:\n='), min_size=1).map(
    str.strip
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(names.filter(bool), texts.map(str.strip), min_size=1, max_size=3), texts, texts)
@example(
    {"NO": "", "null": "y", "- a": "# no comment", "1e5": "'", "? q": "%x", "~": "*", "x" * 200: ""}, "010", "a: b #c"
)
def test_any_text_comes_back(labels, model, path):
    """YAML's own marks and words, line breaks, every script: the loader and YAML's own reader give what was meant."""
    written = project.contents(Path(), project.Answers(labels, "zh", model, path, path, text_column=path))
    folder = Path(os.environ["PYTEST_TMP"])
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    task = load_task(str(folder / "task.yaml"))
    assert {name: task.labels[name].definition for name in task.names} == labels
    assert list(yaml.safe_load(written["task.yaml"])["labels"]) == list(labels)
    extract = load(config_class("extract"), folder / "extract.yaml")
    assert (extract.engine.model, extract.input.path, extract.input.text_column) == (model, path, path)
    load(config_class("train"), folder / "train.yaml")
    for name, added in {"extract.yaml": 0, "train.yaml": 0, "task.yaml": len(labels) - 1}.items():  # a value is a line
        assert (
            written[name].count("\n")
            == (Path(project.__file__).parent / "files" / name).read_text().count("\n") + added
        )


@pytest.fixture(autouse=True)
def _folder(tmp_path_factory, monkeypatch):
    """For a test that Hypothesis runs many times."""
    monkeypatch.setenv("PYTEST_TMP", str(tmp_path_factory.mktemp("any")))


def test_questions_on_a_terminal(tmp_path):
    """Asked for on stderr, once more where an answer cannot be; what options give is not asked for."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "x.csv").write_text("id,doc.body\n1,Anna\n")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ner_batch", "init", "--input", "corpus"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    answers = ["", "A:B", "PER=a person", "ORG", "", "de", "zh", "Qwen/Qwen3-0.6B", "", "body", "doc.body"]
    os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
    out, err = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, err
    assert "label 'A:B'" in err
    assert err.count("Type 1") == 3
    assert err.count("Language") == 2
    assert "Input" not in err
    assert "Type" not in out
    task = load_task(str(tmp_path / "task.yaml"))
    assert (task.names, task.language) == (("PER", "ORG"), "zh")
    config = load(config_class("extract"), tmp_path / "extract.yaml")
    assert (config.output.path, config.input.text_column) == ("entities", "doc.body")
    assert err.count("Column of texts (id, doc.body)") == 2
