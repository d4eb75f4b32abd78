"""What bad input gets from `ner-batch evaluate`: one clear line each, exit code 2, no report."""

import pyarrow as pa
import pytest
import yaml
from evaluations import TEXT, gold_table, run_table, write
from refusals import refused
from typer.testing import CliRunner

from ner_batch.cli import app
from ner_batch.data import Entity, Prediction, predictions_table

SPAN = [(0, 3, "PER")]
BARE = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("type", pa.string()), ("text", pa.string())]))


@pytest.fixture
def run(tmp_path):
    """Runs the job on two good folders with changes; (exit code, error lines). There is never a report afterwards."""
    write(tmp_path / "gold", gold_table([SPAN, SPAN], ["a", "b"]))
    write(tmp_path / "run", run_table([SPAN, []], ["a", "b"]))
    values = {
        "predictions": {"path": str(tmp_path / "run")},
        "gold": {"path": str(tmp_path / "gold")},
        "output": str(tmp_path / "report"),
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(values))

    def evaluate(*overrides):
        outcome = CliRunner().invoke(app, ["evaluate", str(tmp_path / "job.yaml"), *map(str, overrides)])
        assert not isinstance(outcome.exception, ValueError), outcome.exception
        assert not list((tmp_path / "report").glob("*"))
        return outcome.exit_code, outcome.stderr.splitlines()

    return evaluate


def spans(*rows):
    """A column of spans (start, end, type, text) that may be wrong."""
    names = ("start", "end", "type", "text")
    return pa.array([None if r is None else [dict(zip(names, s, strict=True)) for s in r] for r in rows], BARE)


def gold_of(column, ids=("a", "b"), text=TEXT):
    return pa.table({"id": list(ids), "text": [text] * len(ids), "entities": column})


def test_missing_paths(run, tmp_path):
    """Each of the three places."""
    refused(run("predictions.path=/nowhere/at/all"), "/nowhere/at/all")
    refused(run("gold.path=/nowhere/at/all"), "/nowhere/at/all")
    refused(run("against=/nowhere/at/all"), "/nowhere/at/all")


def test_no_such_task(run, tmp_path):
    """Without this every entity would be of another task, and F1 0."""
    (tmp_path / "run" / "_manifest.json").write_text('{"state": "complete", "types": {"news": ["PER"]}}')
    refused(run("predictions.task=mews"), "predictions.task", "'mews'", "there are news")
    write(tmp_path / "other", run_table([SPAN, []], ["a", "b"]))
    (tmp_path / "other" / "_manifest.json").write_text('{"state": "complete", "types": {"a": ["PER"], "b": ["PER"]}}')
    refused(run("predictions.task=news", f"against={tmp_path / 'other'}"), "against", "'news'", "there are a, b")


def test_no_such_columns(run):
    """The config's field and what there is are told."""
    refused(run("predictions.column=ents"), "predictions.column", "'ents'", "entities, ungrounded")
    refused(run("predictions.id_column=doc"), "predictions.id_column", "'doc'")
    refused(run("gold.column=gold"), "gold.column", "'gold'")
    refused(run("gold.text_column=content"), "'content'")


def test_the_field_that_is_wrong_is_named(run, tmp_path):
    """Gold without an id is gold's business; a span's field of another type, a score that is no probability."""
    write(tmp_path / "bare", gold_of(spans([], [])).drop_columns("id"))
    code, lines = run(f"gold.path={tmp_path / 'bare'}")
    assert code == 2
    assert any("gold.id_column" in line for line in lines)
    odd = run_table([SPAN, []], ["a", "b"], [-2.5, None])
    write(tmp_path / "odd", odd)
    refused(run(f"predictions.path={tmp_path / 'odd'}"), "scores outside 0 to 1", "a")
    kind = pa.list_(pa.struct([("start", pa.string()), ("end", pa.int64()), ("type", pa.string())]))
    words = pa.array([[{"start": "x", "end": 3, "type": "PER"}], []], kind)
    write(tmp_path / "words", pa.table({"id": ["a", "b"], "text": [TEXT] * 2, "entities": words}))
    refused(run(f"predictions.path={tmp_path / 'words'}"), "field 'start'", "string")


def test_several_tasks_are_not_pooled(run, tmp_path):
    """Their names are told, and one of them can be asked for."""
    found = [Entity(0, 3, "PER", TEXT[:3], task="one"), Entity(0, 3, "ORG", TEXT[:3], task="two")]
    table = predictions_table([Prediction(tuple(found)), Prediction()], tagged=True)
    table = table.add_column(0, "text", [[TEXT] * 2]).add_column(0, "id", [["a", "b"]])
    write(tmp_path / "two", table)
    refused(run(f"predictions.path={tmp_path / 'two'}"), "one, two", "predictions.task")


def test_contradictions_in_the_config(run):
    """Gold that is the predictions; nothing to join by; no text at all; a misspelt rule."""
    refused(run("gold.path=null"), "gold.column", "'entities' is the column of the predictions")
    refused(run("predictions.id_column=null"), "predictions.id_column")
    refused(run("predictions.text_column=null", "gold.text_column=null"), "predictions.text_column")
    refused(run("without_gold=ignore"), "without_gold", "refuse")


def test_columns_of_other_types(run, tmp_path):
    """Entities that are strings, ids that are lists."""
    write(tmp_path / "gold", gold_of(pa.array(["x", "y"])))
    refused(run(), "part-000.parquet", "'entities' is string", "start, end, type")
    write(tmp_path / "gold", gold_of(spans([], []), ids=[["a"], ["b"]]))
    refused(run(), "part-000.parquet", "'id' is list")


