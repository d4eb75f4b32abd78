"""The extraction job as a program: settings, a plan in which every problem shows, three Ray Data steps, an exit code.

`python jobs/extract.py jobs/extract.yaml [a.b=value ...] [--dry-run [--price P]] [--limit N] [--retry]
[--retry-status S ...]` does what `ner-batch extract` does, and is what `ray job submit` runs. Change it where your job
is another one: a filter between two steps.
"""

from pathlib import Path
from typing import Annotated

import ray.data
import typer

from ner_batch.cli import console, exit_code
from ner_batch.config import load
from ner_batch.extraction.dryrun import dry_run as estimate
from ner_batch.extraction.job import extraction, io_tasks, replica_options
from ner_batch.extraction.plan import Plan, prepare
from ner_batch.extraction.replica import Replica
from ner_batch.extraction.settings import ExtractConfig
from ner_batch.extraction.units import ShardUnits


def extract(plan: Plan) -> int:
    """Read, extract, write: a block is a work unit is an output file."""
    job = plan.config.job
    with extraction(plan, console) as run:
        for portion in run.portions:  # more than one for more than ten thousand units
            units = ray.data.read_datasource(
                ShardUnits(portion, plan.destination, run.tracker, plan.retried),
                override_num_blocks=len(portion),
                num_cpus=0,
                concurrency=io_tasks(job),
            )
            entities = units.map_batches_internal(  # `map_batches` with batch_size=None refuses GPUs
                Replica,
                batch_size=None,
                fn_constructor_args=(plan.recipe, run.tracker, plan.destination.text_in_blocks),
                **replica_options(job, plan.recipe),
            )
            entities.write_datasink(run.sink, ray_remote_args={"num_cpus": 0}, concurrency=io_tasks(job))
    return run.exit_code


def main(
    config_file: Path,
    overrides: Annotated[list[str] | None, typer.Argument()] = None,
    *,
    dry_run: bool = False,
    limit: int | None = None,
    retry: bool = False,
    retry_status: Annotated[list[str] | None, typer.Option()] = None,
    price: float | None = None,
) -> None:
    """Settings, plan, job; what the user can mend ends it with 2, before an engine starts."""

    def job() -> int:
        statuses = [*(retry_status or ()), *(["failed"] if retry else ())]
        plan = prepare(load(ExtractConfig, config_file, overrides or ()), limit, retry=statuses, progress=console.print)
        return estimate(plan, console, price_per_hour=price) if dry_run else extract(plan)

    raise typer.Exit(exit_code(job))


if __name__ == "__main__":
    typer.run(main)
