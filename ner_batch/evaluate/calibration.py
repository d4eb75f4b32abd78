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
    Thresholds are in steps of 0.01: coverage is the share of scored entities that one keeps; recall is of all gold.
    """
    scored, gold = int(reliability.bins[0].sum()), reliability.gold
    if not scored:
        return None
    tenths = reliability.bins.reshape(3, SHOWN_BINS, -1).sum(2) * [[1.0], [1.0], [SCORE_UNIT]]
    table = [
        {"from": i / SHOWN_BINS, "entities": int(n), "accuracy": correct / n, "score": total / n}
        for i, (n, correct, total) in enumerate(tenths.T.tolist())
        if n
    ]
    at_least = reliability.bins[:2, ::-1].cumsum(1)[:, ::-1][:, :: BINS // 100]
    thresholds = [
        {
            "threshold": i / 100,
            "precision": correct / n if n else 0.0,
            "recall": correct / gold if gold else 0.0,
            "f1": 2 * correct / (n + gold) if n + gold else 0.0,
            "coverage": n / scored,
        }
        for i, (n, correct) in enumerate(at_least.T.tolist())
    ]
    return {
        "scored": scored,
        "unscored": reliability.unscored,
        "ece": float(np.abs(tenths[1] - tenths[2]).sum() / scored),
        "reliability": table,
        "thresholds": thresholds,
    }
