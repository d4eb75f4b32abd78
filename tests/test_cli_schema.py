"""Schemas of the configs for editors, and what a shell completes of them: both out of the classes that load them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from ner_batch.cli import app
from ner_batch.command.schema import KINDS, complete_override, config_class, json_schema
from ner_batch.config import core_value, read_yaml

ROOT = Path(__file__).parent.parent
JOBS = {
    "task.yaml": "task",
    "curve.yaml": "ablate",
    "extract-4090.yaml": "extract",
    "train-4090.yaml": "train",
} | {f"{kind}.yaml": kind for kind in KINDS}
SCHEMAS = {kind: json_schema(kind) for kind in KINDS}


def accepts(kind, value):
    """(whether the schema does, whether the loader does)."""
    try:
        config_class(kind).model_validate(value)
    except ValueError:
        loads = False
    else:
        loads = True
    return jsonschema.Draft7Validator(SCHEMAS[kind]).is_valid(value), loads


def sections(value, place=()):
    """Every mapping within a value, by its place."""
    if isinstance(value, dict):
        yield place
        for key, inner in value.items():
            yield from sections(inner, (*place, key))


def changed(value, place, key, new):
    """A copy in which one key has another value."""
    copy = json.loads(json.dumps(value))
    section = copy
    for part in place:
        section = section[part]
    section[key] = new
    return copy


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_one_and_describes(kind):
    """Of both drafts; every object is closed or has keys of the user's own; nearly all fields say what they are."""
    schema = SCHEMAS[kind]
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    objects = [schema, *schema.get("$defs", {}).values()]
    assert all(part["additionalProperties"] is False for part in objects)
    text = json.dumps(schema)
    assert ":class:" not in text
    assert " None" not in text
    assert sum('"description"' in json.dumps(part) for part in objects) == len(objects)


@pytest.mark.parametrize("name", JOBS)
def test_the_jobs_are_valid(name):
    """Every YAML file in jobs/; with an unknown key anywhere, neither schema nor loader takes it."""
    kind, value = JOBS[name], core_value(read_yaml(ROOT / "jobs" / name))
    assert accepts(kind, value) == (True, True)
    open_keys = {("labels",), ("gold", "k"), ("demonstrations", "k"), ("groups",), ("adapters",), ("curve", "steps")}
    tried = [place for place in sections(value) if place not in open_keys]
    assert tried
    for place in tried:
        assert accepts(kind, changed(value, place, "no_such_key", 1)) == (False, False), place


def test_every_yaml_file_in_jobs_is_tried():
    """A new one belongs into JOBS."""
    assert set(JOBS) == {path.name for path in (ROOT / "jobs").glob("*.yaml")}


@pytest.mark.parametrize(
    ("kind", "place", "key", "right", "wrong"),
    [
        ("extract", (), "format", "mrc", "xml"),
        ("extract", (), "decoding", "free", "Free"),
        ("extract", ("job",), "unit_rows", 1, 0),
        ("extract", ("engine",), "extra", {"a": [1, None]}, 3),
        ("extract", (), "verify", {"rejected": "keep"}, {"rejected": "lose"}),
        ("extract", (), "votes", None, []),
        ("train", ("demonstrations",), "kind", ["random", "lexical"], "nearest"),
        ("train", ("demonstrations",), "kind", None, ["nearest"]),
        ("train", ("packing",), "kind", "greedy", "all"),
        ("train", ("lora",), "r", 512, 513),
        ("index", (), "kind", "random", "none"),
        ("evaluate", (), "without_gold", "skip", "miss"),
        ("ablate", ("axes",), "retrieval", ["none", "entity"], ["no"]),
        ("task", (), "language", "zh", "de"),
        ("task", (), "labels", ["A", "B"], [1]),
        ("task", (), "labels", {"A": None, "B": {"question": "?"}}, {"A": 3}),
    ],
)
def test_schema_and_loader_agree(kind, place, key, right, wrong):
    """On enumerations, ranges, and the short forms a loader takes."""
    value = core_value(read_yaml(ROOT / "jobs" / f"{kind}.yaml"))
    value.pop("votes" if key != "votes" else "", None)
    if kind == "train" and key == "kind" and "demonstrations" in place:
        value["demonstrations"].pop("encoder", None)
    assert accepts(kind, changed(value, place, key, right)) == (True, True)
    if (kind, key, wrong) != ("task", "labels", [1]):  # the loader takes numbers for names
        assert accepts(kind, changed(value, place, key, wrong)) == (False, False)


