"""The evaluation through the command line, on files as the extraction job writes them; on S3."""

import json
import math
import os
import random
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from evaluations import TEXT, corpus, entities, gold_table, run_table, write
from real_data import real_file
from s3_server import BUCKET, point_at, s3_server
from typer.testing import CliRunner

from ner_batch.cli import app
from ner_batch.data import Prediction, Status, predictions_table
from ner_batch.evaluate.metrics import score
from ner_batch.io import storage


@pytest.fixture
def run(tmp_path):
    """Runs `ner-batch evaluate` on tmp_path/run and tmp_path/gold; gives its outcome."""
    values = {
        "predictions": {"path": str(tmp_path / "run")},
        "gold": {"path": str(tmp_path / "gold")},
        "output": str(tmp_path / "report"),
        "bootstrap": {"resamples": 200},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(values))

    def evaluate(*arguments):
        return CliRunner().invoke(app, ["evaluate", str(tmp_path / "job.yaml"), *map(str, arguments)])

    return evaluate


def report_of(outcome, folder):
    assert outcome.exit_code == 0, outcome.stderr
    return json.loads((folder / "report.json").read_text())


def without_paths(report):
    """What a report says, without where it read."""
    runs = [{k: v for k, v in r.items() if k != "predictions"} for r in report["runs"]]
    return {k: report[k] for k in ("rows", "bootstrap", "comparison")} | {"runs": runs}


