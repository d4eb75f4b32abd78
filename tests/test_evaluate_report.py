"""Reports of odd input: several tasks, types that look like formulae, groups of nothing, scores on the edge of a bin."""

import json

import numpy as np
import pyarrow as pa
import pytest
import yaml
from evaluations import TEXT, gold_table, run_table, write
from typer.testing import CliRunner

from ner_batch.cli import app
from ner_batch.data import Entity, Prediction, predictions_table
from ner_batch.evaluate import calibration, plots


def evaluate(folder, *overrides):
    """The command on folder/run and folder/gold; (exit code, output, report)."""
    values = {"predictions": {"path": f"{folder}/run"}, "gold": {"path": f"{folder}/gold"}, "output": f"{folder}/out"}
    (folder / "job.yaml").write_text(yaml.safe_dump(values))
    outcome = CliRunner().invoke(app, ["evaluate", str(folder / "job.yaml"), *overrides])
    report = folder / "out" / "report.json"
    return outcome.exit_code, outcome.output, json.loads(report.read_text()) if report.exists() else None


@pytest.fixture
def two_tasks(tmp_path):
    """A run in which task one finds its gold and task two finds the same span under other types."""
    found = [
        Entity(0, 3, "PER", TEXT[:3], 0.9, task="one"),
        Entity(0, 3, "PER", TEXT[:3], 0.2, task="two"),
        Entity(5, 6, "ORG", TEXT[5:6], 0.2, task="two"),
    ]
    table = predictions_table([Prediction(tuple(found)), Prediction(), Prediction()], tagged=True)
    write(tmp_path / "run", table.add_column(0, "text", [[TEXT] * 3]).add_column(0, "id", [["a", "b", "c"]]))
    write(tmp_path / "gold", gold_table([[(0, 3, "PER")], [], []], ["a", "b", "c"]))
    return tmp_path


@pytest.mark.parametrize(("task", "predicted", "correct"), [("one", 1, 1), ("two", 2, 1), ("three", 0, 0)])
def test_one_task_of_several(two_tasks, task, predicted, correct):
    """Only its entities count, and only its scores."""
    code, _, report = evaluate(two_tasks, f"predictions.task={task}")
    assert code == 0
    micro = report["runs"][0]["strict"]["micro"]
    assert (micro["predicted"], micro["correct"], micro["gold"]) == (predicted, correct, 1)


@pytest.mark.parametrize(("override", "predicted"), [(None, 2), ("predictions.rejected=keep", 4)])
@pytest.mark.parametrize("gold", ["apart", "beside"])
def test_rejected_entities(tmp_path, override, predicted, gold):
    """What a run kept with `verified` false is no prediction; null means that nobody asked."""
    right = [(0, 3, "PER"), (5, 6, "ORG")]
    found = [Entity(s, e, t, TEXT[s:e], 0.9, v) for (s, e, t), v in zip(right, (True, None), strict=True)]
    wrong = [Entity(8, 9, "PER", TEXT[8:9], 0.1, False)]
    rows = [Prediction((*found, *wrong)), Prediction(), Prediction(tuple(wrong))]
    table = predictions_table(rows).add_column(0, "text", [[TEXT] * 3]).add_column(0, "id", [["a", "b", "c"]])
    told = gold_table([right, [], []], ["a", "b", "c"])
    write(tmp_path / "gold", told)
    write(tmp_path / "run", table if gold == "apart" else table.append_column("gold", told["entities"]))
    beside = [] if gold == "apart" else ["gold.path=null", "gold.column=gold"]
    code, output, report = evaluate(tmp_path, *beside, *([override] if override else []))
    assert code == 0, output
    micro = report["runs"][0]["strict"]["micro"]
    assert (micro["predicted"], micro["correct"], micro["gold"]) == (predicted, 2, 2)


def test_types_that_look_like_formulae(tmp_path):
    """No plot of them fails; a report that cannot be made leaves the old one."""
    write(tmp_path / "run", run_table([[(0, 3, "$x_$")], []], ["a", "b"]))
    write(tmp_path / "gold", gold_table([[(0, 3, "$x_$")], [(1, 2, "b^")]], ["a", "b"]))
    code, output, report = evaluate(tmp_path)
    assert code == 0, output
    assert set(report["runs"][0]["strict"]["types"]) == {"$x_$", "b^"}
    assert (tmp_path / "out" / "f1.png").exists()


def test_a_group_of_nothing_is_told(tmp_path):
    """A typing error does not look like a score of zero."""
    write(tmp_path / "run", run_table([[(0, 3, "PER")]], ["a"]))
    write(tmp_path / "gold", gold_table([[(0, 3, "PER")]], ["a"]))
    code, output, _ = evaluate(tmp_path, "groups={NE: ['*.NAMM']}")
    assert code == 0
    assert "groups.NE: no type like *.NAMM" in " ".join(output.split())


def test_gold_without_text_and_missing_rows(tmp_path):
    """Rows that the run does not have are missed, not faulty."""
    write(tmp_path / "run", run_table([[(0, 3, "PER")]], ["a"]))
    gold = gold_table([[(0, 3, "PER")], [(1, 2, "PER")]], ["a", "b"]).drop_columns("text")
    write(tmp_path / "gold", gold)
    code, output, report = evaluate(tmp_path, "without_prediction=miss", "gold.text_column=null")
    assert code == 0, output
    assert report["runs"][0]["strict"]["micro"]["recall"]["value"] == 0.5


def test_scores_on_an_edge_belong_above_it():
    """0.9 is 0.8999 as float32, and `at least 0.9` all the same."""
    scores = pa.array([0.7, 0.9, 0.1, 1.0, 0.0], pa.float32()).to_numpy()
    found = calibration.Reliability()
    found.add(scores, np.array([True] * 5), 5)
    bins = np.flatnonzero(found.bins[0]) / calibration.BINS
    assert bins == pytest.approx([0.0, 0.1, 0.7, 0.9, (calibration.BINS - 1) / calibration.BINS])


def test_types_called_as_the_report_calls_its_own_lines():
    """An entity type "none" is not what nobody found, and a type "micro" not all types together."""
    cells = [
        {"kind": "missed", "gold": "none", "predicted": None, "count": 7},
        {"kind": "spurious", "gold": None, "predicted": "none", "count": 5},
        {"kind": "correct", "gold": "none", "predicted": "none", "count": 3},
        {"kind": "type", "gold": "rare", "predicted": "none", "count": 2},
    ]
    grid = plots.confusion_grid(cells, ["micro", "none"])
    assert grid.tolist() == [[0, 0, 0], [0, 3, 7], [0, 5, 0]]


def test_a_plot_of_types_called_none_and_micro(tmp_path):
    """Each has its line, with its own figures."""
    write(tmp_path / "run", run_table([[(0, 3, "none"), (4, 5, "micro")]], ["a"]))
    write(tmp_path / "gold", gold_table([[(0, 3, "none"), (5, 6, "micro")]], ["a"]))
    code, output, report = evaluate(tmp_path, "groups={micro: [none]}")
    assert code == 0, output
    lines = [(label, entry["f1"]["value"]) for label, entry in plots.f1_lines(report["runs"][0])]
    assert lines == [("micro (1)", 0.0), ("none (1)", 1.0), ("group micro", 1.0), ("macro", 0.5), ("micro", 0.5)]
