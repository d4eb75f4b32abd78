"""How far the mean of a sample may be from that of all rows."""

import math
import random

import pytest

from ner_batch.extraction.dryrun import relative_error


def draw(rng, places, rows, spread):
    """Lengths of rows from some places of a corpus whose mean is 100; places differ from each other by ``spread``."""
    means = [rng.gauss(100, spread) for _ in range(places)]
    return [[rng.gauss(mean, 20) for _ in range(rows)] for mean in means]


@pytest.mark.parametrize(("places", "spread"), [(16, 0), (16, 30), (4, 30), (1, 0)])
def test_nineteen_of_twenty_samples_have_the_mean_within_their_bounds(places, spread):
    """Whether places are alike or not, and with few of them. As if rows were drawn one by one, a third would."""
    rng = random.Random(0)
    within = 0
    for _ in range(400):
        sample = draw(rng, places, 16, spread)
        mean = sum(map(sum, sample)) / (16 * places)
        within += abs(mean - 100) <= relative_error(sample) * mean
    assert 0.92 <= within / 400 <= 0.98


def test_a_single_row_says_nothing_of_others():
    """And where nothing was spent nothing is to be told."""
    assert relative_error([[5]]) == math.inf
    assert relative_error([[0, 0], [0]]) == math.inf
    assert relative_error([[7, 7], [7, 7]]) == 0
