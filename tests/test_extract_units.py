"""What surrounds prediction on a replica: who may run beside whom, how a unit is read and how its file is written."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ner_batch.data import PREDICTIONS, Entity, Prediction, Status, Ungrounded
from ner_batch.extraction import plan
from ner_batch.extraction.job import ExtractionLine, large_first
from ner_batch.extraction.settings import ExtractConfig, InputConfig, OutputConfig
from ner_batch.extraction.tracker import RunProgress, SharedLock, Tracker
from ner_batch.extraction.units import (
    Destination,
    UnitFiles,
    earlier_predictions,
    read_blocks,
    read_report,
    unit_of,
    with_predictions,
)
from ner_batch.io import tables
from ner_batch.io.listing import list_shards
from ner_batch.io.shards import plan_units


def test_a_suspect_is_alone_and_nobody_starves():
    """Ordinary units overlap; a suspect waits for them, runs with nobody beside it, and lets the later ones in.

    The two ordinary units of each pair meet at a barrier while inside, so they can only go on if both are.
    """
    lock, inside, seen = SharedLock(), set(), {}
    meetings = {frozenset("ab"): threading.Barrier(2), frozenset("cd"): threading.Barrier(2)}

    def visit(name, entry):
        with entry():
            inside.add(name)
            for pair, meeting in meetings.items():
                if name in pair:
                    meeting.wait(timeout=30)
            seen[name] = frozenset(inside)
            inside.remove(name)

    order = [("a", lock.shared), ("b", lock.shared), ("S", lock.exclusive), ("T", lock.exclusive), ("c", lock.shared)]
    with ThreadPoolExecutor(6) as pool:
        visits = [pool.submit(visit, *who) for who in [*order, ("d", lock.shared)]]
        for done in visits:
            done.result(timeout=30)
    assert seen["S"] == {"S"}
    assert seen["T"] == {"T"}
    assert set(seen) == set("abSTcd")


def test_a_lock_survives_an_exception_inside():
    """An exception inside leaves the lock usable."""
    lock = SharedLock()
    for entry in (lock.exclusive, lock.shared):
        with pytest.raises(RuntimeError), entry():
            raise RuntimeError
    with lock.exclusive():
        pass


def into(path, about=(), rename=(), **output):
    """A destination for rows of a column `text`."""
    source = InputConfig(path="unused", rename=dict(rename))
    return Destination(source, OutputConfig(path=str(path), **output), dict(about))


def blocks(destination, table, tmp_path, *retried):
    """A file's only unit, read as a block."""
    pq.write_table(table, tmp_path / "a.parquet")
    listing = list_shards(str(tmp_path / "a.parquet"), destination.source.text_column)
    (unit,) = plan_units(listing.shards, 1000, 10_000_000)
    (block,) = read_blocks(unit, destination, Tracker(), frozenset(retried))
    return unit, block


def written(destination, block, predictions):
    """The block's rows as they lie in the output file."""
    tracker = Tracker()
    report = UnitFiles(destination, tracker).write_unit(with_predictions(block, predictions, destination.tagged))
    assert report.error is None
    assert tracker.progress().statuses == report.statuses
    return pq.read_table(destination.uri(report.name))


def test_columns_kept_dropped_and_renamed(tmp_path):
    """The input's columns as configured, then exactly ours; the text is read also where it is not kept."""
    table = pa.table({"id": [1], "text": ["x"], "entities": [["gold"]], "big": ["y"]})
    predictions = [Prediction(status=Status.EMPTY)]
    out = tmp_path / "out"
    for names, destination in (
        (["id", "text", "gold"], into(out, rename={"entities": "gold"}, drop_input_columns=("big",))),
        (["id"], into(out, keep=("id",))),
        (["body"], into(out, rename={"text": "body"}, keep=("text",))),
        ([], into(out, keep=())),
    ):
        _, block = blocks(destination, table, tmp_path)
        assert block[destination.text_in_blocks].to_pylist() == ["x"]
        assert "big" not in block.column_names
        file = written(destination, block, predictions)
        assert file.column_names == [*names, *PREDICTIONS.names]
        assert file.num_rows == 1


def test_what_a_file_tells_of_its_unit(tmp_path):
    """Unit, statuses and run in the file's metadata; the input's own is left out: it may describe columns that are not
    kept, as pandas' does."""
    table = pa.table({"text": ["x"]}).replace_schema_metadata({"pandas": "{}"})
    destination = into(tmp_path / "out", about={"model": "m"})
    unit, block = blocks(destination, table, tmp_path)
    metadata = written(destination, block, [Prediction()]).schema.metadata
    assert set(metadata) == {b"ner_batch"}
    about = json.loads(metadata[b"ner_batch"])
    assert (about["name"], about["rows"], about["statuses"], about["model"]) == (unit.name, 1, {"ok": 1}, "m")


