"""Rows with errors as a person sees them: no missed and no spurious span is hidden."""

import io
import re

import pytest
from evaluations import TEXT, spans, tally
from hypothesis import given
from rich.console import Console

from ner_batch.evaluate import report
from ner_batch.evaluate.count import ErrorRow


def shown(gold, predicted, text=TEXT, width=10_000):
    """A row on the terminal: its lines, gold's and the predictions'."""
    row = report.error_row(ErrorRow("r", 1, "ok", tuple(gold), tuple(predicted)), text)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report.worst_row(row))
    return [line.strip().split("  ", 1)[1] for line in console.export_text().splitlines()[1:3]]


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ([(0, 3, "PER"), (0, 3, "ORG")], "[[abc|PER]|ORG]"),
        ([(0, 5, "ORG"), (1, 2, "LOC"), (3, 5, "PER")], "[a[b|LOC]c[de|PER]|ORG]"),
        ([(0, 3, "PER"), (2, 5, "ORG")], "[abc|PER]defghijklmnopqrstuvwxyz; also [cde|ORG] at 2-5"),
        ([(0, 3, "PER"), (3, 5, "ORG")], "[abc|PER][de|ORG]"),
    ],
)
def test_spans_at_one_place(found, line):
    """Marks nest; what crosses stands behind the text."""
    gold, predicted = shown([], found)
    assert gold == TEXT
    assert predicted.startswith(line)


@given(spans)
def test_every_span_can_be_read(found):
    """The marks of a text and the list behind it give back all spans, crossing ones and repeated ones too."""
    _, line = shown([], found)
    text, _, also = line.partition("; also ")
    read, begun, at = [], [], 0
    for piece in re.findall(r"\[|\|[A-Z]+\]|.", text):
        if piece == "[":
            begun.append(at)
        elif piece[0] == "|":
            read.append((begun.pop(), at, piece[1:-1]))
        else:
            at += 1
    read += [(int(s), int(e), t) for t, s, e in re.findall(r"\|([A-Z]+)\] at (\d+)-(\d+)", also)]
    assert sorted(read) == sorted(set(found))


def test_errors_beyond_the_excerpt():
    """Far behind the first error, and around all of it; what is right there is not told."""
    text = "x" * 2000
    gold, predicted = shown([(500, 503, "LOC"), (1500, 1510, "LOC")], [(100, 900, "ORG"), (1500, 1510, "LOC")], text)
    assert gold == "x" * 300 + "; also [xxx|LOC] at 500-503"
    assert predicted == "x" * 300 + f"; also [{'x' * 57}...|ORG] at 100-900"


def test_a_long_list_is_counted():
    """Errors first; the rest as a number."""
    gold, _ = shown([(i * 10, i * 10 + 2, "LOC") for i in range(100)], [], "x" * 2000)
    assert gold.count(" at ") == report.TERMINAL_SPANS
    crossing = [(i, i + 10, "LOC") for i in range(6)]
    row = report.error_row(ErrorRow("r", 2, "ok", tuple(crossing), tuple(crossing[:4])), TEXT)
    listed = [piece for piece in report.marked(row, "gold", 3) if " at " in piece[0] or "more" in piece[0]]
    places = [(piece.split(" at ")[-1], correct) for piece, correct in listed]
    assert places == [("4-14", False), ("5-15", False), ("1-11", True), ("2 more", True)]
    assert gold.endswith(f", {100 - gold.split(';')[0].count('[') - report.TERMINAL_SPANS} more")


def test_report_keeps_what_lies_beyond():
    """report.json has it."""
    (bad,) = tally([([(0, 3, "PER")], [(0, 3, "ORG")])]).runs[0].worst
    near = report.error_row(bad, TEXT)
    assert (near["gold_beyond"], near["predicted_beyond"]) == ([], [])
    far = report.error_row(ErrorRow("r", 1, "ok", ((0, 1, "A"), (900, 901, "B")), ()), "x" * 999)
    assert far["gold_beyond"] == [(900, 901, "B", "x")]
