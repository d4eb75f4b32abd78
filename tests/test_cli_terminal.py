"""The command line on a terminal, in a pipe and where neither is there: colours, streams, errors, quiet and verbose."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import ADAPTER, BASE, FILES
from typer.testing import CliRunner

from ner_batch.cli import app, console, exit_code
from ner_batch.errors import UserError

COLOURS = ("NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS")  # an empty FORCE_COLOR means no to rich
PLAIN = dict.fromkeys(COLOURS) | {"TERM": "xterm", "COLUMNS": "80"}
EXTRACT = {"input": {"path": "in"}, "output": {"path": "out"}, "engine": {"model": "m"}, "task": "t.yaml", "x": 1}
INIT = ["init", "--label", "A", "--model", "m", "--input", "i"]

CASES = {
    "help on a terminal": {"args": ["extract", "--help"], "stdout": "terminal"},
    "help in a pipe": {"args": ["extract", "--help"]},
    "help without colour": {"args": ["extract", "--help"], "stdout": "terminal", "env": {"NO_COLOR": "1"}},
    "help with colour in a pipe": {"args": ["extract", "--help"], "env": {"FORCE_COLOR": "1"}},
    "error with colour": {"args": ["statsu"], "env": {"FORCE_COLOR": "1"}},
    "error": {"args": ["statsu"], "stdout": "terminal"},
    "closed stdout": {"args": ["schema", "task"], "stdout": "closed"},
    "closed stdin": {"args": ["extract", "-"], "stdin": None},
    "empty stdin": {"args": ["extract", "-"], "stdin": " \n"},
    "config on stdin": {"args": ["extract", "-"], "stdin": yaml.safe_dump(EXTRACT)},
    "nobody reads": {"args": ["schema", "extract"], "stdout": "gone"},
    "nobody reads the log": {"args": [*INIT, "gone"], "stdout": "gone"},
    "full disk": {"args": ["schema", "extract"], "stdout": "/dev/full"},
    "full disk of the log": {"args": [*INIT, "full"], "stdout": "/dev/full"},
    "no terminal to ask on": {"args": ["init"], "stdin": ""},
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """(exit code, stdout, stderr) by the case's name."""
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "forks.py"],
        input=json.dumps(list(CASES.values())),
        env={name: value for name, value in (os.environ | PLAIN).items() if value is not None},
        cwd=tmp_path_factory.mktemp("cases"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


def test_colour_is_for_terminals(outcomes):
    """Help and errors; NO_COLOR takes the colours from a terminal, FORCE_COLOR gives them to a pipe."""
    codes = {
        name: {part.partition("m")[0] for part in out.split("\x1b[")[1:]} for name, (_, out, _) in outcomes.items()
    }
    assert any("36" in code for code in codes["help on a terminal"])  # cyan options
    assert codes["help in a pipe"] == set()
    assert codes["help without colour"] <= {"0", "1", "2", "1;2"}  # bold and dim are none
    assert any("36" in code for code in codes["help with colour in a pipe"])
    assert "\x1b[1;31merror:\x1b[0m No such command" in outcomes["error with colour"][2]
    assert outcomes["error"][2] == "error: No such command 'statsu'. Did you mean 'status'? (ner-batch --help)\n"


def test_help_ends_with_examples(outcomes):
    """In a pipe as on a terminal, one a line."""
    code, out, _ = outcomes["help in a pipe"]
    assert code == 0
    assert "\n ner-batch extract - < jobs/extract.yaml  " in out


def test_streams_that_are_not_there(outcomes):
    """A reader that has left ends nothing; a product that cannot be written is an error; a closed stdout is nobody's file."""
    assert outcomes["closed stdout"][0] == 0
    assert outcomes["nobody reads"] == [0, "", ""]
    assert outcomes["nobody reads the log"] == outcomes["full disk of the log"] == [0, "", ""]
    code, _, err = outcomes["full disk"]
    assert (code, err) == (2, "error: standard output cannot be written: No space left on device\n")


def test_a_config_from_standard_input(outcomes):
    """It is read as a file is; nothing there is one line."""
    code, _, err = outcomes["config on stdin"]
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: -: x: unknown field")
    for name in ("closed stdin", "empty stdin"):
        code, _, err = outcomes[name]
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("error: -: ")


def test_init_without_a_terminal(outcomes):
    """One line that names the options."""
    code, out, err = outcomes["no terminal to ask on"]
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--label, --model, --input" in err


def invoke(*arguments, **environment):
    """(exit code, stdout, stderr lines) of a command in this process."""
    result = CliRunner().invoke(app, list(arguments), env=PLAIN | environment, prog_name="ner-batch")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr.splitlines()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["statsu"], "Did you mean 'status'? (ner-batch --help)"),
        (["extract"], "Missing argument 'CONFIG' (ner-batch extract --help)"),
        (["extract", "x.yaml", "--dryrun"], "--dry-run"),
        (["extract", "x.yaml", "--limit", "many"], "--limit"),
        (["extract", "x.yaml", "--limit", "0"], "--limit"),
        (["status"], "ner-batch status --help"),
        (["status", "a", "b"], "unexpected extra argument"),
        (["extract", "x.yaml", "-q"], "-q stands before the verb: ner-batch -q extract"),
        (["extract", "x.yaml", "--log-format", "json"], "--log-format stands before the verb"),
        (["schema", "foo"], "'train-encoder'"),
        (["--verbose", "--quiet", "status", "x"], "exclude each other"),
        (["--log-format", "xml", "status", "x"], "'text', 'json'"),
    ],
)
def test_a_wrong_command_line_is_one_line(monkeypatch, arguments, words):
    """With what is wrong and where the remedy is; JSON where that is asked for, wherever the fault is."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    code, out, err = invoke(*arguments)
    assert (code, out, len(err)) == (2, "", 1), err
    assert words in err[0]
    if "--log-format" not in arguments:
        assert err[0].startswith("error: ")
        code, out, err = invoke("--log-format", "json", *arguments)
        assert (code, out, len(err)) == (2, "", 1)
        assert words in json.loads(err[0])["message"]


def test_a_folder_and_files_that_are_no_configs(tmp_path):
    """One line each, with the remedy; another verb's config is told by that verb's name."""
    (tmp_path / "latin.yaml").write_bytes("engine: Müller".encode("latin-1"))
    (tmp_path / "extract.yaml").write_text(yaml.safe_dump({key: value for key, value in EXTRACT.items() if key != "x"}))
    (tmp_path / "task.yaml").write_text("name: t\nlabels: [A]\n")
    for verb, file, words in (
        ("train", tmp_path, "a folder; name a YAML file in it"),
        ("train", tmp_path / "latin.yaml", "save it as UTF-8 text"),
        ("train", tmp_path / "extract.yaml", "this is a config of `ner-batch extract`, not of `ner-batch train`"),
        ("evaluate", tmp_path / "task.yaml", "this is a task file, not of `ner-batch evaluate`"),
    ):
        code, _, err = invoke(verb, str(file))
        assert (code, len(err)) == (2, 1)
        assert err[0].startswith(f"error: {file}: ")
        assert words in err[0]


@pytest.fixture(autouse=True)
def _hooks(monkeypatch):
    """A log of JSON sets one for exceptions."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)


