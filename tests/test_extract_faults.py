"""The extraction job under fire: real Ray, real processes, real Parquet, a scripted predictor in the engine's place."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import yaml
from processes import kill_session
from scripted import POISON, predict_one

from ner_batch.data import predictions_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]
HERE = Path(__file__).parent

NESTED = pa.struct([("tags", pa.list_(pa.int32())), ("source", pa.string())])
SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string()), ("meta", NESTED)])


def table(name, rows, text="row {} of Alice met Bob"):
    """Rows whose texts are all different, every seventh one null."""
    texts = [text.format(f"{name}-{i}") if i % 7 else None for i in range(rows)]
    meta = [{"tags": [i, i + 1], "source": name} if i % 3 else None for i in range(rows)]
    return pa.table({"id": [f"{name}-{i}" for i in range(rows)], "text": texts, "meta": meta}, schema=SCHEMA)


@pytest.fixture
def job(tmp_path, random_model):
    """A corpus of uneven shards, and a function that starts the scripted job on it."""
    corpus, log = tmp_path / "corpus", tmp_path / "log"
    (corpus / "deep").mkdir(parents=True)
    log.mkdir()
    pq.write_table(table("empty", 0), corpus / "a-empty.parquet")
    pq.write_table(table("one", 1), corpus / "b-one.parquet")
    pq.write_table(table("many", 5000), corpus / "c-many.parquet", row_group_size=777)
    pq.write_table(table("some", 333), corpus / "deep" / "d-some.parquet", row_group_size=50)
    (tmp_path / "task.yaml").write_text("name: t\nlabels: [NAME]\n")
    config = {
        "input": {"path": str(corpus)},
        "output": {"path": str(tmp_path / "out")},
        "engine": {"model": random_model, "max_model_len": 8192},
        "task": str(tmp_path / "task.yaml"),
        "job": {"unit_rows": 100, "units_in_flight": 2},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))

    def start(*overrides, delay=0.0):
        env = {**os.environ, "NER_BATCH_SCRIPTED_LOG": str(log), "NER_BATCH_SCRIPTED_DELAY": str(delay)}
        command = [sys.executable, str(HERE / "scripted.py"), str(tmp_path / "job.yaml"), *overrides]
        return subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    return tmp_path, start


def files_of(out):
    """Visible output files with their content's identity."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}


def check_whole(folder, expected_rows):
    """Every file opens, every row of the input is there once and unchanged, with the prediction it must have."""
    for path in (folder / "out").glob("*.parquet"):
        assert pq.read_table(path).num_rows == pq.read_metadata(path).num_rows
    # The empty shard's file sorts first: no reader may take its schema for nulls.
    out = pads.dataset(folder / "out", format="parquet").to_table()
    source = pads.dataset(folder / "corpus", format="parquet").to_table()
    assert out.num_rows == expected_rows == source.num_rows
    assert out.select(SCHEMA.names).sort_by("id").equals(source.sort_by("id"))
    assert predictions_of(out) == [predict_one(text) for text in out["text"].to_pylist()]


def computed(folder):
    """How often each text was predicted over all runs."""
    return Counter(line for log in (folder / "log").iterdir() for line in log.read_text().splitlines())


def test_ten_kills_lose_nothing_double_nothing_and_repeat_no_finished_unit(job):
    """kill -9 of the driver at random moments, ten times; then a run to the end. Finished units are never touched."""
    folder, start = job
    rng = random.Random(1)
    kills = 0
    while kills < 10:
        before = files_of(folder / "out")
        process = start(delay=0.004)
        # From before Ray is up to deep in the work: some kills must hit while units are being written.
        deadline = time.monotonic() + 90
        target = len(before) + rng.choice([0, 1, 1, 2, 3, 5])
        while len(files_of(folder / "out")) < target and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(rng.random() * 0.3)
        assert process.poll() is None, process.stdout.read()
        os.kill(process.pid, signal.SIGKILL)
        kill_session(process)
        kills += 1
        after = files_of(folder / "out")
        assert {name: after[name] for name in before} == before
        assert not (folder / "out" / "_SUCCESS").exists()
    finished = files_of(folder / "out")
    assert len(finished) >= 5
    process = start()
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert "rows in 5,334 = rows out 5,334 = " in output
    check_whole(folder, 5334)
    after = files_of(folder / "out")
    assert {name: after[name] for name in finished} == finished
    # At most the units in flight at each kill are computed again: 1 replica x 2 units x 100 rows.
    assert sum(count - 1 for count in computed(folder).values()) <= 10 * 2 * 100
    assert list((folder / "out").glob(".*")) == []
    assert (folder / "out" / "_SUCCESS").exists()
    assert json.loads((folder / "out" / "_manifest.json").read_text())["rows_out"] == 5334


def test_a_row_that_kills_its_process_is_given_up_alone(job):
    """Two poisoned rows among 5,374: both `failed` with a reason, everything else right, the job ends by itself."""
    folder, start = job
    poisoned = table("poison", 40).to_pylist()
    poisoned[3]["text"] = poisoned[35]["text"] = f"{POISON} Carol"
    pq.write_table(pa.Table.from_pylist(poisoned, schema=SCHEMA), folder / "corpus" / "e-poison.parquet")
    process = start("job.max_engine_deaths=40")
    output = process.communicate(timeout=900)[0]
    assert process.returncode == 0, output
    out = pads.dataset(folder / "out", format="parquet").to_table()
    failed = out.filter(pads.field("status") == "failed")
    assert sorted(failed["id"].to_pylist()) == ["poison-3", "poison-35"]
    assert set(failed["error"].to_pylist()) == {"the engine died while it read this row alone; the row was given up"}
    others = out.filter(pads.field("status") != "failed")
    assert others.num_rows == 5374 - 2
    assert predictions_of(others) == [predict_one(text) for text in others["text"].to_pylist()]


def test_ctrl_c_saves_state_and_exits_130(job):
    """An interrupted run says so, and the next one finishes it."""
    folder, start = job
    process = start(delay=0.01)
    while len(files_of(folder / "out")) < 2:
        time.sleep(0.05)
        assert process.poll() is None, process.stdout.read()
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert json.loads((folder / "out" / "_manifest.json").read_text())["state"] == "interrupted"
    process = start()
    assert process.wait(timeout=300) == 0
    check_whole(folder, 5334)


def test_engines_that_always_die_end_the_job(job):
    """No endless crash loop: past job.max_engine_deaths the job stops with one line and exit code 1."""
    folder, start = job
    pq.write_table(table("poison", 3000, POISON + " {}"), folder / "corpus" / "0-poison.parquet")
    process = start("job.max_engine_deaths=3")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 1, output
    assert "engines died 4 times" in output