def test_duplicate_ids(run, tmp_path):
    """In gold and in predictions, over files too."""
    write(tmp_path / "gold", gold_table([SPAN, SPAN, SPAN], ["a", "b", "b"]), 2)
    refused(run(), "gold", "more than one row", "b")
    write(tmp_path / "gold", gold_table([SPAN, SPAN], ["a", "b"]), 2)
    (tmp_path / "gold" / "part-001.parquet").unlink()
    write(tmp_path / "gold", gold_table([SPAN, SPAN], ["a", "b"]))
    write(tmp_path / "run", run_table([SPAN] * 3, ["a", "b", "a"]), 2)
    refused(run(), "predictions", "more than one row", "a")


def test_duplicate_ids_with_gold_in_the_same_rows(run, tmp_path):
    """Where nothing is joined too, in units that never meet."""
    table = run_table([SPAN] * 3, ["a", "b", "a"]).append_column("gold", gold_table([SPAN] * 3)["entities"])
    write(tmp_path / "run", table, 3)
    refused(run("gold.path=null", "gold.column=gold"), "predictions", "more than one row", ": a;")


def test_ids_that_do_not_match(run, tmp_path):
    """On either side, named, with the remedy."""
    write(tmp_path / "gold", gold_table([SPAN] * 3, ["a", "b", "c"]))
    refused(run(), "predictions: no row for gold's ids: c", "without_prediction=miss")
    write(tmp_path / "gold", gold_table([SPAN], ["a"]))
    refused(run(), "predictions: ids that gold does not have: b", "without_gold=skip")
    write(tmp_path / "gold", gold_table([SPAN] * 2, ["a", "b"]))
    write(tmp_path / "other", run_table([SPAN], ["a"]))
    refused(run(f"against={tmp_path / 'other'}"), "against: no row for gold's ids: b")


def test_no_id_in_common(run, tmp_path):
    """Everything left out is nothing to score."""
    write(tmp_path / "gold", gold_table([SPAN] * 2, ["x", "y"]))
    code, lines = run()
    assert (code, len(lines)) == (2, 2)
    refused(run("without_prediction=skip", "without_gold=skip"), "nothing to score")


def test_many_problems_are_counted(run, tmp_path):
    """Five are named, the rest are counted."""
    write(tmp_path / "gold", gold_table([SPAN] * 12, [f"g{i:02}" for i in range(12)]))
    code, lines = run("without_gold=skip")
    assert code == 2
    assert "g00, g01, g02, g03, g04 and 7 more" in lines[0]


def test_null_ids_and_missing_gold(run, tmp_path):
    """A row without an id; a row whose gold is null and not []."""
    write(tmp_path / "gold", gold_of(spans([], []), ids=("a", None)))
    refused(run(), "gold", "id is null", "part-000.parquet row 1")
    write(tmp_path / "gold", gold_of(spans([], None)))
    refused(run(), "gold: column 'entities' is null in rows: b", "nobody has looked")


def test_other_text_under_the_same_id(run, tmp_path):
    """One character is enough."""
    write(tmp_path / "gold", gold_of(spans([], []), text=TEXT + "!"))
    refused(run(), "predictions", "other text than gold", "a, b")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ((20, 27, "PER", None), ("a has [20, 27) PER in 26 characters", "half-open")),
        ((5, 5, "PER", None), ("a has [5, 5) PER",)),
        ((-1, 5, "PER", None), ("a has [-1, 5) PER",)),
        ((0, 3, "PER", "abd"), ("reads 'abc', not 'abd'",)),
        ((0, 3, None, "abc"), ("without start, end or type: a",)),
        ((None, 3, "PER", "abc"), ("without start, end or type: a",)),
    ],
)
def test_spans_that_do_not_fit(run, tmp_path, wrong, words):
    """Out of range, empty, other words, incomplete; in gold and in predictions."""
    write(tmp_path / "gold", gold_of(spans([wrong], [])))
    refused(run(), "gold: column 'entities'", *words)
    write(tmp_path / "gold", gold_table([SPAN, SPAN], ["a", "b"]))
    write(tmp_path / "run", gold_of(spans([wrong], [])))
    refused(run(), "predictions: column 'entities'", *words)


def test_spans_beyond_a_text_that_only_one_side_has(run, tmp_path):
    """The run did not keep its text: gold's is asked, and the other way round."""
    beyond = gold_of(spans([(20, 27, "PER", None)], []))
    write(tmp_path / "run", beyond.drop_columns("text"))
    refused(run("predictions.text_column=null"), "predictions", "behind their text", "a")
    write(tmp_path / "run", run_table([SPAN, []], ["a", "b"]))
    write(tmp_path / "gold", beyond.drop_columns("text"))
    refused(run("gold.text_column=null"), "gold", "behind their text", "a")


def test_files_that_cannot_be_read(run, tmp_path):
    """A shard that is no Parquet is named, and nothing is scored without it."""
    (tmp_path / "run" / "part-001.parquet").write_bytes(b"not parquet at all, not at all")
    refused(run(), "predictions", "part-001.parquet")


def test_no_rows(run, tmp_path):
    """An empty gold file."""
    write(tmp_path / "gold", gold_table([SPAN], ["a"]).slice(0, 0), 1)
    import pyarrow.parquet as pq

    pq.write_table(gold_table([SPAN], ["a"]).slice(0, 0), tmp_path / "gold" / "part-000.parquet")
    refused(run(), "gold", "no rows")


def test_an_old_report_stays(run, tmp_path):
    """A run that is refused leaves the report of an earlier one as it was."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text("{}")
    write(tmp_path / "gold", gold_table([SPAN], ["a"]))
    refused(run(f"output={tmp_path / 'old'}"), "without_gold")
    assert [p.name for p in (tmp_path / "old").iterdir()] == ["report.json"]
