"""Which runs go on where another stopped, and which are refused."""

import importlib.metadata
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ner_batch.data import Prediction, Status
from ner_batch.errors import UserError
from ner_batch.extraction import dryrun, manifest, recipe
from ner_batch.extraction.job import check_unchanged
from ner_batch.extraction.plan import prepare
from ner_batch.extraction.settings import ExtractConfig
from ner_batch.extraction.tracker import Tracker
from ner_batch.extraction.units import UnitFiles, read_blocks, with_predictions


@pytest.fixture
def config(tmp_path, random_model):
    """Three units of two rows."""
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["Anna", "b", "c", "d", "e", "f"]}), tmp_path / "in" / "a.parquet")
    (tmp_path / "task.yaml").write_text("name: t\nlabels: [NAME]\n")
    return ExtractConfig.model_validate(
        {
            "input": {"path": str(tmp_path / "in")},
            "output": {"path": str(tmp_path / "out")},
            "engine": {"model": random_model, "max_model_len": 2048},
            "task": str(tmp_path / "task.yaml"),
            "job": {"unit_rows": 2},
        }
    )


def begun(config, *statuses):
    """A run that has written as many units as there are statuses, every row of a unit with its status."""
    plan = prepare(config)
    manifest.write(plan, "running", {})
    for unit, status in zip(plan.pending, statuses, strict=False):
        (block,) = read_blocks(unit, plan.destination, Tracker())
        sink = UnitFiles(plan.destination, Tracker())
        assert sink.write_unit(with_predictions(block, [Prediction(status=status)] * unit.rows)).error is None
    return plan


def test_a_unit_is_done_when_its_file_is_there(config):
    """The others are to do; what is done adds up."""
    plan = begun(config, Status.OK, Status.EMPTY)
    after = prepare(config)
    assert after.pending == plan.pending[2:]
    assert after.rows_before == 4
    assert after.retried == {}


def test_json_lines_of_other_types_are_another_run(config, tmp_path):
    """A file may be added; not one by which a column of what is written already would have another type."""
    (tmp_path / "in" / "a.parquet").unlink()
    (tmp_path / "in" / "a.jsonl").write_text('{"text": "Anna", "n": 1}\n{"text": "Bob", "n": 2}\n')
    plan = begun(config, Status.OK)
    (tmp_path / "in" / "b.jsonl").write_text('{"text": "Cleo", "n": 3}\n')
    assert prepare(config).pending == prepare(config).units[1:]
    assert prepare(config).rows_before == len(plan.units[0:1]) * 2
    (tmp_path / "in" / "b.jsonl").write_text('{"text": "Cleo", "n": "three"}\n')
    with pytest.raises(UserError, match=r"input\.columns was text string, n int64, is text string, n JSON"):
        prepare(config)
    with pytest.raises(UserError, match=r"input\.id_column: n must be kept"):
        prepare(
            config.model_copy(
                update={
                    "input": config.input.model_copy(update={"id_column": "n"}),
                    "output": config.output.model_copy(update={"keep": ("text",)}),
                }
            )
        )


def test_a_dry_run_tells_rows_that_cannot_be_read(config, tmp_path):
    """They will be `failed`; taken for empty ones they would make the estimate right and the night wrong."""
    (tmp_path / "in" / "a.parquet").unlink()
    (tmp_path / "in" / "a.jsonl").write_text(
        '{"text": "Anna"}\n{"text": "torn\n{"text": 5}\n{"text": 6}\n{"text": null}\n'
    )
    unreadable = Counter()
    assert dryrun.sample(prepare(config), unreadable) == [["Anna"], [None]]
    assert unreadable == {
        "not JSON: Invalid control character at character 14": 1,
        "text is number, not a string": 2,
    }


def test_retry_takes_units_with_failed_rows_and_no_others(config):
    """They are pending again, with what they have; asked for alone."""
    plan = begun(config, Status.OK, Status.FAILED, Status.MALFORMED)
    assert prepare(config).pending == ()
    after = prepare(config, retry=["failed"])
    assert after.pending == plan.pending[1:2]
    assert after.retried == {plan.pending[1].name: {Status.FAILED}}
    assert after.rows_before == 4
    assert (after.rows_to_read, after.finished) == (2, {unit.name for unit in plan.pending[:3]})
    assert prepare(config, retry=["malformed", "failed"]).pending == plan.pending[1:]
    assert prepare(config, retry=["partial"]).pending == ()
    for wrong in ("ok", "empty", "Failed"):
        with pytest.raises(UserError, match=f"--retry-status {wrong}: known are partial, truncated, malformed"):
            prepare(config, retry=[wrong])


