"""What surrounds prediction on a replica: who may run beside whom, and how output rows are put together."""

import asyncio
import io
from contextlib import nullcontext

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from ner_batch.config import ExtractConfig
from ner_batch.data import PREDICTIONS, Prediction, Status
from ner_batch.extract import plan
from ner_batch.extract.progress import ProgressLine, Tally, duration
from ner_batch.extract.unit import Destination, Gate, assemble, read_report
from ner_batch.io.shards import list_shards


def test_a_suspect_is_alone_and_nobody_starves():
    """Ordinary units overlap; a suspect waits for them, runs with nobody beside it, and lets the later ones in."""
    log, inside = [], set()

    async def visit(gate, name, alone):
        async with gate.enter(alone):
            inside.add(name)
            log.append((name, frozenset(inside)))
            await asyncio.sleep(0.01)
            inside.remove(name)

    async def scene():
        gate = Gate()
        order = [("a", False), ("b", False), ("SUSPECT", True), ("c", False), ("SUSPECT2", True), ("d", False)]
        await asyncio.wait_for(asyncio.gather(*(visit(gate, *who) for who in order)), timeout=5)

    asyncio.run(scene())
    together = dict(log)
    assert together["b"] == {"a", "b"}
    assert together["SUSPECT"] == {"SUSPECT"}
    assert together["SUSPECT2"] == {"SUSPECT2"}
    assert {name for name, _ in log} == {"a", "b", "c", "d", "SUSPECT", "SUSPECT2"}


def test_a_gate_survives_a_death_inside():
    """An exception inside leaves the gate usable."""

    async def scene():
        gate = Gate()
        for alone in (True, False):
            with pytest.raises(RuntimeError):
                async with gate.enter(alone):
                    raise RuntimeError
        async with gate.enter(alone=True):
            return True

    assert asyncio.run(scene())


def test_columns_kept_dropped_and_renamed():
    """The input's columns as configured, then exactly ours."""
    table = pa.table({"id": [1], "text": ["x"], "entities": [["gold"]], "big": ["y"]})
    row = [Prediction(status=Status.EMPTY)]
    kept = assemble(table, row, Destination("o", "text", {"entities": "gold"}, None, ("big",), {}))
    assert kept.column_names == ["id", "text", "gold", *PREDICTIONS.names]
    assert kept["gold"].to_pylist() == [["gold"]]
    chosen = assemble(table, row, Destination("o", "text", {}, ("id",), (), {}))
    assert chosen.column_names == ["id", *PREDICTIONS.names]


def test_no_column_kept():
    """keep: [] is none of the input's columns; every row still has its answer."""
    table = pa.table({"id": [1, 2], "text": ["x", "y"]})
    bare = assemble(table, [Prediction(), Prediction()], Destination("o", "text", {}, (), (), {}))
    assert bare.column_names == PREDICTIONS.names
    assert bare.num_rows == 2


def test_no_column_kept_meets_none_of_ours(tmp_path):
    """An input column `entities` is in the way, unless it is not kept."""
    pq.write_table(pa.table({"text": ["x"], "entities": [1]}), tmp_path / "a.parquet")
    listing = list_shards(str(tmp_path), "text")
    for keep, fits in ((None, False), ([], True), (["text"], True), (["entities"], False)):
        values = {"input": {"path": str(tmp_path)}, "output": {"path": "o", "keep": keep}, "engine": {"model": "m"}}
        config = ExtractConfig.model_validate(values | {"task": "t.yaml"})
        with nullcontext() if fits else pytest.raises(ValueError, match="would meet"):
            plan._check_columns(config, listing)


def test_a_foreign_file_in_the_output_is_named():
    """A Parquet file without our metadata is no unit of ours."""
    with pytest.raises(ValueError, match=r"x\.parquet: not written by ner_batch"):
        read_report({}, "x.parquet")


def test_the_line_counts_only_this_runs_speed():
    """Rows of earlier runs are done but not fast; outcomes other than ok are told; before the first row it says so."""
    tally = Tally(rows=1000, before=400)
    assert "engines are starting" in tally.line()
    tally.done, tally.tokens = 20, 1000
    assert tally.line() == "420 of 1,000 rows"
    seen, rows, tokens = tally.first
    tally.first = (seen - 10, rows, tokens)
    tally.done, tally.tokens = 120, 6000
    tally.statuses = {"ok": 90, "failed": 10}
    line = tally.line()
    assert line.startswith("520 of 1,000 rows | 10.0 rows/s | 500 tokens/s | ETA 48 s")
    assert line.endswith("10 failed")


@pytest.mark.parametrize(("seconds", "words"), [(4, "4 s"), (89, "89 s"), (300, "5 min"), (27_600, "7 h 40 min")])
def test_durations_read_well(seconds, words):
    """Seconds, minutes, hours."""
    assert duration(seconds) == words


def test_plain_lines_are_rare():
    """In a log file a line comes every ten seconds at most."""
    out = io.StringIO()
    with ProgressLine(Console(file=out)) as line:
        for _ in range(5):
            line.show(Tally(rows=1))
    assert out.getvalue() == ""
