"""Everything that can be known before an engine starts: what to read, with which recipe, into which output.

All problems of a run are found here and reported together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar, cast

from pydantic import ValidationError

from ner_batch import adapter as adapters
from ner_batch import formats, retrieval, storage
from ner_batch.adapter import Adapter, AdapterManifest
from ner_batch.chat import ChatTokenizer, load_tokenizer
from ner_batch.config import ExtractConfig, FormatName, RecipeConfig, explain, read_task_file
from ner_batch.data import PREDICTIONS
from ner_batch.extract.recipe import Recipe
from ner_batch.extract.unit import Destination
from ner_batch.prompt import PromptBuilder
from ner_batch.shards import Listing, Unit, list_shards, plan_units
from ner_batch.task import Task

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that can start. ``fingerprint`` names all that decides the output; a resumed run must have the same."""

    config: ExtractConfig
    recipe: Recipe
    listing: Listing
    units: tuple[Unit, ...]
    fingerprint: dict[str, str]
    limit: int | None

    @property
    def rows(self) -> int:
        """Rows to come out, those of earlier runs included."""
        return sum(unit.rows for unit in self.units)

    @property
    def destination(self) -> Destination:
        """Where and how units are written."""
        config = self.config
        names = ("fingerprint", "model", "adapter", "task", "format")
        digest = hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True).encode()).hexdigest()[:16]
        about = {"fingerprint": digest} | {n: self.fingerprint[n] for n in names[1:]}
        source, target = config.input, config.output
        return Destination(
            target.path, source.text_column, source.rename, target.keep, target.drop_input_columns, about
        )


class Problems:
    """Collects the problems of several checks, so that the person meets all of them at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def check(self, step: Callable[[], T]) -> T | None:
        """The step's value, or None with its problem noted."""
        try:
            return step()
        except ValueError as error:
            self.lines += str(error).splitlines()
            return None

    def stop_if_any(self) -> None:
        """Raise ValueError with every problem, one line each."""
        if self.lines:
            raise ValueError("\n".join(dict.fromkeys(self.lines)))


def prepare(config: ExtractConfig, limit: int | None = None) -> Plan:
    """Check everything and lay out the run.

    Raises:
        ValueError: every problem found, one line each.
    """
    config = _absolute(config)
    problems = Problems()
    ready = problems.check(lambda: make_recipe(config))
    listing = problems.check(lambda: list_shards(config.input.path, config.input.text_column))
    if listing:
        problems.check(lambda: _check_columns(config, listing))
    problems.check(lambda: _check_output(config))
    problems.stop_if_any()
    assert ready and listing
    recipe, fingerprint = ready
    units = plan_units(listing.shards, config.job.unit_rows, config.job.unit_bytes, limit)
    fingerprint |= _layout(config, limit)
    return Plan(config, recipe, listing, units, fingerprint, limit)


def _absolute(config: ExtractConfig) -> ExtractConfig:
    """Local input and output paths made absolute: replicas need not share the driver's folder."""
    source = config.input.model_copy(update={"path": storage.absolute(config.input.path)})
    target = config.output.model_copy(update={"path": storage.absolute(config.output.path)})
    return config.model_copy(update={"input": source, "output": target})