def test_spark_knows_the_calendar_of_old_dates_again(tmp_path):
    """Spark 3 refuses days before 1582 and times before 1900 of a file that does not say which Spark wrote it.

    What Spark says of the columns is left out, for there are more now.
    """
    spark = {"org.apache.spark.version": "3.5.9", "org.apache.spark.legacyDateTime": ""}
    table = pa.table({"text": ["x"]})
    kept = table.replace_schema_metadata({**spark, "org.apache.spark.sql.parquet.row.metadata": "{}"})
    _, block = blocks(into(tmp_path / "out"), kept, tmp_path)
    metadata = written(into(tmp_path / "out"), block, [Prediction()]).schema.metadata
    assert {key.decode() for key in metadata} == {*spark, "ner_batch"}
    assert metadata[b"org.apache.spark.version"] == b"3.5.9"


def test_rows_that_were_lost_on_the_way_are_never_written(tmp_path):
    """A block that is not the whole unit is a bug, and no file."""
    destination = into(tmp_path / "out")
    unit, block = blocks(destination, pa.table({"text": ["x", "y"]}), tmp_path)
    part = with_predictions(block, [Prediction()] * 2).slice(0, 1)
    with pytest.raises(AssertionError, match="1 of 2 rows"):
        UnitFiles(destination, Tracker()).write_unit(part)
    assert not (tmp_path / "out" / unit.name).exists()


def test_a_unit_that_cannot_be_read_is_a_report(tmp_path):
    """Its block says why; the replica passes it on, the sink reports it and writes nothing."""
    destination = into(tmp_path / "out")
    unit, _ = blocks(destination, pa.table({"text": ["x"]}), tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    (block,) = read_blocks(unit, destination, Tracker())
    assert block.num_rows == 1
    assert "a.parquet" in unit_of(block)["error"]
    report = UnitFiles(destination, Tracker()).write_unit(block)
    assert report.error == unit_of(block)["error"]
    assert list(tmp_path.glob("out/*")) == []


def test_a_retried_unit_brings_its_earlier_predictions(tmp_path):
    """Whatever they hold, as it was written; none for rows of the statuses that are done again."""
    table = pa.table({"text": ["Anna met Bob", None, "x"]})
    destination = into(tmp_path / "out")
    predictions = [
        Prediction((Entity(0, 4, "PER", "Anna", 0.5, True),), (Ungrounded("Carl", "PER", "not in text"),)),
        Prediction(status=Status.EMPTY),
        Prediction(status=Status.FAILED, error="why", prompt_tokens=3),
    ]
    _, block = blocks(destination, table, tmp_path)
    assert earlier_predictions(block) is None
    written(destination, block, predictions)
    for retried, again in (
        ((Status.FAILED,), {2}),
        ((Status.FAILED, Status.EMPTY), {1, 2}),
        ((Status.PARTIAL,), set()),
    ):
        _, block = blocks(destination, table, tmp_path, *retried)
        assert earlier_predictions(block) == [None if i in again else p for i, p in enumerate(predictions)]
    assert written(destination, block, predictions).column_names == ["text", *PREDICTIONS.names]


def test_no_column_kept_meets_none_of_ours(tmp_path):
    """An input column `entities` is in the way, unless it is not kept."""
    pq.write_table(pa.table({"text": ["x"], "entities": [1]}), tmp_path / "a.parquet")
    listing = list_shards(str(tmp_path), "text")
    for keep, fits in ((None, False), ([], True), (["text"], True), (["entities"], False)):
        values = {"input": {"path": str(tmp_path)}, "output": {"path": "o", "keep": keep}, "engine": {"model": "m"}}
        config = ExtractConfig.model_validate(values | {"task": "t.yaml"})
        with nullcontext() if fits else pytest.raises(ValueError, match="would meet"):
            plan._check_columns(config, listing)


@pytest.mark.parametrize("column", ["Status", "ENTITIES", "error"])
def test_names_that_differ_by_case_are_one(tmp_path, column):
    """DuckDB, Spark and Hive do not tell `Status` from `status`: refused in a job, a library call, and a rename."""
    table = pa.table({"text": ["x"], column: ["y"]})
    pq.write_table(table, tmp_path / "a.parquet")
    listing = list_shards(str(tmp_path), "text")

    def check(**source):
        values = {"input": {"path": str(tmp_path), **source}, "output": {"path": "o"}, "engine": {"model": "m"}}
        plan._check_columns(ExtractConfig.model_validate(values | {"task": "t.yaml"}), listing)

    with pytest.raises(ValueError, match=rf"column '{column}' would meet .*input.rename.{column}=gold_{column}"):
        check()
    check(rename={column: f"gold_{column}"})
    with pytest.raises(ValueError, match=r"(?i)two columns would be called 'text'"):
        check(rename={column: "TEXT"})
    with pytest.raises(ValueError, match=rf"'{column}': predictions come in columns of these names"):
        with_predictions(table, [Prediction()])


def test_columns_that_came_as_two_stay_two(tmp_path):
    """`A` and `a` of the input are not ours to judge."""
    pq.write_table(pa.table({"text": ["x"], "A": [1], "a": [2]}), tmp_path / "a.parquet")
    values = {"input": {"path": str(tmp_path)}, "output": {"path": "o"}, "engine": {"model": "m"}, "task": "t.yaml"}
    plan._check_columns(ExtractConfig.model_validate(values), list_shards(str(tmp_path), "text"))


def test_partitions_reach_the_output(tmp_path):
    """They are columns like others: kept, dropped, renamed."""
    (tmp_path / "in" / "lang=en").mkdir(parents=True)
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "in" / "lang=en" / "a.parquet")
    (unit,) = plan_units(list_shards(str(tmp_path / "in"), "text").shards, 10, 10**6)
    for destination, names in (
        (into(tmp_path / "out"), ["text", "lang"]),
        (into(tmp_path / "out", rename={"lang": "language"}), ["text", "language"]),
        (into(tmp_path / "out", keep=("lang",)), ["lang"]),
        (into(tmp_path / "out", drop_input_columns=("lang",)), ["text"]),
    ):
        (block,) = read_blocks(unit, destination, Tracker())
        file = written(destination, block, [Prediction()])
        assert file.column_names == [*names, *PREDICTIONS.names]
        assert set(names) == {"text"} or "en" in file.to_pylist()[0].values()


