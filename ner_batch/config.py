"""YAML plus ``a.b=c`` overrides to frozen, strict configs; every problem is reported at once, before anything starts.

Each job has one config class. Components take plain values out of it; none of them sees a whole config.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ner_batch.errors import UserError

FormatName = Literal["json", "inline", "mrc", "gpt-ner"]
Decoding = Literal["auto", "free", "constrained"]
IndexKind = Literal["random", "lexical", "sentence", "entity"]

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Uri = Annotated[str, Field(min_length=1)]


class Config(BaseModel):
    """Frozen and strict: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class EngineConfig(Config):
    """One vLLM engine per replica."""

    model: Uri
    """Local folder or hub name of the base model."""
    revision: str | None = None
    """Hub revision; pin it for runs that must be repeatable."""
    dtype: str = "auto"
    """Numbers of weights and activations; auto takes the model's own (bf16 mostly)."""
    quantization: str | None = None
    """vLLM's name of it (awq, fp8, bitsandbytes ...); None reads the model's own config."""
    max_model_len: Count = 4096
    """Tokens of prompt plus answer. Demonstrations, window and answer must fit."""
    max_num_seqs: Count = 256
    """Sequences decoded together."""
    max_num_batched_tokens: Count | None = None
    """Tokens of one engine step; None: vLLM chooses."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the GPU that weights and KV cache may take."""
    tensor_parallel_size: Count = 1
    """GPUs that share one engine."""
    enforce_eager: bool = False
    """Skip CUDA graphs and compilation: starts faster, decodes slower."""
    max_lora_rank: Count = 64
    """Room for adapters; the job sets it from the adapter it serves."""
    max_loras: Count = 1
    """Adapters held on the device at once; the job makes room for all it serves."""
    cpu_kv_cache_gib: Count | None = None
    """CPU only: memory for the KV cache; vLLM's own default is half of what is free."""
    in_process: bool | None = None
    """Run vLLM's engine core in the replica's process. None: on CPU yes (starts in 2 s instead of 30), on GPU no."""
    max_in_flight: Count = 512
    """Prompts handed to vLLM at once; beyond `max_num_seqs`, so that it never drains."""
    stall_seconds: Annotated[float, Field(gt=0)] = 600.0
    """An engine that returns nothing for so long with work in flight is taken for dead."""
    extra: dict[str, Any] = {}
    """Passed to vLLM's EngineArgs as they are."""


class InputConfig(Config):
    """What is read."""

    path: Uri
    """A Parquet file, a folder (read recursively) or a glob; local or s3://."""
    text_column: str = "text"
    """The column that is read; strings."""
    rename: dict[str, str] = {}
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

    index: str | None = None
    """Folder written by `ner-batch index`."""
    encoder: str | None = None
    """Must name the encoder the index was built with; None takes the index's word."""
    k: Annotated[int, Field(ge=0, le=64)] = 4
    """Demonstrations per prompt; the farthest are left out where they do not fit."""


class VerifyConfig(Config):
    """A yes/no question about every entity that was found (GPT-NER's self-verification)."""

    threshold: Share | None = None
    """Least P(yes) of an entity that is verified; None: what the adapter found best on its dev set, else 0.5."""
    rejected: Literal["drop", "keep"] = "drop"
    """What becomes of the others: dropped, or kept with `verified` false."""
    k: Annotated[int, Field(ge=0, le=64)] = 0
    """Demonstrations of the question: gold mentions and non-mentions most like it; needs `retrieval.index`."""


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
    """GPUs per replica; None: `tensor_parallel_size` where the cluster has GPUs, else 0."""
    num_cpus: Annotated[float, Field(ge=0)] = 1.0
    """CPUs reserved per replica."""
    max_failed: Share = 0.01
    """Share of rows that may end as `failed` before the job exits with code 3."""
    max_engine_deaths: Annotated[int, Field(ge=0)] = 30
    """Engine deaths in one run before the job gives up; one poisoned row costs about log2(unit_rows) of them."""
    address: str | None = None
    """Ray cluster to join; None: RAY_ADDRESS if set, else a local one."""


