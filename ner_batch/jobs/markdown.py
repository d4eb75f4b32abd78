"""Tables and text of reports as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def escape(text: str) -> str:
    """Text of a corpus as plain text of Markdown, in one line: a cell with ``|`` in it stays one cell."""
    flat = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!~$" else c for c in flat)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in GitHub's form, a line each for header, rule and rows, without a newline at its end.

    Cells are plain text: what Markdown would take for markup is escaped. Rows have as many cells as the header.
    """
    lines = ["| " + " | ".join(map(escape, header)) + " |", "|" + "---|" * len(header)]
    for row in rows:
        cells = [escape(cell) for _, cell in zip(header, row, strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
