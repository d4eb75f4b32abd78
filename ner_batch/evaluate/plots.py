"""The report's plots, as PNG."""

from __future__ import annotations

import numpy as np

from ner_batch.evaluate.report import Report
from ner_batch.figures import canvas, png

F1, CONFUSION, CALIBRATION = "f1.png", "confusion.png", "calibration.png"
PLOTS = (F1, CONFUSION, CALIBRATION)
MOST_TYPES = 30
"""Types on a plot: those with most entities."""
NOBODY = "none"


def draw(report: Report) -> dict[str, bytes]:
    """PNGs by file name; the calibration plot only where there are scores."""
    images = {F1: _f1(report), CONFUSION: _confusion(report["runs"][0])}
    if report["runs"][0]["calibration"]:
        images[CALIBRATION] = _calibration(report["runs"][0]["calibration"])
    return images


def _types(run: Report) -> list[str]:
    """Types with most gold and predicted entities, most first."""
    found = run["strict"]["types"]
    return sorted(found, key=lambda t: (-found[t]["gold"] - found[t]["predicted"], t))[:MOST_TYPES]


def _f1(report: Report) -> bytes:
    """Strict F1 by type with its interval, for each run."""
    first = report["runs"][0]
    names = [*_types(first), *(f"group {name}" for name in first["strict"]["groups"]), "macro", "micro"]
    figure, axes = canvas(8, 1.5 + 0.35 * len(names) * len(report["runs"]) ** 0.5)
    for i, run in enumerate(report["runs"]):
        strict = run["strict"]
        entries = strict["types"] | {f"group {n}": e for n, e in strict["groups"].items()}
        entries |= {"macro": strict["macro"], "micro": strict["micro"]}
        values = np.array([entries[name]["f1"]["value"] for name in names])
        ends = np.array([entries[name]["f1"]["interval"] for name in names])
        errors = np.abs(np.stack([values - ends[:, 0], ends[:, 1] - values]))
        places = np.arange(len(names)) + 0.2 * (i - (len(report["runs"]) - 1) / 2)
        axes.errorbar(values, places, xerr=errors, fmt="o", capsize=3, label=_short(run["predictions"]))
    counts = [first["strict"]["types"].get(name, {}).get("gold") for name in names]
    axes.set_yticks(range(len(names)), [n if c is None else f"{n} ({c:,})" for n, c in zip(names, counts, strict=True)])
    axes.axhline(len(_types(first)) - 0.5, color="lightgrey", linewidth=1)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel=f"strict F1, {report['bootstrap']['level']:.0%} interval (gold entities)")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return png(figure)


def _short(path: str, most: int = 40) -> str:
    return path if len(path) <= most else f"...{path[-most:]}"


def _confusion(run: Report) -> bytes:
    """Gold types by predicted types; what nobody predicted or meant in a last column and row."""
    types = sorted(_types(run))
    names = [*types, NOBODY]
    grid = np.zeros((len(names), len(names)))
    for cell in run["errors"]["confusion"]:
        place = [
            names.index(cell[side] or NOBODY) if (cell[side] or NOBODY) in names else -1
            for side in ("gold", "predicted")
        ]
        if -1 not in place:
            grid[tuple(place)] += cell["count"]
    share = np.divide(grid, grid.sum(1, keepdims=True), out=np.zeros_like(grid), where=grid.sum(1, keepdims=True) > 0)
    size = 2.5 + 0.55 * len(names)
    figure, axes = canvas(size + 1, size)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), [*types, "missed"], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), [*types, "spurious"])
    axes.set(xlabel="predicted", ylabel="gold", title="paired entities (boundary errors included)")
    for (i, j), value in np.ndenumerate(grid):
        if value:
            axes.text(
                j,
                i,
                f"{value:,.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if share[i, j] > 0.5 else "black",
            )
    figure.colorbar(image, label="share of the row", shrink=0.8)
    return png(figure)


def _calibration(found: Report) -> bytes:
    """Accuracy by score, and precision, recall and coverage by threshold."""
    figure, (left, right) = canvas(11, 4.5, ncols=2)
    table = found["reliability"]
    left.plot([0, 1], [0, 1], color="lightgrey")
    left.plot([b["score"] for b in table], [b["accuracy"] for b in table], "o-")
    for b in table:
        left.annotate(
            f"{b['entities']:,}", (b["score"], b["accuracy"]), xytext=(4, -10), textcoords="offset points", fontsize=7
        )
    left.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="mean score",
        ylabel="share correct",
        title=f"reliability, ECE {found['ece']:.3f}",
    )
    steps = found["thresholds"]
    for name in ("precision", "recall", "f1", "coverage"):
        right.plot([s["threshold"] for s in steps], [s[name] for s in steps], label=name)
    right.set(
        xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold on the score", title="only entities of at least this score"
    )
    right.legend(frameon=False)
    right.grid(alpha=0.3)
    return png(figure)
