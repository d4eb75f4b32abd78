"""Learning curves: strict F1 by the number of annotated examples, over several draws of each size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ner_batch.experiments.results import Result, axes, place

DRAW = ("size", "seed")  # the axes of a cell that say which draw it saw


@dataclass(frozen=True, slots=True)
class Line:
    """One way of reading: F1 of every draw, by its number of examples, in order of size.

    ``flat`` is a way that no draw makes a difference to: its one F1 holds for every size.
    """

    name: str
    points: Mapping[int, tuple[float, ...]]
    flat: bool = False


def lines(results: Sequence[Result], total: int) -> list[Line]:
    """A line per way of reading; ``total`` is the number of examples that "all" stands for. None without a curve."""
    if all(result.cell["size"] is None for result in results):
        return []
    names = [name for name in axes(results) if name not in DRAW]
    found: dict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for result in results:
        found[tuple(value for axis, value in result.cell.items() if axis not in DRAW)].append(result)
    sizes = {_size(result, total) for result in results if result.cell["size"] is not None}
    return [_line(place(same[0], names), same, total, sorted(sizes)) for same in found.values()]


def _line(name: str, same: Sequence[Result], total: int, sizes: Sequence[int]) -> Line:
    """The draws of one way of reading."""
    f1 = [result.strict["micro"]["f1"]["value"] for result in same]
    if same[0].cell["size"] is None:
        return Line(name, dict.fromkeys(sizes, (f1[0],)), flat=True)
    points: dict[int, list[float]] = {size: [] for size in sizes}
    for result, value in zip(same, f1, strict=True):
        points[_size(result, total)].append(value)
    return Line(name, {size: tuple(values) for size, values in points.items() if values})


def _size(result: Result, total: int) -> int:
    size = result.cell["size"]
    return total if size == "all" else int(size)
