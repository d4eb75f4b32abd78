"""The library call: a Ray Dataset of rows with text in, the same rows with entities out.

The same :class:`Extractor` as in the job, with the same promises about rows: one out for each one in, and a row that
kills engines is found and given up alone. Writing and resuming are the caller's, or the job's (:mod:`job`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ner_batch.engine.engine import Engine
from ner_batch.extract import tracker as trackers
from ner_batch.extract.extractor import Extractor, StartEngine
from ner_batch.extract.job import replica_options
from ner_batch.extract.recipe import make_recipe
from ner_batch.extract.settings import JobConfig, RecipeConfig

if TYPE_CHECKING:
    from ray.data import Dataset


def extract(
    dataset: Dataset,
    config: RecipeConfig,
    *,
    text_column: str = "text",
    batch_rows: int = 256,
    job: JobConfig | None = None,
    start_engine: StartEngine = Engine,
) -> Dataset:
    """``dataset`` with entities: the columns of :func:`ner_batch.data.predictions_schema` appended to every row.

    Args:
        dataset: any Ray Dataset with a string column ``text_column``; repartition it first
            (``repartition(target_num_rows_per_block=...)``), for a block is what one replica works on at a time.
        text_column: the column that is read.
        config: model, task or adapter, format, retrieval, windows.
        batch_rows: rows prompted together, and searched together for a row that kills engines.
        job: ``replicas``, ``num_gpus``, ``num_cpus``, ``units_in_flight`` (batches side by side in one replica) and
            ``max_engine_deaths``.
        start_engine: makes each replica's engine.

    Raises:
        UserError: every problem of the config, one line each, before anything starts.
    """
    job = job or JobConfig()
    recipe = make_recipe(config)
    return dataset.map_batches(
        Extractor,
        batch_size=batch_rows,
        fn_constructor_args=(recipe, trackers.start(job.max_engine_deaths), text_column, start_engine),
        **replica_options(job, recipe.engine),
    )