def refuse():
    raise UserError("x: wrong")


def test_verbose_shows_where_an_error_was_raised(monkeypatch, capsys):
    """The exit code is the same; of JSON the traceback is a field."""
    monkeypatch.setenv("NER_BATCH_VERBOSE", "1")
    assert exit_code(refuse) == 2
    lines = capsys.readouterr().err.splitlines()
    assert (lines[0], lines[-1]) == ("Traceback (most recent call last):", "error: x: wrong")
    monkeypatch.setenv("NER_BATCH_LOG_FORMAT", "json")
    assert exit_code(refuse) == 2
    entry = json.loads(capsys.readouterr().err)
    assert entry["message"] == "error: x: wrong"
    assert "in refuse" in entry["traceback"]
    monkeypatch.setenv("NER_BATCH_VERBOSE", "0")
    assert exit_code(refuse) == 2
    assert "traceback" not in json.loads(capsys.readouterr().err)


@pytest.mark.parametrize("form", ["text", "json"])
def test_quiet_prints_the_last_line(monkeypatch, capsys, form):
    """And errors; nothing of a job that fails but its error."""

    def work():
        console.print("a line")
        console.print("[bold]rows in 3 = rows out 3[/]\n")

    monkeypatch.setenv("NER_BATCH_LOG_FORMAT", form)
    monkeypatch.setenv("NER_BATCH_QUIET", "1")
    assert exit_code(work) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert (json.loads(line)["message"] if form == "json" else line) == "rows in 3 = rows out 3"
    assert exit_code(lambda: [work(), refuse()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["-v"], {}, "verbose"),
        ([], {"NER_BATCH_VERBOSE": "1"}, "verbose"),
        (["-q"], {"NER_BATCH_VERBOSE": "1"}, "quiet"),  # what is typed wins
        (["-v"], {"NER_BATCH_QUIET": "true"}, "verbose"),
        (["-q"], {}, "quiet"),
        ([], {"NER_BATCH_QUIET": "0", "NER_BATCH_VERBOSE": ""}, "neither"),
    ],
)
def test_options_and_variables_say_the_same(monkeypatch, arguments, environment, words):
    """What Ray's workers will see in the environment."""
    seen = {}

    def job(*_):
        seen.update({name: os.environ.get(f"NER_BATCH_{name.upper()}") for name in ("verbose", "quiet")})
        raise UserError("enough")

    monkeypatch.setattr("ner_batch.extraction.status.status", job)
    for name in ("VERBOSE", "QUIET", "LOG_FORMAT"):
        monkeypatch.setenv(f"NER_BATCH_{name}", "")
    invoke(*arguments, "status", "x", **environment)
    assert seen == {name: "1" if name == words else None for name in ("verbose", "quiet")}


def test_a_broken_socket_is_no_closed_stdout(capsys):
    """Typer takes every broken pipe for the reader's of stdout, and ends without a word."""

    def job():
        raise BrokenPipeError(32, "Broken pipe")

    assert exit_code(job) == 1
    assert "BrokenPipeError" in capsys.readouterr().err


def test_outputs_that_cannot_be_written(tmp_path):
    """Known before any work, and nothing is left."""
    index = {"examples": str(FILES / "gold" / "train.parquet"), "out": "/proc/none/index"}
    (tmp_path / "index.yaml").write_text(yaml.safe_dump(index))
    for words in (
        ["index", str(tmp_path / "index.yaml")],
        ["merge", str(ADAPTER), "/proc/none/merged", "--base", str(BASE)],
        ["demo", "--out", "/proc/none"],
    ):
        code, _, err = invoke(*words)
        assert (code, len(err)) == (2, 1), words
        assert err[0].startswith("error: /proc/none")
        assert "check the path and its permissions" in err[0]
