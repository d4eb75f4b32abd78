"""The search for the row that kills engines, without engines."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ner_batch.extract.ledger import SUSPECT, Case, Ledger


def read_until_done(ledger, rows, poisoned):
    """A replica's life, over and over: it dies whenever it touches a poisoned row. Returns the number of deaths."""
    deaths = 0
    while True:
        if not ledger.begin("unit", rows):
            if not poisoned:
                return deaths
            deaths += 1
            continue
        while (span := ledger.next_range("unit")) is not None:
            if any(span[0] <= row < span[1] for row in poisoned):
                deaths += 1
                break
            ledger.keep("unit", span, list(range(*span)))
        else:
            return deaths


@settings(deadline=None)
@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=3))))
def test_exactly_the_poisoned_rows_are_given_up_and_every_other_row_is_read_once(case):
    """Whatever the rows: kept ranges and poisoned rows tile the unit, after about log2(rows) deaths per poisoned row."""
    rows, poisoned = case
    ledger = Ledger()
    deaths = read_until_done(ledger, rows, poisoned)
    kept, given_up = ledger.findings("unit")
    if not poisoned:
        assert deaths == 0
        return
    assert sorted(given_up) == sorted(poisoned)
    assert sorted(row for done in kept.values() for row in done) == sorted(set(range(rows)) - poisoned)
    assert deaths <= SUSPECT + len(poisoned) * (math.ceil(math.log2(rows)) + 1)


def test_a_unit_that_died_with_its_neighbours_is_not_blamed():
    """Two deaths make a unit suspect, but alone it comes through and nothing is given up."""
    ledger = Ledger()
    assert [ledger.begin("innocent", 10) for _ in range(3)] == [False, False, True]
    assert ledger.next_range("innocent") == (0, 10)
    ledger.keep("innocent", (0, 10), "all")
    assert ledger.next_range("innocent") is None
    assert ledger.findings("innocent") == ({(0, 10): "all"}, [])


def test_a_death_while_waiting_to_be_alone_blames_no_range():
    """A suspect unit that dies before its first range starts again with the same range."""
    case = Case(rows=8)
    for _ in range(5):
        case.begin()
    assert case.todo == [(0, 8)]
    assert case.poisoned == []


@pytest.mark.parametrize("rows", [0, 1])
def test_smallest_units(rows):
    """A unit without rows has no range; a unit of one row is its own suspect."""
    ledger = Ledger()
    for _ in range(3):
        ledger.begin("unit", rows)
    assert ledger.next_range("unit") == (None if rows == 0 else (0, 1))


def test_live_counters_forget_a_unit_that_is_done_or_starts_again():
    """Progress counts rows once: those written, and those of units still in flight."""
    ledger = Ledger()
    ledger.hello()
    ledger.begin("a", 10)
    ledger.progress("a", 4, 100)
    ledger.begin("b", 10)
    ledger.progress("b", 2, 50)
    report = ledger.report()
    assert (report.rows, report.tokens, report.starts, report.causes) == (6, 150, 1, ())
    ledger.done("a", 250, {"ok": 9, "failed": 1})
    ledger.begin("b", 10)
    report = ledger.report()
    assert (report.rows, report.tokens, report.statuses) == (10, 250, {"ok": 9, "failed": 1})