def test_the_command_prints_json():
    """Whatever the log's format."""
    result = CliRunner().invoke(app, ["--log-format", "json", "--quiet", "schema", "evaluate"])
    assert json.loads(result.stdout) == json.loads(json.dumps(SCHEMAS["evaluate"]))


@pytest.mark.parametrize(
    ("written", "incomplete", "answers"),
    [
        ([], "retrieval.", ["retrieval.index=", "retrieval.encoder=", "retrieval.k="]),
        ([], "retrieval.k", ["retrieval.k=", "retrieval.k=4"]),
        ([], "engine.model", ["engine.model=", "engine.model=..."]),
        ([], "decoding=", ["decoding=auto", "decoding=free", "decoding=constrained"]),
        (["format", "="], "j", ["json"]),  # as bash hands it over
        (["score"], "=", ["false", "true"]),
        ([], "output.keep=", ["output.keep=null"]),
        ([], "no.such=", []),
        ([], "nothing", []),
    ],
)
def test_keys_and_values_are_completed(written, incomplete, answers):
    """Never one answer that ends in `=`, behind which a shell would put a blank."""
    assert [value for value, _ in complete_override("extract", written, incomplete)] == answers


@pytest.mark.parametrize("verb", [kind for kind in KINDS if kind != "task"])
def test_all_that_is_completed_is_a_field(verb):
    """Each key with a description or a section's name; of `doctor` those of extract."""
    keys = dict(complete_override(verb, [], ""))
    assert len(keys) >= 5
    for key in keys:
        kind = config_class(verb)
        for part in key.removesuffix("=").split(".")[:-1]:
            annotation = kind.model_fields[part].annotation
            kind = next(t for t in [annotation, *getattr(annotation, "__args__", ())] if hasattr(t, "model_fields"))
        assert key.removesuffix("=").split(".")[-1] in kind.model_fields


def test_bash_completes(tmp_path):
    """The script that is installed, called as bash calls it for a word; `=` ends words in bash."""
    (tmp_path / "ner-batch").write_text(f'#!/bin/sh\nexec {sys.executable} -m ner_batch "$@"\n')
    (tmp_path / "ner-batch").chmod(0o755)
    lines = [["ner-batch", "tr"], ["ner-batch", "extract", "e.yaml", "decoding", "="], ["ner-batch", "status", "x"]]
    script = 'eval "$(_NER_BATCH_COMPLETE=source_bash ner-batch)"\n'
    for words in lines:
        script += f"(COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _ner_batch_completion ner-batch; "
        script += 'echo "${COMPREPLY[*]}") > ' + f"{tmp_path}/{words[1]} &\n"
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script + "wait"], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    completed = {words[1]: (tmp_path / words[1]).read_text().split() for words in lines}
    assert completed == {"tr": ["train", "train-encoder"], "extract": ["auto", "free", "constrained"], "status": []}


def test_completion_is_shown_and_installed_for_all_shells(tmp_path):
    """Into the shell's own place below HOME."""
    places = {"bash": ".bash_completions/ner-batch.sh", "zsh": ".zfunc/_ner-batch"}
    places["fish"] = ".config/fish/completions/ner-batch.fish"
    for shell, place in places.items():
        program = (
            "import sys, shellingham; shellingham.detect_shell = lambda: (sys.argv[1], sys.argv[1])\n"
            "from ner_batch.cli import main; main('--install-completion')"
        )
        environment = os.environ | {"HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", program, shell], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "_NER_BATCH_COMPLETE=" in (tmp_path / place).read_text()
