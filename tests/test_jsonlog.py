"""The log for programs: a JSON object a line, whatever is printed."""

import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from rich.table import Table

from ner_batch.extraction.job import ExtractionLine
from ner_batch.extraction.lease import Lease
from ner_batch.extraction.tracker import RunProgress
from ner_batch.jobs.jsonlog import JsonLines
from ner_batch.jobs.progress import Line, ProgressLine


def printed(stream):
    """The objects that were written."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("forced", ["", "1"])
def test_a_line_is_an_object(monkeypatch, forced):
    """Pieces come together, empty lines go, a rule is its title; marks of colour and width are none of a log."""
    monkeypatch.setenv("FORCE_COLOR", forced)
    stream = io.StringIO()
    console = Console(file=JsonLines(stream), soft_wrap=True)
    console.print("[red]not done[/]", end="")
    console.print(": x " + "y" * 300)
    console.print()
    console.rule("2. index")
    console.print('a "quoted" 张伟\nand a second line', markup=False)
    objects = printed(stream)
    assert [entry["message"] for entry in objects] == [
        "not done: x " + "y" * 300,
        "2. index",
        'a "quoted" 张伟',
        "and a second line",
    ]
    assert all(entry["level"] == "info" and set(entry) == {"time", "level", "message"} for entry in objects)
    assert datetime.now(UTC) - datetime.fromisoformat(objects[0]["time"]) < timedelta(minutes=1)


def test_tables_stay_lines():
    """A row of a table is a message; nothing is lost."""
    stream = io.StringIO()
    table = Table("type", "F1")
    table.add_row("Disease", "0.8")
    Console(file=JsonLines(stream), width=60).print(table)
    assert any("Disease" in entry["message"] and "0.8" in entry["message"] for entry in printed(stream))


def test_progress_has_figures(monkeypatch, tmp_path):
    """Those of an extraction, by name; a line that is only text has none."""
    stream = io.StringIO()
    progress = RunProgress(20.5, 900, {"ok": 9}, 2, 1, (), None, lost=1, storage="no answer")

    monkeypatch.setenv("FORCE_COLOR", "1")  # as some CI sets it
    lease = Lease(str(tmp_path), Console())
    with ProgressLine(Console(file=JsonLines(stream)), every=0) as live:
        live.show("starting")
        live.show(lambda: lease.tell(ExtractionLine(1000, 400).line(progress)))
        live.show(lambda: Line("half"))
    starting, extraction, half = printed(stream)
    assert lease.progress == extraction["message"]
    assert (starting["message"], half["message"]) == ("starting", "half")
    assert set(starting) == set(half) == {"time", "level", "message"}
    assert extraction["message"].startswith("420 of 1,000 rows | ")
    figures = {name: value for name, value in extraction.items() if name not in starting}
    assert figures == {
        "rows": 1000,
        "rows_done": 420,
        "tokens": 900,
        "statuses": {"ok": 9},
        "replicas": 2,
        "engine_deaths": 1,
        "replicas_lost": 1,
        "storage": "no answer",
    }


def run(*arguments, code="from ner_batch.cli import main; main()", **environment):
    """(exit code, stdout, stderr) of a process."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_the_option_and_the_variable():
    """Both say the same; an error is one object of stderr; what is no format is refused."""
    for arguments, environment in (
        (["--log-format", "json"], {}),
        ([], {"NER_BATCH_LOG_FORMAT": "json"}),
    ):
        code, out, err = run(*arguments, "extract", "/no/such.yaml", **environment)
        assert (code, out) == (2, "")
        entry = json.loads(err)
        assert (entry["level"], entry["message"]) == ("error", "error: /no/such.yaml: no such file")
    code, _, err = run("--log-format", "xml", "extract", "/no/such.yaml")
    assert code == 2
    assert "'text', 'json'" in err


def test_a_bug_is_one_object():
    """With its traceback inside, so that a program that reads lines keeps it together."""
    code = "from ner_batch.cli import exit_code; exit_code(lambda: 1 // 0)"
    status, _, err = run(code=code, NER_BATCH_LOG_FORMAT="json")
    assert status == 1
    entry = json.loads(err)
    assert entry["level"] == "critical"
    assert entry["message"].startswith("ZeroDivisionError")
    assert entry["traceback"].startswith("Traceback (most recent call last)")
