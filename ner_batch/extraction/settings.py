"""The extraction job's config; :class:`RecipeConfig` is the part of it that decides answers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ner_batch.config import Config, Count, FormatName, Share, Uri, plain_path
from ner_batch.engine.settings import EngineConfig
from ner_batch.errors import UserError
from ner_batch.task import Task
from ner_batch.verification.settings import VerifyConfig

Decoding = Literal["auto", "free", "constrained"]


class InputConfig(Config):
    """What is read."""

    path: Uri
    """A file, a folder (read recursively) or a glob; local or s3://. Parquet, JSON Lines, CSV, or Arrow."""
    text_column: str = "text"
    """The column that is read; strings. `doc.body` is the field `body` of `doc`, where no column has that name."""
    id_column: str | None = None
    """A column that names rows in what is printed about errors; it must be among those that are kept."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Input columns to pass through under another name, e.g. {entities: gold_entities}."""


class OutputConfig(Config):
    """What is written, and where."""

    path: Uri
    """A folder, local or s3://; one file per work unit."""
    keep: tuple[str, ...] | None = None
    """Input columns to pass through; None: all of them, []: none."""
    drop_input_columns: tuple[str, ...] = ()
    """Input columns to leave out."""


class RetrievalConfig(Config):
    """Demonstrations in the prompt. Without an index there are none."""

    index: Annotated[str | None, BeforeValidator(plain_path)] = None
    """Folder written by `ner-batch index`."""
    encoder: Annotated[str | None, BeforeValidator(plain_path)] = None
    """Must name the encoder the index was built with; None takes the index's word."""
    k: Annotated[int, Field(ge=0, le=64)] = 4
    """Demonstrations per prompt; the farthest are left out where they do not fit."""


class VotesConfig(Config):
    """Self-consistency: every prompt is answered several times; an entity needs enough of the votes."""

    passes: Annotated[int, Field(ge=2, le=64)] = 5
    """Answers to every prompt; each costs its own tokens, the prompt is computed once."""
    temperature: Annotated[float, Field(gt=0)] = 0.7
    """Of the sampling; answers must differ to vote."""
    least: Share = 0.5
    """Least share of the answers that name an entity; the share is its `score`."""


class WindowsConfig(Config):
    """How long texts are cut."""

    max_tokens: Count = 512
    """Tokens of source text in one prompt, cut at sentence ends."""
    max_characters: Count = 100_000_000
    """A longer text is not read: its row is `failed` and says so. A hundred million are an hour or more of a GPU. With
    another limit `--retry` does such rows again."""


class JobConfig(Config):
    """How Ray runs it."""

    unit_rows: Count = 2000
    """Rows of one work unit: one output file, and the most that is repeated after a crash (per unit in flight)."""
    unit_bytes: Count = 8_000_000
    """Text in one work unit, at most about: a unit of books has fewer rows than one of sentences."""
    units_in_flight: Count = 4
    """Units read, prompted and parsed side by side in one replica, so that its engine never drains."""
    replicas: Count = 1
    """Engines, each with its own GPU(s)."""
    num_gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs per replica; None: `tensor_parallel_size` where the cluster has GPUs, or is to have some, else 0."""
    num_cpus: Annotated[float, Field(ge=0)] | None = None
    """CPUs, and threads, of a replica. None: this machine's, shared out; 1 in a cluster; beside a GPU 1, or with an
    encoder of demonstrations the GPU's share of its node's."""
    storage_wait_seconds: Annotated[float, Field(ge=0)] = 1800.0
    """How long storage that cannot be reached, or is full, is waited for before the run ends. 0: not at all, and a unit
    that meets it is left for the next run."""
    max_failed: Share = 0.01
    """Share of rows that may end as `failed` before the job exits with code 3."""
    max_engine_deaths: Annotated[int, Field(ge=0)] = 30
    """Engine deaths in one run before the job gives up; one poisoned row costs about log2(unit_rows) of them."""
    address: str | None = None
    """Ray cluster to join; None: RAY_ADDRESS if set, else a local one."""


def _task(value: Any) -> Any:
    """A mapping as the task it describes, a path as a string."""
    if isinstance(value, Mapping):
        return Task.model_validate(value)
    if value is not None and not isinstance(value, str | os.PathLike | Task):
        raise UserError("a task file's path, or a Task")
    return plain_path(value)


class TaskConfig(Config):
    """What decides the answers for one task."""

    task: Annotated[Task | str | None, BeforeValidator(_task)] = None
    """Task file, or what would stand in one (from Python a Task); None takes the adapter's."""
    adapter: Annotated[str | None, BeforeValidator(plain_path)] = None
    """LoRA adapter folder; local or s3://."""
    format: FormatName | None = None
    """Answer format; None takes the adapter's, else json."""
    decoding: Decoding = "auto"
    """auto decodes freely, then again under the format's grammar where the answer is not made of the source."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy; sampling makes runs differ."""
    retrieval: RetrievalConfig = RetrievalConfig()
    score: bool = False
    """Fill `score` with the probability the model gave the entity when it named it (confidence.py says how). An answer
    under a grammar is read once more for it: one prefill, past the prefix cache, counted in the row's tokens."""
    votes: VotesConfig | None = None
    """Answer several times and vote; `votes: {}` takes the defaults."""
    verify: VerifyConfig | None = None
    """Ask about every entity; `score` is then P(yes). `verify: {}` takes the defaults; null: do not ask."""

    @model_validator(mode="after")
    def _votes_decide(self) -> Self:
        if self.votes and (self.score or "temperature" in self.model_fields_set):
            other = "score" if self.score else "temperature"
            raise UserError(
                f"votes: {other} has no meaning beside it: the share of votes is the score, "
                "and votes.temperature the temperature"
            )
        return self


class RecipeConfig(TaskConfig):
    """What decides an answer."""

    engine: EngineConfig
    tasks: tuple[TaskConfig, ...] = ()
    """Several tasks, each with its own adapter, read the corpus in one pass; `adapter`, `format` ... stand in each."""
    windows: WindowsConfig = WindowsConfig()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        above = sorted(self.model_fields_set & set(TaskConfig.model_fields)) if self.tasks else []
        if above:
            raise UserError(f"tasks: beside it stands {', '.join(above)}: write it into each of the tasks")
        return self

    @property
    def each_task(self) -> tuple[TaskConfig, ...]:
        """The tasks of the run: those listed, or the one that stands at the top."""
        return self.tasks or (self,)


class ExtractConfig(RecipeConfig):
    """`ner-batch extract`."""

    input: InputConfig
    output: OutputConfig
    job: JobConfig = JobConfig()

    @model_validator(mode="after")
    def _gpus_suffice(self) -> Self:
        check_gpus(self.job, self.engine)
        return self


def check_gpus(job: JobConfig, engine: EngineConfig) -> None:
    """Raises UserError where a replica reserves fewer GPUs than its engine takes, or engines take too much of one."""
    if not job.num_gpus:
        return
    if job.num_gpus < engine.tensor_parallel_size > 1:
        size = engine.tensor_parallel_size
        raise UserError(f"job.num_gpus={job.num_gpus:g}: engine.tensor_parallel_size={size} takes {size}: leave it out")
    engines = min(job.replicas, int(1 / job.num_gpus + 1e-9))
    if engines > 1 and engines * engine.gpu_memory_utilization > 1:
        raise UserError(
            f"job.num_gpus={job.num_gpus:g}: {engines} engines share a GPU, and engine.gpu_memory_utilization="
            f"{engine.gpu_memory_utilization:g} is a share of all of its memory: set it to {0.9 / engines:.2f}"
        )
