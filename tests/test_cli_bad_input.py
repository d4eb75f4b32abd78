"""What bad input gets, through the command line: one clear line each, exit code 2, nothing written, no engine started."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from refusals import refused
from typer.testing import CliRunner

from ner_batch.adapter import AdapterManifest, model_fingerprint, save_manifest
from ner_batch.cli import app
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.task import Task

TASK = {"name": "t", "labels": {"PER": "a person", "ORG": "a company"}}


@pytest.fixture
def run(tmp_path, random_model):
    """Runs `ner-batch extract` on a sound config with changes; gives (exit code, error lines)."""
    pq.write_table(pa.table({"id": ["1"], "text": ["Anna"], "n": [1]}), tmp_path / "good.parquet")
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(TASK, sort_keys=False))
    config = {
        "input": {"path": str(tmp_path / "good.parquet")},
        "output": {"path": str(tmp_path / "out")},
        "engine": {"model": random_model, "max_model_len": 4096},
        "task": str(tmp_path / "task.yaml"),
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))

    def extract(*overrides):
        result = CliRunner().invoke(app, ["extract", str(tmp_path / "job.yaml"), *map(str, overrides)])
        assert not isinstance(result.exception, ValueError), result.exception
        return result.exit_code, result.stderr.splitlines()

    return extract


def test_missing_path(run, tmp_path):
    """The input does not exist."""
    refused(run("input.path=/nowhere/at/all"), "/nowhere/at/all")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_no_rows_there(run, tmp_path):
    """The folder holds other things."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("x")
    refused(run(f"input.path={tmp_path / 'empty'}"), tmp_path / "empty", ".parquet", ".csv")


def test_no_such_column(run):
    """The column is named wrongly; the ones that are there are told."""
    refused(run("input.text_column=txt"), "input.text_column", "txt", "text", "good.parquet")


def test_column_of_the_wrong_type(run):
    """A number is no text."""
    refused(run("input.text_column=n"), "'n'", "int64")


def test_not_a_parquet_file(run, tmp_path):
    """The only input is something else under the name."""
    (tmp_path / "bad.parquet").write_bytes(b"not parquet at all, not at all")
    refused(run(f"input.path={tmp_path / 'bad.parquet'}"), "bad.parquet")


def test_output_inside_the_input(run, tmp_path):
    """The next run would read its own output."""
    refused(run(f"input.path={tmp_path}", f"output.path={tmp_path / 'out'}"), "inside")


def test_columns_that_would_meet_ours(run, tmp_path):
    """An input with an `entities` column (gold, say) is not overwritten; the remedy is named, and works."""
    pq.write_table(pa.table({"text": ["Anna"], "entities": [["x"]]}), tmp_path / "gold.parquet")
    refused(run(f"input.path={tmp_path / 'gold.parquet'}"), "entities", "input.rename.entities=gold_entities")
    code, lines = run(f"input.path={tmp_path / 'gold.parquet'}", "output.drop_input_columns=[nope]")
    assert code == 2
    assert "nope" in lines[0]


def test_output_that_holds_foreign_files(run, tmp_path):
    """A folder with Parquet of unknown origin is not mixed with ours."""
    (tmp_path / "out").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "out" / "x.parquet")
    refused(run(), tmp_path / "out", "choose an empty folder")


def test_output_that_belongs_to_another_run(run, tmp_path):
    """Every difference is shown, with both values."""
    from ner_batch.config import load
    from ner_batch.extraction import manifest, plan
    from ner_batch.extraction.settings import ExtractConfig

    manifest.write(plan.prepare(load(ExtractConfig, tmp_path / "job.yaml")), "running", {})
    code, lines = run("format=mrc", "windows.max_tokens=100")
    assert code == 2
    text = "\n".join(lines)
    assert "format was json, is mrc" in text
    assert "windows.max_tokens was 512, is 100" in text
    assert lines[-1] == "error: choose another output.path, or set things back to resume"


def test_input_that_changed_under_a_run(run, tmp_path):
    """A shard that was rewritten or removed since is named."""
    from ner_batch.config import load
    from ner_batch.extraction import manifest, plan
    from ner_batch.extraction.settings import ExtractConfig

    manifest.write(plan.prepare(load(ExtractConfig, tmp_path / "job.yaml")), "running", {})
    pq.write_table(pa.table({"id": ["1", "2"], "text": ["Anna", "Bob"], "n": [1, 2]}), tmp_path / "good.parquet")
    code, lines = run()
    assert code == 2
    assert "good.parquet has changed" in lines[0]


def test_model_that_does_not_exist(run):
    """A folder and a hub name that are not there."""
    refused(run("engine.model=/no/such/model"), "/no/such/model")
    refused(run("engine.model=nobody/no-such-model"), "nobody/no-such-model")


def test_task_file_problems(run, tmp_path):
    """A missing file, an unknown key, no labels."""
    refused(run("task=/no/task.yaml"), "/no/task.yaml: no such file")
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(TASK | {"lables": []}))
    refused(run(), "lables: unknown field (did you mean labels?)")
    refused(run("task=null"), "task: missing")