def test_two_files_to_a_report(run, tmp_path):
    """Gold in one file, predictions in three in another order: the figures are those of the metric, with intervals."""
    gold, good, _ = corpus(120)
    write(tmp_path / "gold", gold_table(gold))
    table = run_table(good)
    write(tmp_path / "run", table.take(random.Random(0).sample(range(120), 120)), 3)
    outcome = run()
    report = report_of(outcome, tmp_path / "report")
    expected = score([entities(g) for g in gold], [entities(p) for p in good])
    strict = report["runs"][0]["strict"]
    assert strict["micro"]["f1"]["value"] == pytest.approx(expected.micro.f1)
    low, high = strict["micro"]["f1"]["interval"]
    assert low < expected.micro.f1 < high
    assert strict["types"]["PER"]["correct"] == expected.per_type["PER"].correct
    assert strict["macro"]["f1"]["value"] == pytest.approx(sum(c.f1 for c in expected.per_type.values()) / 3)
    assert report["comparison"] is report["runs"][0]["calibration"] is None
    assert f"{expected.micro.f1:.3f}" in outcome.stdout
    for name in ("f1.png", "confusion.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "report" / "calibration.png").exists()
    assert "r1" in (tmp_path / "report" / "report.md").read_text()


def test_gold_in_the_same_rows(run, tmp_path):
    """A column beside the predictions, as `input.rename={entities: gold_entities}` leaves it: the same report."""
    gold, good, _ = corpus(80)
    write(tmp_path / "gold", gold_table(gold))
    write(tmp_path / "run", run_table(good).append_column("gold_entities", gold_table(gold)["entities"]), 3)
    apart = report_of(run(), tmp_path / "report")
    beside = report_of(run("gold.path=null", "gold.column=gold_entities", "job.unit_rows=7"), tmp_path / "report")
    assert without_paths(beside) == without_paths(apart)
    nameless = report_of(
        run("gold.path=null", "gold.column=gold_entities", "predictions.id_column=null"), tmp_path / "report"
    )
    assert nameless["runs"][0]["strict"] == apart["runs"][0]["strict"]
    assert nameless["runs"][0]["worst"][0]["id"].startswith("part-")


def test_gold_in_json_lines(run, tmp_path):
    """The same figures, also where its text is a field."""
    gold, good, _ = corpus(30)
    write(tmp_path / "run", run_table(good))
    write(tmp_path / "gold", gold_table(gold))
    expected = without_paths(report_of(run(), tmp_path / "report"))
    rows = [row | {"doc": {"body": row.pop("text")}} for row in gold_table(gold).to_pylist()]
    (tmp_path / "gold.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    outcome = run(f"gold.path={tmp_path}/gold.jsonl", "gold.text_column=doc.body")
    assert without_paths(report_of(outcome, tmp_path / "report")) == expected


def test_is_another_run_better(run, tmp_path):
    """`--against`: difference, interval, share and p-value, and a sentence; against itself nothing."""
    gold, good, bad = corpus(200)
    write(tmp_path / "gold", gold_table(gold))
    write(tmp_path / "run", run_table(good), 2)
    write(tmp_path / "other", run_table(bad))
    outcome = run("--against", tmp_path / "other")
    found = report_of(outcome, tmp_path / "report")["comparison"]["strict/micro/f1"]
    first, second = (score([entities(g) for g in gold], [entities(p) for p in side]).micro.f1 for side in (good, bad))
    assert found["difference"] == pytest.approx(first - second)
    assert found["interval"][0] > 0
    assert found["p"] < 0.01
    assert f"better than {tmp_path / 'other'}" in outcome.stdout.replace("\n", "")
    outcome = run("--against", tmp_path / "run")
    found = report_of(outcome, tmp_path / "report")["comparison"]["strict/micro/f1"]
    assert (found["difference"], found["interval"], found["p"]) == (0.0, [0.0, 0.0], 1.0)
    assert "no difference" in outcome.stdout


def test_failed_rows_are_misses_and_are_named(run, tmp_path):
    """What a failed row lacks is missed, its id is in the report and on the terminal."""
    span = [(0, 3, "PER")]
    write(tmp_path / "gold", gold_table([span, span, []], ["a", "b", "c"]))
    statuses = [
        Prediction(entities(span)),
        Prediction(status=Status.FAILED, error="x"),
        Prediction(status=Status.EMPTY),
    ]
    ids = pa.table({"id": ["a", "b", "c"], "text": [TEXT] * 3})
    made = predictions_table(statuses)
    for name in made.column_names:
        ids = ids.append_column(name, made[name])
    write(tmp_path / "run", ids)
    outcome = run()
    found = report_of(outcome, tmp_path / "report")["runs"][0]
    assert found["strict"]["micro"]["recall"]["value"] == 0.5
    assert found["unanswered"] == {"failed": ["b"]}
    assert found["statuses"] == {"empty": 1, "failed": 1, "ok": 1}
    assert "1 rows failed, what they lack is missed: b" in outcome.stdout


def test_rows_without_a_partner_by_choice(run, tmp_path):
    """Gold without predictions may be missed or left out, predictions without gold left out."""
    span = [(0, 3, "PER")]
    write(tmp_path / "gold", gold_table([span] * 3, ["a", "b", "c"]))
    write(tmp_path / "run", run_table([span] * 3, ["a", "b", "x"]))
    missed = report_of(run("without_prediction=miss", "without_gold=skip"), tmp_path / "report")
    assert missed["runs"][0]["strict"]["micro"]["recall"]["value"] == pytest.approx(2 / 3)
    assert missed["runs"][0]["unanswered"] == {"no row": ["c"]}
    left = report_of(run("without_prediction=skip", "without_gold=skip"), tmp_path / "report")
    assert left["runs"][0]["strict"]["micro"]["recall"]["value"] == 1.0
    assert left["rows"] == {"scored": 2, "gold_skipped": 1, "predictions_skipped": 1}


def test_scores_are_judged_where_there_are_some(run, tmp_path):
    """Entities with scores: reliability, ECE and a threshold curve, by hand."""
    gold = [[(0, 3, "PER")]] * 10
    predicted = [[(0, 3, "PER")] if i < 6 else [(5, 8, "PER")] for i in range(10)]
    write(tmp_path / "gold", gold_table(gold))
    write(tmp_path / "run", run_table(predicted, scores=[0.95] * 5 + [0.55] * 5))
    outcome = run()
    found = report_of(outcome, tmp_path / "report")["runs"][0]["calibration"]
    assert [(b["entities"], b["accuracy"]) for b in found["reliability"]] == [(5, 0.2), (5, 1.0)]
    assert found["ece"] == pytest.approx((0.35 + 0.05) / 2)
    at = {step["threshold"]: step for step in found["thresholds"]}
    assert (at[0.0]["precision"], at[0.0]["recall"], at[0.0]["coverage"]) == (0.6, 0.6, 1.0)
    assert (at[0.9]["precision"], at[0.9]["recall"], at[0.9]["coverage"]) == (1.0, 0.5, 0.5)
    assert at[0.99]["coverage"] == 0.0
    assert "ECE 0.200" in outcome.stdout
    assert (tmp_path / "report" / "calibration.png").read_bytes().startswith(b"\x89PNG")
    write(tmp_path / "run", run_table(predicted))
    report_of(run(), tmp_path / "report")
    assert not (tmp_path / "report" / "calibration.png").exists()


def test_numbers_as_ids_and_bare_spans(run, tmp_path):
    """Ids may be numbers; spans need no more than start, end and type; an all-empty column may have no type."""
    bare = pa.list_(
        pa.struct([("start", pa.int64()), ("end", pa.int64()), ("type", pa.dictionary(pa.int8(), pa.string()))])
    )
    spans = pa.array([[{"start": 0, "end": 3, "type": "PER"}], []], bare)
    write(tmp_path / "gold", pa.table({"id": [1, 2], "text": [TEXT] * 2, "entities": spans}))
    write(tmp_path / "run", pa.table({"id": ["1", "2"], "text": [TEXT] * 2, "entities": [[], []]}))
    found = report_of(run(), tmp_path / "report")["runs"][0]
    assert found["strict"]["micro"]["gold"] == 1
    assert found["statuses"] == {}


def test_no_entity_anywhere(run, tmp_path):
    """Nothing in gold and nothing found scores 0, not an error and not NaN."""
    write(tmp_path / "gold", gold_table([[], []]))
    write(tmp_path / "run", run_table([[], []]))
    found = report_of(run(), tmp_path / "report")["runs"][0]
    assert found["strict"]["micro"]["f1"]["value"] == 0.0
    assert not math.isnan(found["strict"]["macro"]["f1"]["value"])


def test_an_unfinished_run_is_said_to_be(run, tmp_path):
    """Gold lies in the same rows, so nothing would be missing: the run's manifest tells."""
    gold, good, _ = corpus(20)
    write(tmp_path / "run", run_table(good).append_column("gold", gold_table(gold)["entities"]))
    (tmp_path / "run" / "_manifest.json").write_text('{"state": "interrupted"}')
    outcome = run("gold.path=null", "gold.column=gold")
    assert "not complete" in outcome.stdout
    assert report_of(outcome, tmp_path / "report")["unfinished"] == [str(tmp_path / "run")]


def test_a_dry_run_tells_what_would_be_read(run, tmp_path):
    """Rows and files of each side, what is passed over, runs that are not complete; no report is written."""
    gold, good, _ = corpus(20)
    write(tmp_path / "gold", gold_table(gold))
    write(tmp_path / "run", run_table(good), 2)
    (tmp_path / "gold" / "old.csv").touch()
    (tmp_path / "run" / "_manifest.json").write_text('{"state": "interrupted"}')
    outcome = run("--dry-run")
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.stdout.splitlines() == [
        f"gold: {tmp_path / 'gold'}: 20 rows in 1 files",
        "gold: passed over (hidden, links to the same, or files of another kind): old.csv",
        f"predictions: {tmp_path / 'run'}: 20 rows in 2 files",
        f"{tmp_path / 'run'}: its manifest says that the run is not complete",
    ]
    assert not list((tmp_path / "report").glob("*"))
    assert "gold: passed over" in run().stdout


def test_on_s3(run, tmp_path, monkeypatch):
    """Predictions, gold and report on S3: the same report."""
    gold, good, _ = corpus(60)
    write(tmp_path / "gold", gold_table(gold))
    write(tmp_path / "run", run_table(good), 2)
    local = report_of(run(), tmp_path / "report")
    with s3_server() as (endpoint, _):
        point_at(monkeypatch, endpoint)
        for folder in ("gold", "run"):
            for path in (tmp_path / folder).iterdir():
                storage.write_bytes(f"s3://{BUCKET}/{folder}/{path.name}", path.read_bytes())
        where = [f"predictions.path=s3://{BUCKET}/run", f"gold.path=s3://{BUCKET}/gold", f"output=s3://{BUCKET}/out"]
        outcome = run(*where)
        assert outcome.exit_code == 0, outcome.stderr
        report = storage.read_json(f"s3://{BUCKET}/out/report.json")
        names = {file.name for file in storage.list_files(f"s3://{BUCKET}/out")}
    assert without_paths(report) == without_paths(local)
    assert names == {"report.json", "report.md", "f1.png", "confusion.png"}


@pytest.mark.parametrize("name", ["slice:gum_wikinews", "slice:ncbi_disease", "weibo", "genia_devtest", "gum_named"])
def test_real_gold_sets(run, tmp_path, name):
    """Real gold, nested too, against itself is 1.0; half of it found is a recall of about a half. Weibo's groups are
    what the papers report apart."""
    path = real_file(f"{name}/test.parquet")
    table = pq.read_table(path)
    (tmp_path / "run").mkdir()
    pq.write_table(table, tmp_path / "run" / "all.parquet")
    groups = "groups={NE: ['*.NAM'], NM: ['*.NOM']}"
    found = report_of(run(f"gold.path={path}", groups), tmp_path / "report")["runs"][0]
    assert found["strict"]["micro"]["f1"] == {"value": 1.0, "interval": [1.0, 1.0]}
    assert found["errors"]["kinds"]["correct"] == found["strict"]["micro"]["gold"] > 0
    if name == "weibo":
        assert [found["strict"]["groups"][g]["gold"] for g in ("NE", "NM")] == [218, 200]
    half = pa.array([row[::2] for row in table["entities"].to_pylist()], table.schema.field("entities").type)
    position = table.column_names.index("entities")
    pq.write_table(table.set_column(position, "entities", half), tmp_path / "run" / "all.parquet")
    found = report_of(run(f"gold.path={path}", groups), tmp_path / "report")["runs"][0]
    assert found["strict"]["micro"]["precision"]["value"] == 1.0
    assert found["strict"]["micro"]["recall"]["value"] == pytest.approx(0.6, abs=0.15)
    assert found["errors"]["kinds"]["missed"] > 0


def test_a_terminal_that_cannot_show_a_type_loses_no_report(run, tmp_path):
    """Latin-1: what it cannot show is escaped, and the report is written before it is shown."""
    write(tmp_path / "run", run_table([[(0, 3, "地点")]]))
    write(tmp_path / "gold", gold_table([[(0, 3, "地点")]]))
    command = [sys.executable, "-m", "ner_batch", "evaluate", str(tmp_path / "job.yaml")]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="latin-1")
    assert done.returncode == 0, done.stderr
    assert r"\u5730\u70b9" in done.stdout
    assert "地点" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
