"""The search for the row that kills engines, without engines."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ner_batch.data import Prediction, Status
from ner_batch.errors import JobError
from ner_batch.extraction import tracker as trackers
from ner_batch.extraction.tracker import BAD_ROW, EXCUSES, SUSPECT, Tracker, UnitAttempts


def read_until_done(tracker, rows, poisoned):
    """A replica's life, over and over: it dies whenever it touches a poisoned row. Returns the number of deaths."""
    deaths = 0
    while True:
        if not tracker.unit_started("unit", rows):
            if not poisoned:
                return deaths
            deaths += 1
            continue
        while (span := tracker.next_range("unit")) is not None:
            if any(span[0] <= row < span[1] for row in poisoned):
                deaths += 1
                break
            tracker.range_done("unit", [Prediction(completion_tokens=row) for row in range(*span)])
        else:
            return deaths


@settings(deadline=None)
@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=3))))
def test_exactly_the_poisoned_rows_are_given_up_and_every_other_row_is_read_once(case):
    """Whatever the rows: kept ranges and poisoned rows tile the unit, after about log2(rows) deaths per poisoned row."""
    rows, poisoned = case
    tracker = Tracker()
    deaths = read_until_done(tracker, rows, poisoned)
    if not poisoned:
        assert deaths == 0
        return
    predictions = tracker.predictions("unit")
    assert len(predictions) == rows
    for row, prediction in enumerate(predictions):
        given_up = Prediction(status=Status.FAILED, error=BAD_ROW)
        assert prediction == (given_up if row in poisoned else Prediction(completion_tokens=row))
    assert deaths <= SUSPECT + len(poisoned) * (math.ceil(math.log2(rows)) + 1)


def test_a_unit_that_died_with_its_neighbours_is_not_blamed():
    """Two deaths make a unit suspect, but alone it comes through and nothing is given up."""
    tracker = Tracker()
    assert [tracker.unit_started("innocent", 10) for _ in range(3)] == [False, False, True]
    assert tracker.next_range("innocent") == (0, 10)
    tracker.range_done("innocent", [Prediction()] * 10)
    assert tracker.next_range("innocent") is None
    assert tracker.predictions("innocent") == [Prediction()] * 10


def test_a_death_while_waiting_to_be_alone_blames_no_range():
    """A suspect unit that dies before its first range starts again with the same range."""
    case = UnitAttempts(rows=8)
    for _ in range(5):
        case.start()
    assert case.waiting == [(0, 8)]
    assert case.predictions == {}


@pytest.mark.parametrize("rows", [0, 1])
def test_smallest_units(rows):
    """A unit without rows has no range; a unit of one row is its own suspect."""
    tracker = Tracker()
    for _ in range(3):
        tracker.unit_started("unit", rows)
    assert tracker.next_range("unit") == (None if rows == 0 else (0, 1))


def test_live_counters_forget_a_unit_that_is_done_or_starts_again():
    """Progress counts rows once: those written, and those of units still in flight."""
    tracker = Tracker()
    tracker.replica_started("r")
    tracker.unit_started("a", 10)
    tracker.rows_done("a", 4, 100)
    tracker.unit_started("b", 10)
    tracker.rows_done("b", 2, 50)
    report = tracker.progress()
    assert (report.rows, report.tokens, report.replicas, report.deaths) == (6, 150, 1, 0)
    tracker.unit_written("a", 250, {"ok": 9, "failed": 1})
    tracker.unit_started("b", 10)
    report = tracker.progress()
    assert (report.rows, report.tokens, report.statuses) == (10, 250, {"ok": 9, "failed": 1})


def test_what_waits_for_storage_is_known_until_it_works_or_the_unit_is_done(monkeypatch):
    """One cause is told, whichever; a process that was killed while it waited says nothing more."""
    tracker = Tracker()
    tracker.storage_waits("read a", "no answer")
    tracker.storage_waits("write b", "full")
    assert tracker.progress().storage == "no answer"
    tracker.storage_waits("read a", None)
    assert tracker.progress().storage == "full"
    tracker.unit_written("b", 0, {})
    assert tracker.progress().storage is None
    tracker.storage_waits("write c", "full")
    assert tracker.writes_wait()
    monkeypatch.setattr(trackers, "WAIT_SECONDS", 0.0)  # of a writer that was killed, and whose unit is read anew
    assert not tracker.writes_wait()
    assert tracker.progress().storage is None
    tracker.storage_lost("storage has failed for 60 s")
    assert tracker.progress().fatal == ("storage has failed for 60 s", False)


def test_past_the_limit_of_deaths_no_unit_starts():
    """A replica that starts again has died; the last cause is told, or that it was killed."""
    tracker = Tracker(max_engine_deaths=1)
    for _ in range(2):
        tracker.replica_started("a")
    tracker.replica_started("b")
    assert tracker.progress().deaths == 1
    assert tracker.unit_started("unit", 10) is False
    tracker.replica_started("b")
    with pytest.raises(JobError, match=r"engines died 2 times .*killed"):
        tracker.unit_started("unit", 10)
    tracker.engine_died("vLLM died: why")
    with pytest.raises(JobError, match="vLLM died: why"):
        tracker.unit_started("unit", 10)