def load_task(path: str) -> Task:
    """A task file. Raises ValueError with every problem, one line each."""
    values = read_task_file(path)
    try:
        return Task.model_validate(values)
    except ValidationError as error:
        raise ValueError("\n".join(f"{path}: {line}" for line in explain(Task, error))) from None


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a recipe is made of, loaded and sound each by itself."""

    task: Task
    format: FormatName
    model: str
    chat: ChatTokenizer
    adapter: Adapter | None
    index: retrieval.Index | None


def make_recipe(config: RecipeConfig) -> tuple[Recipe, dict[str, str]]:
    """The recipe, and what of it belongs to the fingerprint.

    Raises:
        ValueError: every problem found, one line each.
    """
    parts = _parts(config)
    engine = config.engine
    if parts.adapter:
        engine = engine.model_copy(update={"max_lora_rank": _lora_rank(parts.adapter)})
    recipe = Recipe(
        parts.task,
        parts.format,
        engine,
        config.windows.max_tokens,
        adapter=config.adapter,
        index=config.retrieval.index if parts.index else None,
        encoder=config.retrieval.encoder,
        k=config.retrieval.k if parts.index else 0,
        decoding=config.decoding,
        temperature=config.temperature,
    )
    builder = PromptBuilder(formats.load(parts.format), parts.task, parts.chat, engine.max_model_len)
    problems = Problems()
    problems.check(lambda: _check_fit(recipe, parts.chat, builder))
    problems.check(lambda: _check_adapter(recipe, parts, builder))
    problems.stop_if_any()
    return recipe, _fingerprint(recipe, parts, builder)


def _parts(config: RecipeConfig) -> _Parts:
    problems = Problems()
    engine, wanted = config.engine, config.adapter
    adapter = problems.check(lambda: adapters.load(wanted)) if wanted else None
    trained = adapter.manifest if adapter else None
    task = problems.check(lambda: _task(config, adapter)) if config.task or adapter or not wanted else None
    model = problems.check(lambda: adapters.model_fingerprint(engine.model, engine.revision))
    chat = problems.check(lambda: load_tokenizer(engine.model, engine.revision)) if model else None
    index = problems.check(lambda: _index(config))
    problems.stop_if_any()
    assert task and model and chat
    return _Parts(task, config.format or _trained_format(trained), model, chat, adapter, index)


def _task(config: RecipeConfig, adapter: Adapter | None) -> Task:
    if config.task:
        return load_task(config.task)
    if adapter is None:
        raise ValueError("task: missing: name a task file, or an adapter that carries one")
    if adapter.manifest is None:
        raise ValueError(f"{adapter.path}: carries no ner_batch.json, so `task` must name a task file")
    return adapter.manifest.task


def _trained_format(trained: AdapterManifest | None) -> FormatName:
    return cast(FormatName, trained.format) if trained else "json"


def _index(config: RecipeConfig) -> retrieval.Index | None:
    chosen = config.retrieval
    return retrieval.open_index(chosen.index, chosen.encoder) if chosen.index and chosen.k else None


def _lora_rank(adapter: Adapter) -> int:
    """The smallest of vLLM's ranks that holds the adapter's."""
    fitting = [rank for rank in (1, 8, 16, 32, 64, 128, 256, 320, 512) if rank >= adapter.rank]
    if not fitting:
        raise ValueError(f"{adapter.path}: rank {adapter.rank}: vLLM serves 512 at most")
    return fitting[0]


def _check_fit(recipe: Recipe, chat: ChatTokenizer, builder: PromptBuilder) -> None:
    """A full window must fit beside the system message and its answer, or whole documents would come out `too_long`."""
    for labels in builder.format.groups(recipe.task):
        fixed = len(chat.encode(builder.format.messages("", labels, recipe.task, ())))
        room = builder.format.max_answer_tokens(recipe.window_tokens, len(labels))
        need = fixed + recipe.window_tokens + room
        if need > recipe.engine.max_model_len:
            raise ValueError(
                f"windows.max_tokens={recipe.window_tokens}: with {fixed} tokens of instructions and {room} of answer "
                f"that is {need}, over engine.max_model_len={recipe.engine.max_model_len}: lower one or raise the other"
            )


def _check_adapter(recipe: Recipe, parts: _Parts, builder: PromptBuilder) -> None:
    if parts.adapter is None:
        return
    adapters.check(
        parts.adapter,
        base_model=recipe.engine.model,
        base_fingerprint=parts.model,
        format=recipe.format,
        task=recipe.task,
        prompt_fingerprint=builder.fingerprint(),
        retrieval=parts.index.kind if parts.index else None,
    )


def _fingerprint(recipe: Recipe, parts: _Parts, builder: PromptBuilder) -> dict[str, str]:
    """All that decides an answer, in words a person can compare."""
    adapter, index, engine = parts.adapter, parts.index, recipe.engine
    return {
        "model": f"{engine.model} ({parts.model})",
        "adapter": f"{adapter.name} ({adapter.digest[:16]})" if adapter else "none",
        "task": f"{recipe.task.name} ({recipe.task.digest()})",
        "format": recipe.format,
        "prompt": builder.fingerprint(),
        "index": f"{index.kind} ({index.fingerprint})" if index else "none",
        "retrieval.k": str(recipe.k),
        "decoding": recipe.decoding,
        "temperature": str(recipe.temperature),
        "windows.max_tokens": str(recipe.window_tokens),
        "engine.max_model_len": str(engine.max_model_len),
        "engine.dtype": engine.dtype,
        "engine.quantization": str(engine.quantization),
        "code": version("ner-batch"),
    }


def _layout(config: ExtractConfig, limit: int | None) -> dict[str, str]:
    """What decides the files and columns of the output."""
    return {
        "input.text_column": config.input.text_column,
        "input.rename": str(dict(config.input.rename)),
        "output.keep": str(config.output.keep),
        "output.drop_input_columns": str(config.output.drop_input_columns),
        "job.unit_rows": str(config.job.unit_rows),
        "job.unit_bytes": str(config.job.unit_bytes),
        "limit": str(limit),
    }


def _check_columns(config: ExtractConfig, listing: Listing) -> None:
    """Named columns must exist, and none may meet one of ours in the output."""
    for shard in listing.shards:
        columns = list(shard.columns)
        output = config.output
        named = {"input.rename": tuple(config.input.rename), "output.keep": output.keep or ()}
        named["output.drop_input_columns"] = output.drop_input_columns
        for field, names in named.items():
            for name in names:
                if name not in columns:
                    raise ValueError(f"{field}: no column {name!r} in {shard.uri} (it has {', '.join(columns)})")
        out = [config.input.rename.get(n, n) for n in output.keep or columns if n not in output.drop_input_columns]
        for name in out:
            if name in PREDICTIONS.names:
                raise ValueError(
                    f"{shard.uri}: its column {name!r} would meet the one this job adds: "
                    f"set input.rename.{name}=gold_{name} or output.drop_input_columns=[{name}]"
                )
            if out.count(name) > 1:
                raise ValueError(
                    f"{shard.uri}: two columns would be called {name!r} in the output: change input.rename"
                )


def _check_output(config: ExtractConfig) -> None:
    """The output may not lie where the input is read, nor in a place that a submitted job loses."""
    source, target = config.input.path.rstrip("/"), config.output.path.rstrip("/")
    if target == source or target.startswith(source + "/"):
        raise ValueError(f"output.path: {target} lies inside input.path {source}: a later run would read it; move it")
    storage.check_writable(target)
