"""Markdown tables of reports: a cell stays one cell, whatever stands in it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ner_batch.jobs.markdown import markdown_table


def cells(line):
    """A line of a table as GitHub cuts it: at bars that no backslash escapes."""
    inner = re.split(r"(?<!\\)((?:\\\\)*)\|", line)
    joined = ["".join(pair) for pair in zip(inner[::2], [*inner[1::2], ""], strict=True)]
    return [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in joined[1:-1]]


def test_by_hand():
    """Header, rule and rows; nothing in a cell is markup."""
    table = markdown_table(["type", "F1"], [["a|b", "0.5"], ["*_x_*", "[1](2)"]])
    assert table.splitlines() == [
        "| type | F1 |",
        "|---|---|",
        "| a\\|b | 0.5 |",
        "| \\*\\_x\\_\\* | \\[1\\](2) |",
    ]


words = st.text(st.sampled_from("ab|\\*_`<> \n[]"), max_size=8)


@given(st.lists(st.lists(words, min_size=2, max_size=2), max_size=4))
def test_cells_come_back(rows):
    """Blanks apart."""
    lines = markdown_table(["x", "y"], rows).splitlines()
    assert [cells(line) for line in lines[2:]] == [[" ".join(cell.split()) for cell in row] for row in rows]


def test_a_row_of_another_length_is_a_bug():
    """It would move its cells under other headings."""
    with pytest.raises(ValueError, match="zip"):
        markdown_table(["x", "y"], [["1"]])
