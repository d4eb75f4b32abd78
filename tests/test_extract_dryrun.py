"""What a dry run reads, and how far the mean of a sample may be from that of all rows."""

import io
import math
import random

import pytest
from faults import ScriptedJob
from rich.console import Console
from scripted import ScriptedEngine, predict_one

from ner_batch.config import load
from ner_batch.extraction import dryrun
from ner_batch.extraction.dryrun import relative_error
from ner_batch.extraction.job import print_advice
from ner_batch.extraction.plan import prepare
from ner_batch.extraction.settings import ExtractConfig


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


def test_a_sample_ends_with_its_time(tmp_path, random_model, monkeypatch):
    """Of every place the first rows, each prediction with its text; where time is short, fewer of them, but some."""
    plan = prepare(load(ExtractConfig, str(ScriptedJob(tmp_path, random_model).folder / "job.yaml")))
    monkeypatch.setenv("NER_BATCH_SCRIPTED_LOG", str(tmp_path / "log"))
    places = [["Ann", "Bob", None], [f"Dan met {name}" for name in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]]
    by_place, rows_per_second, _ = dryrun.read_sample(plan.recipe, places, ScriptedEngine)
    assert by_place == [[predict_one(text) for text in texts] for texts in places]
    assert rows_per_second > 0
    monkeypatch.setattr(dryrun, "SAMPLE_SECONDS", 0.0)
    by_place, rows_per_second, _ = dryrun.read_sample(plan.recipe, places, ScriptedEngine)
    assert by_place == [[predict_one(text) for text in texts[:2]] for texts in places]
    assert rows_per_second > 0


@pytest.mark.parametrize(("truncated", "lines"), [(10, 0), (11, 1)])
def test_advice_where_many_answers_are_none(tmp_path, random_model, truncated, lines):
    """A model that is shown nothing and has no adapter: where more than a tenth of its answers have no end, what helps."""
    recipe = prepare(load(ExtractConfig, str(ScriptedJob(tmp_path, random_model).folder / "job.yaml"))).recipe
    printed = io.StringIO()
    print_advice({"ok": 100 - truncated, "truncated": truncated, "empty": 50}, recipe, Console(file=printed, width=300))
    assert len(printed.getvalue().splitlines()) == lines
    assert ("11 of 100 rows have" in printed.getvalue()) == bool(lines)


def test_a_single_row_says_nothing_of_others():
    """And where nothing was spent nothing is to be told."""
    assert relative_error([[5]]) == math.inf
    assert relative_error([[0, 0], [0]]) == math.inf
    assert relative_error([[7, 7], [7, 7]]) == 0
