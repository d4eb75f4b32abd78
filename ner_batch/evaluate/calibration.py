"""Whether a score of 0.8 is right in 80 of 100 cases, and what a threshold on it would give."""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 1000
"""Scores are counted in bins of 0.001: exact enough for a curve, and it adds up."""
SHOWN_BINS = 10
SCORE_UNIT = 2.0**-32
"""Sums of scores are whole multiples of it: float sums would depend on the order of the rows in their last digits."""


class Reliability:
    """Predicted entities by score. ``bins`` (3, BINS): entities, correct ones, and the sum of scores in SCORE_UNIT.

    ``gold`` counts gold entities, ``unscored`` predicted ones without a score.
    """

    def __init__(self) -> None:
        self.bins = np.zeros((3, BINS), np.int64)
        self.gold = self.unscored = 0

    @property
    def scored(self) -> int:
        """Predicted entities with a score."""
        return int(self.bins[0].sum())

    def add(self, scores: np.ndarray, correct: np.ndarray, gold: int) -> None:
        """Count predicted entities: their scores (NaN: none) and whether they are correct; and how many gold are."""
        scored = ~np.isnan(scores)
        values = scores[scored].astype(float)
        bins = np.clip(np.floor(values * BINS + 1e-3).astype(int), 0, BINS - 1)  # 0.9 is 0.8999 as float32
        np.add.at(self.bins[0], bins, 1)
        np.add.at(self.bins[1], bins, correct[scored].astype(np.int64))
        np.add.at(self.bins[2], bins, np.rint(values / SCORE_UNIT).astype(np.int64))
        self.gold += gold
        self.unscored += int((~scored).sum())


def summary(reliability: Reliability) -> dict[str, Any] | None:
    """Expected calibration error, the reliability table and the threshold curve; None without scores.

    ECE (Guo et al. 2017): the mean distance of accuracy and score over ten bins of equal width, weighted by entities.
    Coverage is the share of scored entities that a threshold keeps; recall is of all gold.
    """
    if not reliability.scored:
        return None
    tenths = reliability.bins.reshape(3, SHOWN_BINS, -1).sum(2) * [[1.0], [1.0], [SCORE_UNIT]]
    full = tenths[0] > 0
    gaps = np.abs(tenths[1] - tenths[2])
    table = [
        {"from": i / SHOWN_BINS, "entities": int(n), "accuracy": correct / n, "score": total / n}
        for i, (n, correct, total) in enumerate(tenths.T.tolist())
        if n
    ]
    return {
        "scored": reliability.scored,
        "unscored": reliability.unscored,
        "ece": float(gaps[full].sum() / tenths[0].sum()),
        "reliability": table,
        "thresholds": _thresholds(reliability),
    }


def _thresholds(reliability: Reliability) -> list[dict[str, float]]:
    """Precision, recall, F1 and coverage where only entities of at least this score are kept, in steps of 0.01."""
    at_least = reliability.bins[:2, ::-1].cumsum(1)[:, ::-1][:, :: BINS // 100]
    return [
        {
            "threshold": i / 100,
            "precision": correct / n if n else 0.0,
            "recall": correct / reliability.gold if reliability.gold else 0.0,
            "f1": 2 * correct / (n + reliability.gold) if n + reliability.gold else 0.0,
            "coverage": n / reliability.scored,
        }
        for i, (n, correct) in enumerate(at_least.T.tolist())
    ]
