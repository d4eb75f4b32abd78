"""What a run will cost, from a sample that is really read: tokens per row, rows per second, hours."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from statistics import fmean, stdev

import ray
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit  # scipy.stats has it too, and takes half a second to import

from ner_batch import retrieval
from ner_batch.data import Prediction, Status
from ner_batch.engine.engine import Engine, EngineDeadError
from ner_batch.errors import JobError, UserError
from ner_batch.extraction import job
from ner_batch.extraction.manifest import VERSIONS
from ner_batch.extraction.plan import Plan
from ner_batch.extraction.predictor import Predictor, StartEngine
from ner_batch.extraction.recipe import Recipe
from ner_batch.extraction.units import DETAILS
from ner_batch.io import storage, tables
from ner_batch.io.listing import read_unit
from ner_batch.io.shards import texts_of
from ner_batch.jobs import cluster
from ner_batch.jobs.progress import ProgressLine, duration
from ner_batch.jobs.record import versions
from ner_batch.prompts import formats

SAMPLE_PLACES = 16
ROUNDS = (4, 16, 32, 64, 140)
"""Rows read together, one round after the other: how fast a replica is shows when it is full."""
SAMPLE_ROWS = sum(ROUNDS)
SAMPLE_SECONDS = 30.0
"""After which no round begins: a GPU has read all of them by then, a CPU would take minutes for the last."""


def dry_run(
    plan: Plan, console: Console, start_engine: StartEngine = Engine, price_per_hour: float | None = None
) -> int:
    """Print the resolved recipe, the listing, and what a sample says about the whole. Writes nothing.

    The exit code is 0, or 3 where more rows of the sample fail than may. All rows are taken to be like the sample's,
    as far as its places differ from each other: tokens, hours and cost come with the bounds of 95 % confidence.

    Args:
        plan: the run.
        console: where it is printed.
        start_engine: makes the engine.
        price_per_hour: of one replica, in any currency; the cost is then told.

    Raises:
        UserError: the engine refuses its config.
        JobError: it does not start, or ends.
    """
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in {**plan.fingerprint, **{f"version of {k}": v for k, v in versions(*VERSIONS).items()}}.items():
        table.add_row(key, value)
    console.print(table)
    console.print(
        f"{plan.rows:,} rows in {len(plan.listing.shards):,} files, {plan.pending_rows:,} to do", highlight=False
    )
    job.print_left_out(plan.listing, console)
    for recipe in plan.recipe.tasks:
        if recipe.index and recipe.k:
            demonstrations = retrieval.open_index(recipe.index, recipe.encoder).examples
            for line in formats.omissions(demonstrations, formats.get(recipe.format), recipe.task):
                console.print(f"demonstrations of {recipe.index}: {line}", highlight=False, markup=False)
    unreadable: Counter[str] = Counter()
    places = sample(plan, unreadable)
    sampled = sum(map(len, places))
    if unreadable:
        console.print(f"{unreadable.total():,} rows of the sample cannot be read and will be `failed`", highlight=False)
        job.print_reasons(unreadable, console)
    if not sampled:
        return job.TOO_MANY_FAILED if unreadable else job.OK
    sample_of = f"a sample of {sampled} rows, or as many as are read in a minute"
    console.print(f"an engine starts and reads {sample_of} ...", highlight=False)
    by_place, rows_per_second, startup_seconds = _read(plan, places, console, start_engine)
    predictions = list(chain(*by_place))
    characters = [len(text or "") for texts, read in zip(places, by_place, strict=True) for text in texts[: len(read)]]
    statuses = Counter(prediction.status.value for prediction in predictions)
    console.print(
        f"{'sample':16} {len(predictions)} rows, {fmean(characters):,.0f} characters each: "
        + ", ".join(f"{count:,} {status}" for status, count in sorted(statuses.items())),
        highlight=False,
    )
    job.print_reasons(Counter(prediction.error for prediction in predictions if prediction.error), console)
    job.print_advice(statuses, plan.recipe, console)
    failed = statuses[Status.FAILED] / len(predictions) * sampled + unreadable.total()
    if failed > plan.config.job.max_failed * (sampled + unreadable.total()):
        console.print("too many rows failed (job.max_failed): what they cost says nothing about the whole")
        return job.TOO_MANY_FAILED
    print_estimate(plan, by_place, rows_per_second, startup_seconds, price_per_hour, console)
    return job.OK


def print_estimate(
    plan: Plan,
    by_place: Sequence[Sequence[Prediction]],
    rows_per_second: float,
    startup_seconds: float,
    price_per_hour: float | None,
    console: Console,
) -> None:
    """What the rows to do take if they are like the sample's; ``rows_per_second`` are those of one replica."""
    replicas = plan.config.job.replicas
    speed = rows_per_second * replicas
    prompt = fmean(p.prompt_tokens for place in by_place for p in place)
    completion = fmean(p.completion_tokens for place in by_place for p in place)
    error = relative_error([[p.prompt_tokens + p.completion_tokens for p in place] for place in by_place if place])

    def between(value: float, text: Callable[[float], str]) -> str:
        bounds = f" ({text(value * max(0.0, 1 - error))} to {text(value * (1 + error))})" if error < math.inf else ""
        return f"{text(value)}{bounds}"

    reading = plan.rows_to_read / speed
    lines = {
        "tokens per row": f"{prompt:,.0f} prompt + {completion:,.0f} completion",
        "tokens in all": between(plan.rows_to_read * (prompt + completion), "{:,.0f}".format),
        "rows per second": f"{speed:,.1f} with {replicas} replica{'s' * (replicas > 1)}",
        "engine start": duration(startup_seconds),
        "estimated time": between(reading, lambda value: duration(value + startup_seconds)),
    }
    if price_per_hour is not None:
        hourly = price_per_hour * replicas / 3600
        lines["cost"] = between(reading, lambda value: f"{(value + startup_seconds) * hourly:,.2f}")
    for name, value in lines.items():
        console.print(f"{name:16} {value}", highlight=False)