class TaskConfig(Config):
    """What decides the answers for one task."""

    task: str | None = None
    """Task file; None takes the adapter's."""
    adapter: str | None = None
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


class IndexConfig(Config):
    """`ner-batch index`."""

    examples: Uri
    """Gold examples, Parquet with id, text, entities."""
    out: Uri
    """Folder for the index."""
    kind: IndexKind = "lexical"
    """random, lexical (shared character n-grams), sentence (nearest by an encoder), entity (nearest mentions)."""
    encoder: str | None = None
    """sentence, entity: a sentence-transformers model, for entity any Hugging Face model with token states."""
    flat_up_to: Annotated[int, Field(ge=0)] | None = None
    """sentence, entity: vectors that are searched exactly, more are listed and searched faster; None: 200,000."""


C = TypeVar("C", bound=Config)


def load(kind: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """A config from a YAML file and ``a.b=c`` overrides (values are YAML).

    Raises:
        UserError: every problem found, one line each, naming file and field.
    """
    values = _read_yaml(path)
    problems = [problem for override in overrides if (problem := _apply(values, override))]
    try:
        config = kind.model_validate(values)
    except ValidationError as error:
        problems += [_explain(kind, detail) for detail in error.errors()]
    if problems:
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems))
    return config


def read_task_file(path: str) -> dict[str, Any]:
    """The YAML mapping in a task file. Raises UserError in one line."""
    return _read_yaml(path)


def _read_yaml(path: str | Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    return values


def _apply(values: dict[str, Any], override: str) -> str | None:
    """Set one override in place; the problem in words, if there is one."""
    key, equals, raw = override.partition("=")
    if not equals or not key or any(not part for part in key.split(".")):
        return f"override {override!r}: write a.b=value"
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError:
        return f"override {override!r}: {raw!r} is not a YAML value"
    *parents, leaf = key.split(".")
    for part in parents:
        if values.get(part) is None:
            values[part] = {}
        if not isinstance(values[part], dict):
            return f"override {override!r}: {part} is a value, not a section"
        values = values[part]
    values[leaf] = value
    return None


def explain(kind: type[BaseModel], error: ValidationError) -> list[str]:
    """One line per problem of a pydantic error, with `did you mean` for unknown keys."""
    return [_explain(kind, detail) for detail in error.errors()]


def _explain(kind: type[BaseModel], detail: Mapping[str, Any]) -> str:
    location = [str(part) for part in detail["loc"]]
    name = ".".join(location)
    if detail["type"] == "extra_forbidden":
        fields = _fields_at(kind, location[:-1])
        return f"{name}: unknown field{_did_you_mean(location[-1], fields)}"
    if detail["type"] == "missing":
        return f"{name}: missing"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{name}: {message} (got {detail['input']!r})" if name else message


def _fields_at(kind: type[BaseModel], location: Sequence[str]) -> list[str]:
    """Names of the fields one may write at a place inside ``kind``; none where the place is not a section."""
    for part in location:
        if part.isdigit():  # a place in a list
            continue
        field = kind.model_fields.get(part)
        inner = [] if field is None else [field.annotation, *get_args(field.annotation)]
        sections = [t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)]
        if not sections:
            return ["definition", "question"] if location[:1] == ["labels"] else []
        kind = sections[0]
    return list(kind.model_fields)


def _did_you_mean(word: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (known: {', '.join(names)})" if names else ""


# Words that name credentials, as whole parts of a key: `token`, `hf_token`, `secret_key`; not `max_tokens`.
_SECRET_KEY = re.compile(
    r"(^|_)(token|secret|password|passwd|credentials?|api_key|access_key|secret_key)($|_)", re.IGNORECASE
)
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


def dump(config: Config) -> dict[str, Any]:
    """The resolved config as plain values, secrets replaced by ``***``; safe to print and to store."""
    redacted: dict[str, Any] = _redact(config.model_dump(mode="json"))
    return redacted


def _redact(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: "***" if _SECRET_KEY.search(k) and v is not None else _redact(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_redact(part) for part in value]
    if isinstance(value, str):
        return _USERINFO.sub("***@", value)
    return value