def test_a_dry_run_of_a_retry_reads_what_is_to_be_done_again(config):
    """The rows of the statuses asked for, of units that have a file; what is there stays."""
    plan = begun(config)
    (block,) = read_blocks(plan.pending[1], plan.destination, Tracker())
    predictions = [Prediction(status=Status.OK), Prediction(status=Status.FAILED)]
    UnitFiles(plan.destination, Tracker()).write_unit(with_predictions(block, predictions))
    assert dryrun.sample(prepare(config), Counter()) == [["Anna", "b"], ["e", "f"]]
    assert dryrun.sample(prepare(config, retry=["failed"]), Counter()) == [["Anna", "b"], ["d"], ["e", "f"]]


def test_a_plan_that_another_run_has_overtaken_is_refused(config):
    """Between the plan and the lease another run may have written to the output, with the same settings or others."""
    same, other = prepare(config), prepare(config.model_copy(update={"decoding": "free"}))
    check_unchanged(same)
    begun(config, Status.OK)
    with pytest.raises(UserError, match=r"another run has written to .* meanwhile: start this one again"):
        check_unchanged(same)
    with pytest.raises(UserError, match="belongs to another run: decoding was auto, is free"):
        check_unchanged(other)
    check_unchanged(prepare(config))
    check_unchanged(prepare(config, retry=["failed"]))


def test_a_run_begun_before_a_release_goes_on_after_it(config, monkeypatch):
    """The package's version is no part of what decides an answer, not even where an earlier release wrote it down."""
    plan = begun(config, Status.OK)
    path = Path(config.output.path) / manifest.MANIFEST
    before = json.loads(path.read_text())
    before["fingerprint"] = {**plan.fingerprint, "code": "0.1.0"}
    path.write_text(json.dumps(before))
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9.9" if name == "ner-batch" else real(name))
    after = prepare(config)
    assert after.fingerprint == plan.fingerprint
    assert after.pending == plan.pending[1:]


def test_another_answers_version_is_another_run(config, monkeypatch):
    """It is changed on purpose, and then no folder mixes two kinds of answers. The first had no name yet."""
    begun(config, Status.OK)
    path = Path(config.output.path) / manifest.MANIFEST
    before = json.loads(path.read_text())
    del before["fingerprint"]["answers"]
    path.write_text(json.dumps(before))
    monkeypatch.setattr(recipe, "ANSWERS_VERSION", "of tomorrow")
    with pytest.raises(UserError, match="answers was 1, is of tomorrow"):
        prepare(config)


def test_another_layout_is_refused_with_every_difference(config):
    """One line for each."""
    begun(config, Status.OK)
    changed = config.model_copy(update={"job": config.job.model_copy(update={"unit_rows": 3})})
    with pytest.raises(UserError, match=r"job.unit_rows was 2, is 3\n.*limit was None, is 4"):
        prepare(changed, limit=4)


def test_a_foreign_folder_is_refused(config, tmp_path):
    """Parquet files without our manifest."""
    (tmp_path / "out").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "out" / "theirs.parquet")
    with pytest.raises(UserError, match=r"holds 1 Parquet files and no _manifest\.json"):
        prepare(config)
    for theirs in ("[]", "{}", '{"schema_version": 1}'):
        (tmp_path / "out" / "_manifest.json").write_text(theirs)
        with pytest.raises(UserError, match=r"_manifest\.json: not a manifest this version reads"):
            prepare(config)


def test_places_and_files_that_are_not_there_are_told_together(config):
    """Of another scheme, a template, a task: one line each, at once."""
    wrong = {
        "input": config.input.model_copy(update={"path": "gopher://x"}),
        "output": config.output.model_copy(update={"path": "gopher://y"}),
        "engine": config.engine.model_copy(update={"chat_template": "/no/x.jinja"}),
        "task": "/no/task.yaml",
    }
    with pytest.raises(UserError) as error:
        prepare(config.model_copy(update=wrong))
    lines = str(error.value).splitlines()
    for words in ("gopher://x", "gopher://y", "chat_template: /no/x.jinja", "/no/task.yaml"):
        assert sum(words in line for line in lines) == 1, lines


def test_input_may_grow_and_may_not_change(config, tmp_path):
    """A new file is more to do; one that is another than before, or gone, is named."""
    begun(config, Status.OK)
    pq.write_table(pa.table({"text": ["new"]}), tmp_path / "in" / "b.parquet")
    assert len(prepare(config).pending) == 3
    pq.write_table(pa.table({"text": ["changed"] * 6}), tmp_path / "in" / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet has changed"):
        prepare(config)
    (tmp_path / "in" / "a.parquet").unlink()
    with pytest.raises(UserError, match=r"a\.parquet was read by the earlier run .* and is gone"):
        prepare(config)
