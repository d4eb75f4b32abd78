"""Plots as geometry: the template draws them as SVG, so that they take the page's colours, dark ones too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ner_batch.jobs.progress import duration
from ner_batch.report.totals import Timeline

WIDTH, HEIGHT = 480.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 10.0, 10.0, 36.0

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis, in the plot's units."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot. ``lines`` are SVG paths by name, ``area`` one that is filled, ``dots`` circles with a title each."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: Mapping[str, str] = field(default_factory=dict)
    area: str = ""
    diagonal: bool = False
    dots: tuple[tuple[float, float, str], ...] = ()
    rules: tuple[float, ...] = ()
    """Vertical lines."""
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def x_of(share: float) -> float:
    """Where a share of the x axis is."""
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def y_of(share: float) -> float:
    """Where a share of the y axis is."""
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def path(points: Points) -> str:
    """An SVG path through points, shares of both axes."""
    return "M" + "L".join(f"{x_of(x)} {y_of(y)}" for x, y in points) if points else ""


def steps(values: Sequence[float], highest: float) -> str:
    """A filled outline of bars side by side."""
    points = [(0.0, 0.0)]
    for i, value in enumerate(values):
        points += [(i / len(values), value / highest), ((i + 1) / len(values), value / highest)]
    return path([*points, (1.0, 0.0)]) + "Z"


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 2.5, 5 and 10 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))


def shares(axis: str) -> tuple[Tick, ...]:
    """Ticks from 0 to 1."""
    place = x_of if axis == "x" else y_of
    return tuple(Tick(place(i / 4), f"{i / 4:g}") for i in range(5))


def _counts(highest: float) -> tuple[Tick, ...]:
    return tuple(Tick(y_of(i / 2), f"{highest * i / 2:,.4g}") for i in range(3))


def throughput(course: Timeline) -> Chart:
    """Rows per second over the time that runs took."""
    highest = nice_ceiling(max(course.rows_per_second))
    total = course.step * len(course.rows_per_second)
    return Chart(
        "Rows written per second",
        "time the runs took",
        "rows/s",
        tuple(Tick(x_of(i / 4), duration(total * i / 4)) for i in range(5)),
        _counts(highest),
        area=steps(course.rows_per_second, highest),
        rules=tuple(x_of(start / total) for start in course.starts[1:]),
    )


def histogram(counts: Sequence[int]) -> Chart:
    """Entities by score."""
    highest = nice_ceiling(max(counts))
    return Chart("Entities by score", "score", "entities", shares("x"), _counts(highest), area=steps(counts, highest))


def reliability(table: Sequence[Mapping[str, float]], error: float) -> Chart:
    """The share of entities that are correct, by score."""
    points = [(bin_["score"], bin_["accuracy"]) for bin_ in table]
    dots = tuple(
        (
            x_of(b["score"]),
            y_of(b["accuracy"]),
            f"score {b['score']:.2f}: {b['accuracy']:.2f} of {b['entities']:,} correct",
        )
        for b in table
    )
    title = f"Reliability, ECE {error:.3f}"
    lines = {"share correct": path(points)}
    return Chart(title, "mean score", "share correct", shares("x"), shares("y"), lines, diagonal=True, dots=dots)


def thresholds(table: Sequence[Mapping[str, float]]) -> Chart:
    """Precision, recall, F1 and coverage were only entities of at least some score kept."""
    names = ("precision", "recall", "f1", "coverage")
    lines = {name.replace("f1", "F1"): path([(row["threshold"], row[name]) for row in table]) for name in names}
    return Chart("Were a threshold set", "least score", "", shares("x"), shares("y"), lines)
