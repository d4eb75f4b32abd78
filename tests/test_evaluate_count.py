"""Counts over rows: they add up, agree with the strict metric and obey the laws of their schemes."""

import random

import numpy as np
import pytest
from evaluations import TYPES, corpus, entities, joined, rows, tally
from hypothesis import given, settings
from hypothesis import strategies as st

from ner_batch.evaluate.bootstrap import figures
from ner_batch.evaluate.count import CORRECT, GOLD, PREDICTED, Tally
from ner_batch.evaluate.metrics import Counts, Scores, score
from ner_batch.evaluate.report import outcomes

SCHEMES = ("strict", "exact", "partial", "type")


def values(found, run=0):
    """All figures of a run, by name."""
    return {name: float(v) for name, v in figures(found.histogram.total()[run], found.histogram.types, {}).items()}


def scores_of(found):
    """Strict counts of the first run, by type."""
    by_type = found.histogram.total()[0, :-1].tolist()
    counts = [Counts(c[CORRECT], c[PREDICTED], c[GOLD]) for c in by_type]
    return Scores(dict(zip(found.histogram.types, counts, strict=True)))


def known(found):
    """What a tally tells, in a form that compares."""
    counts, rows = found.histogram.arrays()
    runs = [(r.confusion, r.worst, r.statuses, r.reliability.bins.tolist()) for r in found.runs]
    return found.rows, found.histogram.types, counts.tobytes(), rows.tolist(), runs


@settings(max_examples=100, deadline=None)
@given(rows)
def test_strict_counts_are_the_metrics(pairs):
    """The vectorised counts are those of ner_batch.evaluate.metrics, type by type."""
    found = tally(pairs)
    expected = score([entities(g) for g, _ in pairs], [entities(p) for _, p in pairs])
    assert scores_of(found) == expected
    assert values(found)["strict/micro/f1"] == pytest.approx(expected.micro.f1)


@pytest.mark.parametrize("grouped", [False, True])
@settings(max_examples=50, deadline=None)
@given(pairs=rows, cut=st.integers(0, 8), rng=st.randoms())
def test_order_and_batches_do_not_matter(grouped, pairs, cut, rng):
    """Rows in any order, cut anywhere, give the same tally; so do their scores, to the last bit."""
    ids = [f"r{i}" for i in range(len(pairs))]
    scores = [rng.random() for _ in pairs]
    mixed = rng.sample(range(len(pairs)), len(pairs))
    whole, total = (Tally(TYPES, 1, 5, grouped=grouped) for _ in range(2))
    whole.add(joined(pairs, ids=ids, scores=scores))
    for part in (mixed[:cut], mixed[cut:]):
        lines = [pairs[i] for i in part], [ids[i] for i in part], [scores[i] for i in part]
        total.add(joined(lines[0], ids=lines[1], scores=lines[2]))
    assert known(total) == known(whole)


@settings(max_examples=100, deadline=None)
@given(rows)
def test_laws_of_the_schemes(pairs):
    """strict <= exact <= partial, strict <= type, and type <= 2 partial (an overlap of one type is half a point there);
    the kinds of errors add up to gold and predicted."""
    found = tally(pairs)
    at = values(found)
    for name in ("precision", "recall", "f1"):
        strict, exact, partial, type_ = (at[f"{scheme}/micro/{name}"] for scheme in SCHEMES)
        assert strict <= exact <= partial <= 1
        assert strict <= type_ <= min(1, 2 * partial)
    kinds = outcomes(found.runs[0])
    micro = scores_of(found).micro
    paired = kinds["correct"] + kinds["type"] + kinds["boundary"] + kinds["type and boundary"]
    assert (kinds["correct"], paired + kinds["missed"], paired + kinds["spurious"]) == (
        micro.correct,
        micro.gold,
        micro.predicted,
    )


@settings(max_examples=100, deadline=None)
@given(rows)
def test_a_perfect_prediction_is_one(pairs):
    """In every scheme, every type and every average."""
    found = tally([(g, g) for g, _ in pairs])
    expected = 1.0 if any(g for g, _ in pairs) else 0.0
    assert set(values(found).values()) == {expected}
    assert not found.runs[0].worst


@settings(max_examples=100, deadline=None)
@given(rows, st.sampled_from(("LOC", "NEW")))
def test_a_spurious_entity_never_raises_precision(pairs, type_):
    """One more entity that overlaps no gold: precision does not rise, recall stays."""
    more = [(pairs[0][0], [*pairs[0][1], (24, 26, type_)]), *pairs[1:]]
    before, after = values(tally(pairs)), values(tally(more))
    for scheme in SCHEMES:
        assert after[f"{scheme}/micro/precision"] <= before[f"{scheme}/micro/precision"]
        assert after[f"{scheme}/micro/recall"] == before[f"{scheme}/micro/recall"]


def test_worst_rows():
    """Those with most errors, each with both sides; a row without errors is none of them."""
    right, wrong = [(0, 2, "PER")], [(0, 2, "LOC"), (5, 8, "LOC")]
    found = tally([(right, right), (right, wrong), (right, [])])
    assert [(bad.id, bad.errors) for bad in found.runs[0].worst] == [("r1", 2), ("r2", 1)]
    assert found.runs[0].worst[0].gold == tuple(right)
    assert found.runs[0].worst[0].predicted == tuple(wrong)


def test_groups_are_the_same_rows():
    """Put into groups, rows keep their sum; more groups than rows, so nearly each is alone."""
    gold, good, _ = corpus(500)
    pairs = list(zip(gold, good, strict=True))
    random.Random(0).shuffle(pairs)
    rows_, groups = tally(pairs).histogram, tally(pairs, grouped=True).histogram
    assert np.array_equal(rows_.total(), groups.total())
    assert len(groups.arrays()[0]) == 65_536
