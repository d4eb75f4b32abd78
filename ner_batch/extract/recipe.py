"""The recipe: everything that decides an answer, checked in the driver, carried as plain values to every replica."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar, cast

from ner_batch import adapter as adapters
from ner_batch import formats, retrieval
from ner_batch.adapter import Adapter, AdapterManifest
from ner_batch.chat import ChatTokenizer, load_tokenizer
from ner_batch.cluster import on_every_node
from ner_batch.config import Decoding, EngineConfig, FormatName, Problems, RecipeConfig
from ner_batch.prompt import PromptBuilder
from ner_batch.task import Task, load_task

R = TypeVar("R", bound=RecipeConfig)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one replica needs to turn texts into predictions. Picklable; paths, not objects.

    ``window_tokens`` is the most source tokens in one prompt; ``k`` the demonstrations asked of the index, 0 without.
    """

    task: Task
    format: FormatName
    engine: EngineConfig
    window_tokens: int
    adapter: str | None = None
    index: str | None = None
    encoder: str | None = None
    k: int = 0
    decoding: Decoding = "auto"
    temperature: float = 0.0


def local(config: R) -> R:
    """Model, adapter, index and encoder made absolute where they are folders here; in a submitted job they stay."""
    engine = config.engine.model_copy(update={"model": on_every_node(config.engine.model)})
    near = {"index": on_every_node(config.retrieval.index), "encoder": on_every_node(config.retrieval.encoder)}
    changed = {
        "engine": engine,
        "adapter": on_every_node(config.adapter),
        "retrieval": config.retrieval.model_copy(update=near),
    }
    return config.model_copy(update=changed)


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
    config = local(config)
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
        "model": f"{Path(engine.model).name} ({parts.model})",
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
