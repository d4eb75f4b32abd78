"""Intervals and comparisons: against drawing rows one by one, against theory, and a run against itself."""

import numpy as np
import pytest
from evaluations import TYPES, corpus, joined, rows, tally
from hypothesis import given, settings

from ner_batch.evaluate import bootstrap
from ner_batch.evaluate.count import CountHistogram, Tally

F1 = "strict/micro/f1"


def pairs_of(gold, run):
    return list(zip(gold, run, strict=True))


def drawn(histogram: CountHistogram, count=2000, seed=0):
    return bootstrap.draw(histogram, {}, count, seed)


def test_is_the_ordinary_bootstrap():
    """Drawing from the histogram gives the spread that drawing rows one by one gives."""
    gold, good, _ = corpus(300)
    strict = np.stack([scores(pair) for pair in pairs_of(gold, good)])
    rng = np.random.default_rng(1)
    totals = np.stack([strict[rng.integers(0, 300, 300)].sum(0) for _ in range(4000)])
    byhand = 2 * totals[:, 0] / (totals[:, 1] + totals[:, 2])
    ours = drawn(tally(pairs_of(gold, good)).histogram, 4000)[0][F1]
    assert ours.mean() == pytest.approx(byhand.mean(), abs=0.001)
    assert ours.std() == pytest.approx(byhand.std(), rel=0.07)


def scores(pair):
    """Correct, predicted and gold of one row."""
    gold, predicted = map(set, pair)
    return np.array([len(gold & predicted), len(predicted), len(gold)])


def test_groups_give_the_same_spread():
    """Rows drawn in random groups vary as rows do."""
    gold, good, _ = corpus(3000)
    pairs = pairs_of(gold, good)
    one, two = (drawn(tally(pairs, grouped=g).histogram, 200)[0][F1] for g in (False, True))
    assert one.std() == pytest.approx(two.std(), rel=0.2)
    assert one.mean() == pytest.approx(two.mean(), abs=0.002)


def test_intervals_hold_what_they_promise():
    """Of 120 samples of a population, about 95 % have an interval that holds the population's F1."""
    gold, good, _ = corpus(12_000, seed=3)
    everyone = tally(pairs_of(gold, good)).histogram
    truth = float(bootstrap.figures(everyone.total()[0], everyone.types, {})[F1])
    held = 0
    for i in range(120):
        part = slice(100 * i, 100 * (i + 1))
        low, high = bootstrap.interval(drawn(tally(pairs_of(gold[part], good[part])).histogram, 300, i)[0][F1], 0.95)
        held += low <= truth <= high
    assert 0.88 <= held / 120 <= 1.0


def test_batches_do_not_change_a_draw():
    """The same rows in two batches, the other way round, give the same numbers to the last bit."""
    gold, good, _ = corpus(200)
    pairs, ids = pairs_of(gold, good), [f"r{i}" for i in range(200)]
    one = drawn(tally(pairs).histogram, 50)[0][F1]
    total = Tally(TYPES, 1, 5, grouped=False)
    total.add(joined(pairs[120:], ids=ids[120:]))
    total.add(joined(pairs[:120], ids=ids[:120]))
    two = drawn(total.histogram, 50)[0][F1]
    assert one.tolist() == two.tolist()


def compare(gold, this, other, count=1000):
    """Is this run better than the other?"""
    found = tally(pairs_of(gold, this), other)
    first, second = (float(bootstrap.figures(t, found.histogram.types, {})[F1]) for t in found.histogram.total())
    draws = drawn(found.histogram, count)
    return bootstrap.compare(first, second, draws[0][F1], draws[1][F1], 0.95)


@settings(max_examples=30, deadline=None)
@given(rows)
def test_a_run_against_itself_is_no_difference(pairs):
    """Difference and interval are 0, neither is better in any resample, p is 1."""
    run = [p for _, p in pairs]
    found = compare([g for g, _ in pairs], run, run, 100)
    assert (found["difference"], found["interval"], found["p"]) == (0.0, [0.0, 0.0], 1.0)
    assert found["this_better"] == found["other_better"] == 0.0


def test_a_better_run_is_seen_to_be_better():
    """On 500 rows a run with a third of the errors is better for sure; the other way round the signs change."""
    gold, good, bad = corpus(500)
    found = compare(gold, good, bad)
    assert found["difference"] > 0.2
    assert found["interval"][0] > 0.1
    assert found["this_better"] == 1.0
    assert found["p"] < 0.002
    back = compare(gold, bad, good)
    assert back["difference"] == -found["difference"]
    assert back["other_better"] == 1.0


def test_p_values_of_equal_runs_are_uniform():
    """Two runs that differ by chance alone: p < 0.05 in about 5 % of 100 comparisons."""
    false = 0
    for i in range(100):
        gold, _, _ = corpus(60, seed=i)
        other = [
            [s if hash((i, j, k)) % 7 else (s[0], s[1], "LOC") for k, s in enumerate(g)] for j, g in enumerate(gold)
        ]
        base = [
            [s if hash((j, k, i)) % 7 else (s[0], s[1], "LOC") for k, s in enumerate(g)] for j, g in enumerate(gold)
        ]
        false += compare(gold, base, other, 200)["p"] < 0.05
    assert false <= 14


def test_label_groups():
    """`*.NAM` takes its types together; their figures are those of their sum."""
    gold = [[(0, 2, "PER.NAM"), (4, 6, "LOC.NAM"), (8, 9, "PER.NOM")]]
    found = tally(pairs_of(gold, [[(0, 2, "PER.NAM"), (8, 9, "PER.NOM"), (10, 11, "PER.NOM")]])).histogram
    at = bootstrap.figures(found.total()[0], found.types, {"NE": ("*.NAM",), "NM": ("*.NOM",)})
    assert float(at["strict/group/NE/recall"]) == 0.5
    assert float(at["strict/group/NE/precision"]) == 1.0
    assert float(at["strict/group/NM/precision"]) == 0.5
