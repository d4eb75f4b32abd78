"""What a run will cost, from a sample that is really read: tokens per row, rows per second, hours."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ner_batch.data import Prediction
from ner_batch.extract import job
from ner_batch.extract.extractor import Extractor
from ner_batch.extract.manifest import VERSIONS
from ner_batch.extract.plan import Plan
from ner_batch.extract.recipe import Recipe
from ner_batch.io.shards import Unit, read_unit, texts_of
from ner_batch.jobs import cluster
from ner_batch.jobs.progress import duration
from ner_batch.jobs.record import versions

SAMPLE_ROWS = 256
SAMPLE_PLACES = 16


@dataclass(frozen=True, slots=True)
class Sample:
    """What reading a sample took. ``characters`` counts its text."""

    rows: int
    characters: int
    seconds: float
    startup_seconds: float
    predictions: list[Prediction]


class Sampler:
    """A replica that reads a sample and measures. Run as a Ray actor, where the job's replicas would run."""

    def __init__(self, recipe: Recipe) -> None:
        started = time.monotonic()
        self.extractor = Extractor(recipe)
        self.startup_seconds = time.monotonic() - started

    def read(self, texts: Sequence[str | None]) -> Sample:
        """Read the texts; the first few once before, so that compilation and first-use costs are not counted."""
        self.extractor.predict(texts[:4])
        started = time.monotonic()
        predictions = self.extractor.predict(texts)
        seconds = time.monotonic() - started
        return Sample(len(texts), sum(len(t or "") for t in texts), seconds, self.startup_seconds, predictions)


def dry_run(plan: Plan, console: Console) -> int:
    """Print the resolved recipe, the listing, and what a sample says about the whole. Writes nothing; 0."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in {**plan.fingerprint, **{f"version of {k}": v for k, v in versions(*VERSIONS).items()}}.items():
        table.add_row(key, value)
    console.print(table)
    console.print(
        f"{plan.rows:,} rows in {len(plan.listing.shards):,} files, {plan.pending_rows:,} to do", highlight=False
    )
    for corrupt in plan.listing.corrupt:
        console.print(
            f"[red]unreadable[/] {escape(f'{corrupt.name}: {corrupt.reason}')}", highlight=False, soft_wrap=True
        )
    texts = sample_texts(plan, plan.pending)
    if texts:
        with cluster.session(plan.config.job.address):
            _print_estimate(plan, plan.pending_rows, _read_on_a_replica(plan, texts), console)
    return job.OK


def sample_texts(plan: Plan, units: Sequence[Unit]) -> list[str | None]:
    """Up to 256 texts from up to 16 places spread evenly over the units."""
    filled = [unit for unit in units if unit.rows]
    places = filled[:: max(1, len(filled) // SAMPLE_PLACES)][:SAMPLE_PLACES]
    texts: list[str | None] = []
    for unit in places:
        column = plan.config.input.text_column
        texts += texts_of(read_unit(unit, [column]), column)[0][: SAMPLE_ROWS // len(places)]
    return texts


def _read_on_a_replica(plan: Plan, texts: Sequence[str | None]) -> Sample:
    config = plan.config.job
    resources: dict[str, Any] = {
        "num_cpus": config.num_cpus,
        "num_gpus": job.gpus_per_replica(config, plan.recipe.engine),
    }
    sampler = ray.remote(Sampler).options(**resources).remote(plan.recipe)
    sample: Sample = ray.get(sampler.read.remote(list(texts)))
    return sample


def _print_estimate(plan: Plan, rows: int, sample: Sample, console: Console) -> None:
    """Rows are taken to be like the sample's; the estimate says so."""
    replicas = plan.config.job.replicas
    speed = sample.rows / sample.seconds * replicas
    prompt = sum(p.prompt_tokens for p in sample.predictions) / sample.rows
    completion = sum(p.completion_tokens for p in sample.predictions) / sample.rows
    lines = {
        "sample": f"{sample.rows} rows, {sample.characters / sample.rows:,.0f} characters each",
        "tokens per row": f"{prompt:,.0f} prompt + {completion:,.0f} completion",
        "tokens in all": f"{rows * (prompt + completion):,.0f}",
        "rows per second": f"{speed:,.1f} with {replicas} replica{'s' * (replicas > 1)}",
        "engine start": duration(sample.startup_seconds),
        "estimated time": duration(rows / speed + sample.startup_seconds),
    }
    for name, value in lines.items():
        console.print(f"{name:16} {value}", highlight=False)
