"""Whether a score of 0.8 is right in 80 of 100 cases, and what a threshold on it would give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

BINS = 1000
"""Scores are counted in bins of 0.001: exact enough for a curve, and it adds up."""
SHOWN_BINS = 10


def _zeros() -> np.ndarray:
    return np.zeros((3, BINS))


@dataclass(frozen=True, slots=True)
class Reliability:
    """By bin of score: predicted entities, correct ones, and the sum of scores; shape (3, BINS). ``a + b`` is both."""

    bins: np.ndarray = field(default_factory=_zeros)
    gold: int = 0
    unscored: int = 0
    """Predicted entities without a score."""

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.bins + other.bins, self.gold + other.gold, self.unscored + other.unscored)

    @property
    def scored(self) -> int:
        """Predicted entities with a score."""
        return int(self.bins[0].sum())


def reliability(scores: np.ndarray, right: np.ndarray, gold: int) -> Reliability:
    """Count predicted entities with their scores (NaN: none), whether they are right, and how many gold there are."""
    known = ~np.isnan(scores)
    values = scores[known].astype(float)
    places = np.clip(np.floor(values * BINS + 1e-3).astype(int), 0, BINS - 1)  # 0.9 is 0.8999 as float32
    weights = (None, right[known].astype(float), values)
    bins = np.stack([np.bincount(places, w, minlength=BINS) for w in weights]).astype(float)
    return Reliability(bins, gold, int((~known).sum()))


def summary(found: Reliability) -> dict[str, Any] | None:
    """Expected calibration error, the reliability table and the threshold curve; None without scores.

    ECE (Guo et al. 2017): the mean distance of accuracy and score over ten bins of equal width, weighted by entities.
    Coverage is the share of scored entities that a threshold keeps; recall is of all gold.
    """
    if not found.scored:
        return None
    tenths = found.bins.reshape(3, SHOWN_BINS, -1).sum(2)
    full = tenths[0] > 0
    gaps = np.abs(tenths[1] - tenths[2])
    table = [
        {"from": i / SHOWN_BINS, "entities": int(n), "accuracy": right / n, "score": total / n}
        for i, (n, right, total) in enumerate(tenths.T.tolist())
        if n
    ]
    return {
        "scored": found.scored,
        "unscored": found.unscored,
        "ece": float(gaps[full].sum() / tenths[0].sum()),
        "reliability": table,
        "thresholds": _thresholds(found),
    }


def _thresholds(found: Reliability) -> list[dict[str, float]]:
    """Precision, recall, F1 and coverage where only entities of at least this score are kept, in steps of 0.01."""
    kept = found.bins[:2, ::-1].cumsum(1)[:, ::-1][:, :: BINS // 100]
    return [
        {
            "threshold": i / 100,
            "precision": right / n if n else 0.0,
            "recall": right / found.gold if found.gold else 0.0,
            "f1": 2 * right / (n + found.gold) if n + found.gold else 0.0,
            "coverage": n / found.scored,
        }
        for i, (n, right) in enumerate(kept.T.tolist())
    ]
