"""`ner-batch demo`, whole, as a newcomer runs it: trains, extracts, reports; and again: nothing is left to do."""

import json
import subprocess
import sys

import pyarrow.dataset as pads
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.slow]


def run(folder):
    """The demo's output and exit code, in a folder."""
    command = [sys.executable, "-c", "from ner_batch.cli import main; main()", "demo", "--out", str(folder / "out")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    return done.returncode, done.stdout + done.stderr


def test_the_demo_runs_and_runs_again(tmp_path):
    """Every row is there, every span is real, the adapter is the one just trained; the second run finds all done."""
    code, output = run(tmp_path)
    assert code == 0, output
    assert "rows in 267 = rows out 267 = " in output
    assert "served = trained: 32 of 32 greedy answers identical" in output
    rows = pads.dataset(tmp_path / "out" / "entities", format="parquet").to_table().to_pylist()
    assert all(row["text"][e["start"] : e["end"]] == e["text"] for row in rows for e in row["entities"])
    assert sum(len(row["entities"]) for row in rows) > 1000
    manifest = json.loads((tmp_path / "out" / "entities" / "_manifest.json").read_text())
    assert manifest["config"]["adapter"] == str(tmp_path / "out" / "adapter")
    code, output = run(tmp_path)
    assert code == 0, output
    assert "267 rows done before, 0 to do" in output
