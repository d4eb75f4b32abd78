"""Rows read and joined: bad ones are called by file and row, resources that do not suffice are explained, bugs crash."""

import errno
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from evaluations import TEXT, corpus, gold_table, run_table, write

from ner_batch.errors import UserError
from ner_batch.evaluate import job
from ner_batch.evaluate.read import ValidationErrors, join, read
from ner_batch.evaluate.settings import EvaluateConfig

SPAN = [(0, 3, "PER")]


def plan_of(folder, **options):
    """The plan for folder/run and folder/gold."""
    values = {"predictions": {"path": f"{folder}/run"}, "gold": {"path": f"{folder}/gold"}, "output": f"{folder}/out"}
    return job.prepare(EvaluateConfig.model_validate(values | options))


def refusal(plan):
    """What the user is told."""
    with pytest.raises(UserError) as caught:
        job.evaluate(plan)
    return str(caught.value)


def test_a_broken_row_is_called_by_id_file_and_row(tmp_path):
    """In the 38th shard, in a unit that is not the shard's first."""
    spans = [SPAN] * 400
    ids = [f"doc-{i}" for i in range(400)]
    write(tmp_path / "gold", gold_table(spans, ids))
    table = run_table(spans, ids)
    texts = table["text"].to_pylist()
    texts[377] = "ab"
    write(tmp_path / "run", table.set_column(table.column_names.index("text"), "text", pa.array(texts)), 40)
    plan = plan_of(tmp_path, job={"unit_rows": 3})
    message = refusal(plan)
    assert "doc-377 has [0, 3) PER in 2 characters (part-037.parquet row 7)" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("column", "word"), [("id", "'id'"), ("entities", "'type'")])
def test_strings_that_are_not_utf8(tmp_path, column, word):
    """Parquet does not check them; the file and the column are named."""
    broken = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    ids, types = (broken, pa.array(["PER"])) if column == "id" else (pa.array(["a"]), broken)
    fields = {"start": pa.array([0]), "end": pa.array([3]), "type": types}
    spans = pa.ListArray.from_arrays(
        pa.array([0, 1], pa.int32()), pa.StructArray.from_arrays([*fields.values()], [*fields])
    )
    write(tmp_path / "run", pa.table({"id": ids, "text": [TEXT], "entities": spans}))
    write(tmp_path / "gold", gold_table([SPAN], ["a"]))
    message = refusal(plan_of(tmp_path))
    assert f"{tmp_path}/run/part-000.parquet" in message
    assert word in message
    assert "UTF" in message.upper()


def test_a_file_that_goes_while_the_job_runs(tmp_path):
    """It is named; so is one that was written anew."""
    write(tmp_path / "gold", gold_table([SPAN] * 4))
    write(tmp_path / "run", run_table([SPAN] * 4), 2)
    plan = plan_of(tmp_path)
    pq.write_table(run_table([SPAN] * 3), tmp_path / "run" / "part-001.parquet")
    assert "part-001.parquet: the file has changed" in refusal(plan)
    (tmp_path / "run" / "part-001.parquet").unlink()
    assert "part-001.parquet" in refusal(plan)


def test_too_little_memory_is_explained(tmp_path):
    """The setting is named, and where the temporary files lie."""
    gold, good, _ = corpus(3000)
    write(tmp_path / "gold", gold_table(gold))
    write(tmp_path / "run", run_table(good))
    plan = plan_of(tmp_path)
    config = plan.config.model_copy(update={"job": plan.config.job.model_copy(update={"memory_bytes": 1_000_000})})
    with (
        pytest.raises(UserError, match=r"job\.memory_bytes: .*TMPDIR"),
        join(plan.sources, config, progress=lambda _: None),
    ):
        pass


def test_a_full_disk_is_explained(tmp_path, monkeypatch):
    """Where the join's files lie, and how to put them elsewhere."""
    write(tmp_path / "gold", gold_table([SPAN]))
    write(tmp_path / "run", run_table([SPAN]))
    plan = plan_of(tmp_path)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    assert "No space left" in refusal(plan)
    assert "TMPDIR" in refusal(plan)


def test_fields_of_spans_that_are_not_ours(tmp_path):
    """They may be called as columns of ours are."""
    span = {"start": 4, "end": 7, "type": "PER", "row": 9, "span": "x", "id": "y"}
    write(tmp_path / "gold", pa.table({"id": ["a", "b"], "text": [TEXT] * 2, "entities": [[], [span]]}))
    write(tmp_path / "run", run_table([[], [(4, 7, "PER")]], ["a", "b"]))
    assert job.evaluate(plan_of(tmp_path))["runs"][0]["strict"]["micro"]["correct"] == 1
    gold = "".join(json.dumps({"id": name, "text": TEXT, "entities": []}) + "\n" for name in "ab")
    (tmp_path / "gold" / "part-000.parquet").unlink()
    (tmp_path / "gold" / "part.jsonl").write_text(gold)
    assert job.evaluate(plan_of(tmp_path, output=f"{tmp_path}/out2"))["runs"][0]["strict"]["micro"]["predicted"] == 1


