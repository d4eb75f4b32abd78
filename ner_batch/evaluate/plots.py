"""The report's plots, as PNG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ner_batch.evaluate.report import Report
from ner_batch.jobs.plots import canvas, png

F1, CONFUSION, CALIBRATION = "f1.png", "confusion.png", "calibration.png"
MOST_TYPES = 30
"""Types on a plot: those with most entities."""
PATH_CHARACTERS = 40
"""Of a run's path in a legend."""


def draw(report: Report) -> dict[str, bytes | None]:
    """PNGs by file name; None for the calibration plot where there are no scores."""
    run = report["runs"][0]
    calibration = _calibration(run["calibration"]) if run["calibration"] else None
    return {F1: _f1(report), CONFUSION: _confusion(run), CALIBRATION: calibration}


def _types(run: Report) -> list[str]:
    """Types with most gold and predicted entities, most first."""
    types = run["strict"]["types"]
    return sorted(types, key=lambda t: (-types[t]["gold"] - types[t]["predicted"], t))[:MOST_TYPES]


def _f1(report: Report) -> bytes:
    """Strict F1 by type with its interval, for each run."""
    first = report["runs"][0]
    names = [label for label, _ in f1_lines(first)]
    figure, axes = canvas(8, 1.5 + 0.35 * len(names) * len(report["runs"]) ** 0.5)
    for i, run in enumerate(report["runs"]):
        entries = [entry for _, entry in f1_lines(run, _types(first))]
        values = np.array([entry["f1"]["value"] for entry in entries])
        ends = np.array([entry["f1"]["interval"] for entry in entries])
        errors = np.abs(np.stack([values - ends[:, 0], ends[:, 1] - values]))
        positions = np.arange(len(names)) + 0.2 * (i - (len(report["runs"]) - 1) / 2)
        path = run["predictions"]
        name = path if len(path) <= PATH_CHARACTERS else f"...{path[-PATH_CHARACTERS:]}"
        axes.errorbar(values, positions, xerr=errors, fmt="o", capsize=3, label=name)
    axes.set_yticks(range(len(names)), names)
    axes.axhline(len(_types(first)) - 0.5, color="lightgrey", linewidth=1)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel=f"strict F1, {report['bootstrap']['level']:.0%} interval (gold entities)")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return png(figure)


def f1_lines(run: Report, types: Sequence[str] | None = None) -> list[tuple[str, Report]]:
    """(label, entry) of each line of the F1 plot: types with their gold entities, groups, macro, micro."""
    strict = run["strict"]
    lines = [(f"{t} ({strict['types'][t]['gold']:,})", strict["types"][t]) for t in types or _types(run)]
    lines += [(f"group {name}", entry) for name, entry in strict["groups"].items()]
    return [*lines, ("macro", strict["macro"]), ("micro", strict["micro"])]


def confusion_grid(cells: Sequence[Report], types: Sequence[str]) -> np.ndarray:
    """Counts by gold and predicted type, shape (len(types) + 1,) * 2; the last ones are those without a partner."""
    grid = np.zeros((len(types) + 1,) * 2)
    indices = {None: len(types)} | {name: i for i, name in enumerate(types)}  # a type may be called "none"
    for cell in cells:
        if cell["gold"] in indices and cell["predicted"] in indices:
            grid[indices[cell["gold"]], indices[cell["predicted"]]] += cell["count"]
    return grid


def _confusion(run: Report) -> bytes:
    """Gold types by predicted types; what nobody predicted or meant in a last column and row, behind a line."""
    types = sorted(_types(run))
    grid = confusion_grid(run["errors"]["confusion"], types)
    share = np.divide(grid, grid.sum(1, keepdims=True), out=np.zeros_like(grid), where=grid.sum(1, keepdims=True) > 0)
    size = 2.5 + 0.55 * len(grid)
    figure, axes = canvas(size + 1, size)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(grid)), [*types, "missed"], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(grid)), [*types, "spurious"])
    axes.set(xlabel="predicted", ylabel="gold", title="paired entities (boundary errors included)")
    axes.axvline(len(types) - 0.5, color="grey", linewidth=1)
    axes.axhline(len(types) - 0.5, color="grey", linewidth=1)
    for (i, j), count in np.ndenumerate(grid):
        if count:
            color = "white" if share[i, j] > 0.5 else "black"
            axes.text(j, i, f"{count:,.0f}", ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(image, label="share of the row", shrink=0.8)
    return png(figure)


def _calibration(calibration: Report) -> bytes:
    """Accuracy by score, and precision, recall and coverage by threshold."""
    figure, (left, right) = canvas(11, 4.5, ncols=2)
    table = calibration["reliability"]
    left.plot([0, 1], [0, 1], color="lightgrey")
    left.plot([b["score"] for b in table], [b["accuracy"] for b in table], "o-")
    for b in table:
        place = {"xytext": (4, -10), "textcoords": "offset points", "fontsize": 7}
        left.annotate(f"{b['entities']:,}", (b["score"], b["accuracy"]), **place)
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean score", ylabel="share correct")
    left.set_title(f"reliability, ECE {calibration['ece']:.3f}")
    steps = calibration["thresholds"]
    for name in ("precision", "recall", "f1", "coverage"):
        right.plot([s["threshold"] for s in steps], [s[name] for s in steps], label=name)
    right.set(
        xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold on the score", title="only entities of at least this score"
    )
    right.legend(frameon=False)
    right.grid(alpha=0.3)
    return png(figure)
