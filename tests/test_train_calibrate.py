"""Calibration, AUROC and threshold against independent counting; all three are of what was served."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ner_batch.data import Entity
from ner_batch.extraction import confidence
from ner_batch.train import serving

PAIRS = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9, None]), st.booleans()), min_size=1, max_size=30)


def f1(pairs, lowest, gold):
    """F1 of what a threshold keeps; what has no probability is kept."""
    kept = [true for score, true in pairs if score is None or score >= lowest]
    return 2 * sum(kept) / max(1, len(kept) + gold)


@settings(deadline=None)
@given(PAIRS, st.integers(0, 10))
def test_no_threshold_is_better(pairs, missed):
    """Of all thresholds that there can be."""
    gold = sum(true for _, true in pairs) + missed
    likely, truth = [s for s, _ in pairs], [t for _, t in pairs]
    found = serving.best_threshold(likely, truth, gold)
    every = [0.0, *(s + 0.01 for s in likely if s is not None)]
    best = max(f1(pairs, t, gold) for t in every)
    assert f1(pairs, found, gold) == pytest.approx(best)


@settings(deadline=None)
@given(PAIRS)
def test_auroc_counts_pairs(pairs):
    """The share of pairs in the right order, ties half; None where there is none."""
    true = [s for s, t in pairs if t and s is not None]
    false = [s for s, t in pairs if not t and s is not None]
    found = serving.auroc([s for s, _ in pairs], [t for _, t in pairs])
    if not true or not false:
        assert found is None
    else:
        right = sum((a > b) + (a == b) / 2 for a in true for b in false)
        assert found == pytest.approx(right / len(true) / len(false))


def test_calibrated_scores_are_frequencies():
    """Overconfident scores become the share of right entities; too few give no worth."""
    rng = random.Random(0)
    scores = [rng.random() for _ in range(4000)]
    truth = [rng.random() < 1 / (1 + math.exp(-0.4 * confidence.logit(s) + 0.5)) for s in scores]
    fitted = serving.fit_calibration([*scores, None], [*truth, True])
    assert fitted.slope == pytest.approx(0.4, abs=0.05)
    assert fitted.offset == pytest.approx(-0.5, abs=0.1)
    assert fitted.entities == 4000
    entities = [Entity(i, i + 1, "T", "x", score) for i, score in enumerate(scores)]
    honest = confidence.calibrated(entities, fitted.slope, fitted.offset)
    for low in (0.2, 0.4, 0.6):
        inside = [t for e, t in zip(honest, truth, strict=True) if low <= e.score < low + 0.2]
        assert sum(inside) / len(inside) == pytest.approx(low + 0.1, abs=0.06)
    perfect = serving.fit_calibration([0.9] * 25 + [0.86] * 25, [True] * 25 + [False] * 25)
    far = confidence.calibrated([Entity(0, 1, "T", "x", s) for s in (1e-12, 0.88, 1.0)], perfect.slope, perfect.offset)
    assert 0 <= far[0].score < far[1].score < far[2].score <= 1
    assert serving.fit_calibration([0.1] * 25 + [0.9] * 25, [True] * 25 + [False] * 25) is None
    assert serving.fit_calibration(scores[:30], truth[:30]) is None
    assert confidence.calibrated([Entity(0, 1, "T", "x")], 1, 0)[0].score is None
