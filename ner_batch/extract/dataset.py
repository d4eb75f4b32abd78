"""The library call: a Ray Dataset of rows with text in, the same rows with entities out.

Scheduling, retries and writing are the caller's; resume and exactly-once output belong to the job (:mod:`job`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import ray.data

from ner_batch.config import JobConfig, RecipeConfig
from ner_batch.engine.engine import EngineDead
from ner_batch.extract.extractor import Extractor
from ner_batch.extract.job import gpus_per_replica
from ner_batch.extract.recipe import Recipe, make_recipe
from ner_batch.extract.unit import invalid, leave, with_predictions
from ner_batch.io.shards import texts_of

if TYPE_CHECKING:
    from ray.data import Dataset


class BatchExtractor:
    """One replica over batches of rows, as Arrow tables."""

    def __init__(self, recipe: Recipe, text_column: str) -> None:
        self.extractor = Extractor(recipe)
        self.text_column = text_column

    async def __call__(self, table: pa.Table) -> pa.Table:
        """The table with the columns of :func:`ner_batch.data.predictions_schema` appended."""
        texts, unreadable = texts_of(table, self.text_column)
        try:
            predictions = dict(enumerate(await self.extractor.predict(texts))) | invalid(unreadable)
        except EngineDead:
            leave()  # Ray restarts the replica and tries the batch again
        return with_predictions(table, list(predictions.values()), self.extractor.recipe.tagged)


def extract(
    dataset: Dataset,
    config: RecipeConfig,
    *,
    text_column: str = "text",
    batch_rows: int = 256,
    job: JobConfig | None = None,
) -> Dataset:
    """``dataset`` with entities: the columns of :func:`ner_batch.data.predictions_schema` appended to every row.

    Args:
        dataset: any Ray Dataset with a string column ``text_column``; repartition it first
            (``repartition(target_num_rows_per_block=...)``), for a block is what one replica works on at a time.
        text_column: the column that is read.
        config: model, task or adapter, format, retrieval, windows.
        batch_rows: rows prompted together.
        job: ``replicas``, ``num_gpus``, ``num_cpus`` and ``units_in_flight`` (batches side by side in one replica).

    Raises:
        UserError: every problem of the config, one line each, before anything starts.
    """
    job = job or JobConfig()
    recipe, _ = make_recipe(config)
    return dataset.map_batches(
        BatchExtractor,
        batch_size=batch_rows,
        batch_format="pyarrow",
        fn_constructor_args=(recipe, text_column),
        compute=ray.data.ActorPoolStrategy(
            size=job.replicas,
            max_tasks_in_flight_per_actor=2 * job.units_in_flight,
            max_concurrent_calls_per_actor=job.units_in_flight,
        ),
        num_cpus=job.num_cpus,
        num_gpus=gpus_per_replica(job, recipe.engine),
    )