def test_a_report_counts_why_rows_failed(tmp_path):
    """The three most frequent errors, and they come back from the file."""
    destination = into(tmp_path / "out")
    errors = ["a", "b", "1 of 3 windows: a", "c", "2 of 1,300 answers: c", "a", "d", None]
    unit, block = blocks(destination, pa.table({"text": ["x"] * 8}), tmp_path)
    predictions = [Prediction(status=Status.FAILED if error else Status.OK, error=error) for error in errors]
    written(destination, block, predictions)
    report = read_report(tables.read_metadata(destination.uri(unit.name)), unit.name)
    assert report.reasons == {"a": 3, "c": 2, "b": 1}  # of how many windows decides nothing
    older = json.loads(tables.read_metadata(destination.uri(unit.name))["ner_batch"])
    del older["reasons"]
    assert read_report({"ner_batch": json.dumps(older)}, unit.name).reasons == {}


def test_a_foreign_file_in_the_output_is_named():
    """A Parquet file without our metadata is no unit of ours."""
    with pytest.raises(ValueError, match=r"x\.parquet: not written by ner_batch"):
        read_report({}, "x.parquet")


def test_the_line_counts_only_this_runs_speed():
    """Rows of earlier runs are done but not fast; outcomes other than ok are told; before the first row it says so."""
    line = ExtractionLine(rows=1000, rows_before=400)

    def counters(rows, tokens, replicas=1, **statuses):
        return RunProgress(rows, tokens, statuses, replicas, 0, (), None, answered=(3, 70))

    assert "engines are starting" in line.text(counters(0, 0, replicas=0))
    refused = RunProgress(0, 0, {}, 0, 0, (), ("vLLM did not start: no room", False))
    assert line.text(refused).endswith(": starting again, for vLLM did not start: no room")
    assert "engines ready: 1; no row finished yet, 3 prompts answered, 70 tokens" in line.text(counters(0, 0))
    waits = RunProgress(0, 0, {}, 1, 0, (), None, storage="[Errno 28] No space left on device")
    assert line.text(waits).endswith(", waiting for storage: [Errno 28] No space left on device")
    seconds, rows, tokens = line.baseline
    assert (rows, tokens) == (0, 0)  # from where replicas read, not from where their first rows are done
    line.baseline = (seconds - 2, rows, tokens)
    assert line.text(counters(20.9, 1000)).startswith("420 of 1,000 rows | 10.4 rows/s | 500 tokens/s | ETA ")
    line.baseline = (seconds - 12, rows, tokens)
    waits = RunProgress(120, 6000, {}, 1, 0, (), None, storage="no answer")
    assert line.text(waits).endswith(" | waiting for storage: no answer")
    text = line.text(counters(120, 6000, ok=90, failed=10))
    assert text.startswith("520 of 1,000 rows | 10.0 rows/s | 500 tokens/s | ETA 48 s")
    assert text.endswith("10 failed")


def test_the_largest_units_come_first_and_the_smallest_last(tmp_path):
    """Of shards of very different texts: the rest keeps its order, and equal units theirs."""
    for name, text, rows in (("a-small", "x", 20), ("b-middle", "z" * 100, 25), ("c-large", "y" * 1000, 20)):
        pq.write_table(pa.table({"text": [text] * rows}), tmp_path / f"{name}.parquet")
    units = list(plan_units(list_shards(str(tmp_path), "text").shards, 10, 10**7))

    def names(count):
        return [f"{unit.shard.name[0]}{unit.start}" for unit in large_first(units, count)]

    assert names(0) == ["a0", "a10", "b0", "b10", "b20", "c0", "c10"]
    assert names(1) == ["c0", "a0", "b0", "b10", "b20", "c10", "a10"]
    assert names(2) == ["c0", "c10", "b0", "b10", "b20", "a0", "a10"]
    assert names(99) == ["c0", "c10", "b0", "b10", "b20", "a0", "a10"]