def test_a_unit_that_is_predicted_is_blamed_for_nothing_later():
    """Its replica dies while it is written, say: read again, it is no suspect."""
    tracker = Tracker()
    for _ in range(4):
        assert tracker.unit_started("unit", 10) is False
        tracker.unit_predicted("unit")


def test_what_goes_with_its_node_is_nobodys_fault():
    """The replica's restart is no death, and its unit no suspect, however often; on a node that lives it is both."""
    tracker = Tracker(max_engine_deaths=0)
    tracker.replica_started("replica", "node 0", ["node 0"])
    assert not tracker.unit_started("unit", 8, "node 0")
    for number in range(1, 5):
        tracker.replica_started("replica", f"node {number}", [f"node {number}", "head"])
        assert not tracker.unit_started("unit", 8, f"node {number}")
    assert (tracker.deaths, tracker.progress().lost) == (0, 4)
    tracker.replica_started("replica", "node 4", ["node 4", "head"])
    assert tracker.deaths == 1
    with pytest.raises(JobError, match="engines died 1 times"):
        tracker.unit_started("unit", 8, "node 4")


def test_a_range_that_went_with_its_node_is_read_again_whole():
    """Only a death of the engine halves it."""
    tracker = Tracker()
    tracker.replica_started("replica", "a", ["a"])
    for _ in range(3):
        tracker.unit_started("unit", 8, "a")
    assert tracker.next_range("unit") == (0, 8)
    tracker.replica_started("replica", "b", ["b"])
    assert tracker.unit_started("unit", 8, "b")
    assert tracker.next_range("unit") == (0, 8)
    assert tracker.unit_started("unit", 8, "b")
    assert tracker.next_range("unit") == (0, 4)


def test_a_row_that_takes_its_node_down_is_found_too():
    """Every attempt at it costs a node, and no engine is to blame: the search ends all the same, with that row alone."""
    tracker = Tracker(max_engine_deaths=0)
    for number in range(40):
        node = f"node {number}"
        tracker.replica_started("replica", node, [node])
        if not tracker.unit_started("unit", 16, node):
            continue
        while span := tracker.next_range("unit"):
            if span[0] <= 5 < span[1]:
                break
            tracker.range_done("unit", [Prediction()] * (span[1] - span[0]))
        else:
            break
    failed = [row for row, prediction in enumerate(tracker.predictions("unit")) if prediction.error == BAD_ROW]
    assert failed == [5]
    assert number <= EXCUSES + SUSPECT + math.ceil(math.log2(16)) + 1
    assert tracker.deaths == 0


KILLED = "killed while its engine started, {} times"


def test_a_replica_that_is_killed_at_every_start():
    """Ray would start it for ever. An engine that says why, or one that starts, begin the count anew."""
    tracker = Tracker()
    for _ in range(5):
        tracker.replica_starts("r", "a")
        tracker.replica_refused("r", "no memory", user_error=False)
    tracker.replica_started("r", "a", ["a"])
    assert [tracker.replica_starts("r", "a") for _ in range(3)] == [0, 0, 0]
    assert tracker.progress().fatal is None
    for replica in ("r", "another in its place"):
        with pytest.raises(JobError, match=KILLED.format(3)):
            tracker.replica_starts(replica, "a")
    assert tracker.progress().fatal == (
        "a replica was killed while its engine started, 3 times (out of memory?)",
        False,
    )
    tracker.replica_started("a third", "b", ["a", "b"])
    tracker.replica_starts("fourth", "b")
    assert tracker.progress().fatal is None


def test_a_replica_that_is_killed_at_every_start_while_others_work(monkeypatch):
    """It goes on trying, after a pause; once nothing has been heard of the others for ten minutes the run ends."""
    tracker, now = Tracker(), 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    tracker.replica_started("other", "a", ["a"])
    assert [tracker.replica_starts("r", "b") for _ in range(5)] == [0, 0, 0, 60, 60]
    now += 599
    tracker.engine_answered("other", 7, 700, 3)
    now += 599
    assert tracker.replica_starts("r", "b") == 60
    assert tracker.progress().fatal is None
    now += 1
    with pytest.raises(JobError, match=KILLED.format(6)):
        tracker.replica_starts("r", "b")


@pytest.mark.parametrize("nodes", [["a", "b"] * 3, list("abcdef")])
def test_a_replica_that_is_killed_on_several_nodes(nodes):
    """Some nodes may go while it starts; not six, and it may not take turns between two for ever."""
    tracker = Tracker()
    for node in nodes:
        tracker.replica_starts("r", node)
    with pytest.raises(JobError, match=KILLED.format(6)):
        tracker.replica_starts("r", "g")