def test_what_is_joined(tmp_path):
    """Each gold row once, with its own predictions, in batches; rejected rules and skipped rows are counted."""
    gold, good, bad = corpus(500)
    ids = [f"r{i}" for i in range(500)]
    write(tmp_path / "gold", gold_table(gold, ids), 3)
    write(tmp_path / "run", run_table(good[::-1], ids[::-1]), 4)
    write(tmp_path / "other", run_table(bad[:400], ids[:400]))
    plan = plan_of(tmp_path, against=str(tmp_path / "other"), without_prediction="skip")
    progress = []
    with join(plan.sources, plan.config, progress.append) as rows:
        table = pa.Table.from_batches(rows.batches(64)).sort_by("id").to_pylist()
        texts = rows.texts({"r7", "r12"})
        assert (rows.gold_skipped, rows.predictions_skipped, rows.types) == (100, 0, ("LOC", "ORG", "PER"))
    assert texts == {"r7": TEXT, "r12": TEXT}
    assert sum(progress) == 1400
    assert [row["id"] for row in table] == sorted(ids[:400])
    for row in table:
        number = int(row["id"][1:])
        for name, side in (("gold", gold), ("entities0", good), ("entities1", bad)):
            spans = [(span["start"], span["end"], span["type"]) for span in row[name]]
            assert sorted(spans) == sorted(set(side[number]))
        assert row["status0"] == row["status1"] == "ok"


def test_reading_does_not_depend_on_units(tmp_path):
    """Whole or in pieces, the same rows."""
    gold, good, _ = corpus(50)
    write(tmp_path / "gold", gold_table(gold))
    write(tmp_path / "run", run_table(good), 3)
    tables = []
    for unit_rows in (4, 1000):
        source = plan_of(tmp_path, job={"unit_rows": unit_rows}).sources[1]
        errors = ValidationErrors()
        tables.append(pa.concat_tables([read(source, unit, errors) for unit in source.units]))
        errors.stop_if_any()
    assert tables[0].equals(tables[1])


BREAK_SCIPY = """
import scipy.optimize
solve = scipy.optimize.linear_sum_assignment
def broken(weights, maximize):
    rows, columns = solve(weights, maximize)
    return rows, columns[:-1]
scipy.optimize.linear_sum_assignment = broken
"""
RUN = """
from ner_batch.cli import main
try:
    main()
finally:
    import sys
    print("modules:", *sorted({"ray", "torch", "vllm"} & set(sys.modules)), file=sys.stderr)
"""


def command(folder, before=""):
    """`ner-batch evaluate folder/job.yaml` in a process of its own."""
    values = {"predictions": {"path": f"{folder}/run"}, "gold": {"path": f"{folder}/gold"}, "output": f"{folder}/out"}
    (folder / "job.yaml").write_text(yaml.safe_dump(values))
    arguments = [sys.executable, "-c", before + RUN, "evaluate", str(folder / "job.yaml")]
    return subprocess.run(arguments, capture_output=True, text=True, env=os.environ, check=False)


def test_a_bug_shows_its_traceback(tmp_path):
    """An invariant that breaks in the pairing (a solver of SciPy's that loses a column) is not the user's fault: exit
    code 1, a traceback, no report. Unbroken, the same command is fine, and needs no Ray."""
    write(tmp_path / "gold", gold_table([[(0, 4, "LOC"), (5, 9, "LOC")]], ["a"]))
    write(tmp_path / "run", run_table([[(3, 9, "LOC"), (6, 8, "LOC")]], ["a"]))
    broken = command(tmp_path, BREAK_SCIPY)
    assert broken.returncode == 1, broken.stderr
    assert "Traceback" in broken.stderr
    assert "ValueError: zip()" in broken.stderr
    assert "error:" not in broken.stderr.splitlines()[0]
    assert not list((tmp_path / "out").glob("*"))
    fine = command(tmp_path)
    assert fine.returncode == 0, fine.stderr
    assert fine.stderr.splitlines()[-1] == "modules:"
    assert (tmp_path / "out" / "report.json").exists()


def test_white_space_at_the_edges_of_gold_is_trimmed(tmp_path):
    """As training reads it; of predictions nothing is changed."""
    text = pa.array(["Anna Smith met Bob."])
    spaced, exact = [[(0, 11, "PER")], [(0, 10, "PER")]]
    (tmp_path / "both").mkdir()
    rows = pa.table({"id": ["1"], "text": text})
    kind = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("type", pa.string())]))
    for name, spans in (("gold", spaced), ("entities", exact)):
        column = pa.array([[dict(zip(("start", "end", "type"), span, strict=True)) for span in spans]], kind)
        rows = rows.append_column(name, column)
    pq.write_table(rows, tmp_path / "both" / "a.parquet")
    values = {"predictions": {"path": f"{tmp_path}/both"}, "gold": {"column": "gold"}, "output": f"{tmp_path}/out"}
    plan = job.prepare(EvaluateConfig.model_validate(values))
    (source,) = {source.name: source for source in plan.sources}.values()
    table = read(source, source.units[0], ValidationErrors())
    assert [span["end"] for span in table["gold"].to_pylist()[0]] == [10]
    assert table["gold"].to_pylist()[0][0]["start"] == table["entities"].to_pylist()[0][0]["start"] == 0