def test_index_problems(run, tmp_path):
    """No index there; an encoder asked of an index that has none."""
    from ner_batch import retrieval
    from ner_batch.data import Example

    refused(run(f"retrieval.index={tmp_path / 'no-index'}"), "no-index", "ner-batch index")
    retrieval.build([Example("1", "Anna", ())], "lexical", tmp_path / "index")
    refused(run(f"retrieval.index={tmp_path / 'index'}", "retrieval.encoder=some/encoder"), "some/encoder")


def test_verification_problems(run, tmp_path, random_model):
    """Demonstrations without an index, by vectors of an index that has none; a threshold that is no probability."""
    from ner_batch import retrieval
    from ner_batch.data import Example

    refused(run("verify={k: 4}"), "verify.k=4", "retrieval.index")
    retrieval.build([Example("1", "Anna", ())], "lexical", tmp_path / "index")
    by_vectors = "verify={k: 4, similarity: vectors}"
    refused(run(by_vectors, f"retrieval.index={tmp_path / 'index'}"), "verify.similarity=vectors", "kind lexical")
    refused(run("verify={threshold: 2}"), "verify.threshold")
    refused(run("votes={}", "temperature=1"), "votes", "temperature")
    refused(run("votes={}", "score=true"), "votes", "score")


def test_windows_that_cannot_fit(run):
    """Instructions, window and answer together must fit the model; both numbers are named."""
    refused(run("windows.max_tokens=4000"), "windows.max_tokens=4000", "engine.max_model_len=4096")


@pytest.fixture
def adapter(random_model, random_adapter, tmp_path):
    """Writes an adapter with a manifest; keyword arguments contradict the run."""
    path = Path(random_adapter(random_model, 7))

    def make(**changes):
        from ner_batch.prompts import formats
        from ner_batch.prompts.builder import PromptBuilder

        task = Task.model_validate(TASK)
        builder = PromptBuilder(formats.get("json"), task, load_tokenizer(random_model), 4096)
        fields = {
            "name": "a",
            "format": "json",
            "task": task,
            "prompt_fingerprint": builder.fingerprint(),
            "base_model": "base",
            "base_fingerprint": model_fingerprint(random_model),
        }
        save_manifest(path, AdapterManifest(**(fields | changes)))
        return f"adapter={path}"

    return make


def test_adapter_contradictions(run, adapter):
    """Another base, format, task or prompt is named with both values; several come together."""
    refused(run(adapter(base_fingerprint="0" * 16)), "base model", "0" * 16)
    refused(run(adapter(), "task=null", "format=json", "retrieval.k=0", "engine.model=/no/model"), "/no/model")
    other = Task.model_validate(TASK | {"name": "other"})
    code, lines = run(adapter(task=other))
    assert code == 2
    assert any("task: the adapter was trained with 'other'" in line for line in lines)
    code, lines = run(adapter(), "format=mrc")
    assert code == 2
    assert any("format: the adapter was trained with json, this run has mrc" in line for line in lines)


def test_tasks_that_do_not_go_together(run, adapter, tmp_path):
    """Fields beside `tasks`, two tasks of one name, and problems that say in which task they are."""
    beside = "tasks=[{adapter: a}, {adapter: b}]"
    refused(run(beside), "tasks", "task", "write it into each of the tasks")
    values = yaml.safe_load((tmp_path / "job.yaml").read_text())
    task = values.pop("task")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(values))
    refused(run(f"tasks=[{{task: {task}}}, {{task: {task}, format: mrc}}]"), "two are called", "rename")
    refused(run(f"tasks=[{{task: {task}}}, {{task: {tmp_path}/no.yaml}}]"), "tasks.1: ", "no.yaml")
    refused(run(f"tasks=[{{task: {task}, formt: json}}]"), "tasks.0.formt", "did you mean format?")
    refused(run(f"tasks=[{{{adapter().replace('=', ': ')}, format: mrc}}]"), "tasks.0: ", "trained with json")


def test_adapter_that_is_none(run, tmp_path):
    """A missing folder, and one without PEFT's files."""
    refused(run("adapter=/no/adapter"), "/no/adapter")
    (tmp_path / "empty").mkdir()
    refused(run(f"adapter={tmp_path / 'empty'}"), "empty")


def test_adapter_with_modules_to_save(run, adapter, random_adapter, random_model):
    """vLLM refuses it at serving time; here it is known before."""
    path = Path(adapter().partition("=")[2])
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | {"modules_to_save": ["lm_head"]}))
    try:
        refused(run(f"adapter={path}"), "modules_to_save")
    finally:
        (path / "adapter_config.json").write_text(json.dumps(config))


def test_all_problems_come_at_once(run):
    """Input, model and index problems are one report."""
    code, lines = run("input.path=/nowhere", "engine.model=/no/such/model", "retrieval.index=/no/index")
    assert code == 2
    assert len(lines) == 3


def test_unknown_override_and_missing_file_through_the_real_command(tmp_path):
    """The installed script itself: exit code 2, one line, no traceback."""
    command = [str(Path(sys.executable).parent / "ner-batch"), "extract", str(tmp_path / "no.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert result.stderr.strip() == f"error: {tmp_path / 'no.yaml'}: no such file"
    usage = subprocess.run([command[0], "extrct"], capture_output=True, text=True, timeout=120)
    assert usage.returncode == 2