def relative_error(by_place: Sequence[Sequence[float]]) -> float:
    """Half the width of the mean's 95 % interval, as a share of the mean, from samples of several places.

    Rows of one place are like each other, so it is the places' means that vary freely (cluster sampling; Cochran,
    Sampling Techniques, 1977, chapter 9). Of one place its rows must do. Infinite for one value, or none but 0.
    """
    groups = [fmean(place) for place in by_place] if len(by_place) > 1 else by_place[0]
    mean = fmean(chain(*by_place))
    if len(groups) < 2 or not mean:
        return math.inf
    return float(stdtrit(len(groups) - 1, 0.975)) * stdev(groups) / math.sqrt(len(groups)) / mean


def sample(plan: Plan, unreadable: Counter[str]) -> list[list[str | None]]:
    """Up to 256 texts from up to 16 places spread evenly over what is pending, by place.

    Of units that are retried the rows to do again, which may be like no others: the long ones, say. Rows that cannot be
    read are left out; ``unreadable`` gains why.
    """
    filled = [unit for unit in plan.pending if unit.rows]
    column = plan.config.input.text_column
    count = min(SAMPLE_PLACES, len(filled))
    places = [filled[number * len(filled) // count] for number in range(count)]
    texts_by_place = []
    for unit in places:
        with storage.explained(unit.shard.uri):
            texts, errors = texts_of(read_unit(unit, [column]), column)
        rows: Sequence[int] = range(unit.rows)
        if again := plan.retried.get(unit.name):
            statuses = tables.read_table(plan.destination.uri(unit.name))["status"].to_pylist()
            rows = [row for row in rows if statuses[row] in again]
        rows = rows[: SAMPLE_ROWS // len(places)]
        unreadable.update(DETAILS.sub("", errors[row]) for row in rows if row in errors)
        texts_by_place.append([texts[row] for row in rows if row not in errors])
    return [texts for texts in texts_by_place if texts]


def _read(
    plan: Plan, places: Sequence[Sequence[str | None]], console: Console, start_engine: StartEngine
) -> tuple[list[list[Prediction]], float, float]:
    """What :func:`read_sample` gives, where the job's replicas would run."""
    with cluster.session(plan.config.job.address) as alone:
        job.wait_for_replica_room(plan, console, alone=alone)
        task = ray.remote(read_sample).options(max_retries=0, **job.resources(plan.config.job, plan.recipe))
        start = time.monotonic()
        reading = task.remote(plan.recipe, places, start_engine)
        try:
            with ProgressLine(console) as live:
                live.show(lambda: f"the engine starts and reads: {duration(time.monotonic() - start)}")
                result: tuple[list[list[Prediction]], float, float] = ray.get(reading)
        except KeyboardInterrupt:  # else the worker would read to the end, with the GPU's memory, after this process
            ray.cancel(reading, force=True)
            ray.wait([reading], timeout=10)
            raise
        except ray.exceptions.RayError as error:  # Ray's own message is pages long
            cause = cluster.root_cause(error)
            if isinstance(cause, UserError):
                raise cause from None
            gone = isinstance(cause, ray.exceptions.RayError) and not isinstance(cause, ray.exceptions.RayTaskError)
            if isinstance(cause, EngineDeadError) or gone:  # no engine, no worker or no node
                raise JobError(f"the sample could not be read: {cluster.last_line(cause)}") from None
            raise
        return result


def read_sample(
    recipe: Recipe, places: Sequence[Sequence[str | None]], start_engine: StartEngine
) -> tuple[list[list[Prediction]], float, float]:
    """Start a replica and read texts: the predictions by place, rows per second, and the seconds of the start.

    They are read in ``ROUNDS``, of every place the first rows, until ``SAMPLE_SECONDS`` are over. The largest round
    says how fast it goes, so that compilation and first-use costs are not counted.
    """
    order = sorted((row, place) for place, texts in enumerate(places) for row in range(len(texts)))
    texts = [places[place][row] for row, place in order]
    start = time.monotonic()
    predictor = Predictor(recipe, start_engine=start_engine)
    ready = time.monotonic()
    predictions: list[Prediction] = []
    most_rows, rows_per_second = 0, 0.0
    for size in ROUNDS:
        round_texts = texts[len(predictions) : len(predictions) + size]
        clock = time.monotonic()
        if not round_texts or (predictions and clock - ready > SAMPLE_SECONDS):
            break
        predictions += predictor.predict(round_texts)
        if len(round_texts) >= most_rows:
            most_rows = len(round_texts)
            rows_per_second = most_rows / (time.monotonic() - clock)
    predictor.close()
    by_place: list[list[Prediction]] = [[] for _ in places]
    for (_, place), prediction in zip(order, predictions, strict=False):
        by_place[place].append(prediction)
    return by_place, rows_per_second, ready - start
