"""The recipe: everything that decides an answer, checked in the driver, carried as plain values to every replica."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from ner_batch import adapter as adapters
from ner_batch import retrieval
from ner_batch.adapter import Adapter, Calibration
from ner_batch.config import FormatName
from ner_batch.engine.settings import EngineConfig
from ner_batch.errors import Problems, UserError
from ner_batch.extraction.settings import Decoding, RecipeConfig, RetrievalConfig, TaskConfig, VotesConfig
from ner_batch.jobs.cluster import on_every_node
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import ChatTokenizer, load_tokenizer, template_text
from ner_batch.task import Task, load_task
from ner_batch.verification import pool as mention
from ner_batch.verification import question
from ner_batch.verification.settings import VerifyConfig

ANSWERS_VERSION = "3"
"""Part of every run's fingerprint: changed on purpose when our code, at the same settings, may answer differently.

Prompts, tasks, adapters and the questions of verification have fingerprints of their own.
"""

S = TypeVar("S", bound=TaskConfig)


@dataclass(frozen=True, slots=True)
class TaskRecipe:
    """How one task is read. ``index`` is None where nothing is asked of it; ``k`` is the demonstrations, 0 without.

    ``encodes``: texts are searched for by an encoder, which takes threads.
    """

    task: Task
    format: FormatName
    adapter: str | None = None
    index: str | None = None
    encoder: str | None = None
    encodes: bool = False
    k: int = 0
    decoding: Decoding = "auto"
    temperature: float = 0.0
    score: bool = False
    calibration: Calibration | None = None
    votes: VotesConfig | None = None
    verify: VerifyConfig | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)

    @property
    def scored(self) -> bool:
        """Whether `score` is the probability of the naming; with verification it is P(yes)."""
        return self.score and self.verify is None

    @property
    def reread(self) -> bool:
        """Whether answers under a grammar are read again for their scores."""
        return self.scored and self.decoding != "free"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one replica needs to turn texts into predictions. Picklable; paths, not objects.

    ``window_tokens`` is the most source tokens in one prompt; ``tasks`` read the same windows in one pass.
    """

    engine: EngineConfig
    window_tokens: int
    tasks: tuple[TaskRecipe, ...]
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    """All that decides an answer, in words a person can compare: what a resumed run must share with this one."""
    max_characters: int = sys.maxsize
    """Of a text that is read; a longer one's row is `failed`."""

    @property
    def tagged(self) -> bool:
        """Whether entities must name their task."""
        return len(self.tasks) > 1


def local(config: S) -> S:
    """Model, adapters, indexes and encoders made absolute where they are folders here; in a submitted job they stay."""
    place = config.retrieval
    places = {"index": on_every_node(place.index), "encoder": on_every_node(place.encoder)}
    update: dict[str, Any] = {
        "adapter": on_every_node(config.adapter),
        "retrieval": place.model_copy(update=places),
    }
    if isinstance(config, RecipeConfig):
        here = {
            "model": on_every_node(config.engine.model),
            "chat_template": template_text(config.engine.chat_template),
        }
        engine = config.engine.model_copy(update=here)
        update |= {"engine": engine, "tasks": tuple(local(task) for task in config.tasks)}
    return config.model_copy(update=update)


def make_recipe(config: RecipeConfig) -> Recipe:
    """The recipe of a config, everything checked that can be without an engine.

    Raises:
        UserError: every problem found, one line each.
    """
    problems = Problems()
    config = problems.check(lambda: local(config)) or config
    engine = config.engine
    base = problems.check(lambda: adapters.model_fingerprint(engine.model, engine.revision))
    if base:
        problems.check(lambda: adapters.check_base(engine.model, engine.revision))
    chat = problems.check(lambda: load_tokenizer(engine.model, engine.revision, engine.chat_template)) if base else None
    tasks: list[TaskRecipe] = []
    served: list[tuple[Problems, Adapter]] = []
    for i, of_task in enumerate(config.each_task):
        noted = problems.under(f"tasks.{i}: " if config.tasks else "")
        adapter = noted.check(partial(adapters.load, of_task.adapter)) if of_task.adapter else None
        served += [(noted, adapter)] if adapter else []
        recipe = _load_task(of_task, adapter, config, base, chat, noted)
        tasks += [recipe] if recipe else []
    rereads = any(task.reread for task in tasks)
    for noted, adapter in served if rereads else ():
        noted.check(partial(_check_rereading, adapter))
    names = [task.task.name for task in tasks]
    problems.lines += [
        f"tasks: two are called {name!r}: entities could not be told apart; rename one task"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    problems.stop_if_any()
    of_tasks = {
        f"{task.task.name}: {key}" if len(tasks) > 1 else key: value
        for task in tasks
        for key, value in task.fingerprint.items()
    }
    engine = _engine(engine, [adapter for _, adapter in served], rereads)
    fingerprint = {
        "model": f"{Path(engine.model).name} ({base})",
        **of_tasks,
        "windows.max_tokens": str(config.windows.max_tokens),
        "engine.max_model_len": str(engine.max_model_len),
        "engine.dtype": engine.dtype,
        "engine.quantization": str(engine.quantization),
        "engine.extra": json.dumps(engine.extra, sort_keys=True, default=str),
        "answers": ANSWERS_VERSION,
    }
    return Recipe(engine, config.windows.max_tokens, tuple(tasks), fingerprint, config.windows.max_characters)


def _load_task(
    config: TaskConfig,
    adapter: Adapter | None,
    run: RecipeConfig,
    base: str | None,
    chat: ChatTokenizer | None,
    problems: Problems,
) -> TaskRecipe | None:
    """A task's recipe, everything checked; None, with the problems noted, where its task or model cannot be loaded."""
    task = problems.check(lambda: _task(config, adapter)) if config.task or adapter or not config.adapter else None
    index = problems.check(lambda: _index(config))
    verify = config.verify
    if verify and task and chat:
        problems.check(question.Questions(task, chat, 0).tokens)
    if task is None or chat is None or base is None:
        return None
    demonstrations = config.retrieval if index else RetrievalConfig(k=0)
    manifest = adapter.manifest if adapter else None
    if verify and verify.threshold is None:
        fitted = manifest.verification if manifest else None
        verify = verify.model_copy(update={"threshold": fitted.threshold if fitted else 0.5})
    recipe = TaskRecipe(
        task,
        config.format or (cast(FormatName, manifest.format) if manifest else "json"),
        config.adapter,
        demonstrations.index,
        demonstrations.encoder,
        encodes=bool(index and index.vector_encoder)
        and (demonstrations.k > 0 or bool(verify and verify.similarity == "vectors")),
        k=demonstrations.k,
        decoding=config.decoding,
        temperature=config.temperature,
        score=config.score,
        calibration=manifest.calibration if manifest else None,
        votes=config.votes,
        verify=verify,
    )
    builder = PromptBuilder(formats.get(recipe.format), task, chat, run.engine.max_model_len)
    problems.check(lambda: _check_fit(builder, run.windows.max_tokens))
    if adapter:
        check_use = partial(
            adapters.check,
            adapter,
            base_model=run.engine.model,
            base_fingerprint=base,
            format=recipe.format,
            task=task,
            prompt_fingerprint=builder.fingerprint(),
            retrieval=index.kind if index and recipe.k else None,
        )
        problems.check(check_use)
        problems.check(lambda: adapters.check_weights(adapter, run.engine.model, revision=run.engine.revision))
    return replace(recipe, fingerprint=_fingerprint(recipe, adapter, index, builder))


def _task(config: TaskConfig, adapter: Adapter | None) -> Task:
    if config.task:
        return config.task if isinstance(config.task, Task) else load_task(config.task)
    if adapter is None:
        raise UserError("task: missing: name a task file, or an adapter that carries one")
    if adapter.manifest is None:
        raise UserError(f"{adapter.uri}: carries no ner_batch.json, so `task` must name a task file")
    return adapter.manifest.task


def _index(config: TaskConfig) -> retrieval.Index | None:
    place, verify_k = config.retrieval, config.verify.k if config.verify else 0
    if verify_k and not place.index:
        raise UserError(f"verify.k={verify_k}: demonstrations come from an index: name retrieval.index, or k=0")
    if not place.index or not (place.k or verify_k):
        return None
    index = retrieval.open_index(place.index, place.encoder)
    if verify_k and config.verify and config.verify.similarity == "vectors" and not index.vector_encoder:
        raise UserError(
            f"verify.similarity=vectors: {place.index} is of kind {index.kind}, which has no vectors: name one of kind "
            f"{' or '.join(retrieval.ENCODED)}"
        )
    return index


def _engine(config: EngineConfig, served: Sequence[Adapter], rereads: bool) -> EngineConfig:
    """The engine with room for every adapter: the smallest of vLLM's ranks that holds theirs, and a slot for each."""
    if rereads:
        config = config.model_copy(update={"extra": rereading(config, served) | config.extra})
    if not served:
        return config
    slots = max(config.max_loras, len({adapter.path for adapter in served}))
    rank = adapters.served_rank(max(adapter.rank for adapter in served))
    return config.model_copy(update={"max_lora_rank": rank, "max_loras": slots})


def rereading(config: EngineConfig, served: Sequence[Adapter]) -> dict[str, Any]:
    """Settings of vLLM under which answers can be read again.

    It makes the logits of all tokens of a prompt that one step computes, past its profile of the memory: 4,096 tokens
    over 152,000 words take some 4 GB (vllm#5907), 512 take 0.5. And it must know that adapters leave the output layer
    alone (see ``engine``).
    """
    pieces = {"long_prefill_token_threshold": min(512, config.max_model_len)}
    layers = sorted({name for adapter in served for name in adapter.targets or ()})
    return pieces | ({"lora_target_modules": layers} if layers else {})


def _check_rereading(adapter: Adapter) -> None:
    """No adapter of an engine that reads answers again may change the output layer."""
    if adapter.targets is None or "lm_head" in adapter.targets:
        why = "changes lm_head" if adapter.targets else "names its layers by a pattern"
        raise UserError(
            f"score: {adapter.uri} {why}, so vLLM could not read answers under a grammar again: "
            "set decoding: free or score: false"
        )


def _check_fit(builder: PromptBuilder, window_tokens: int) -> None:
    """A full window must fit beside the system message and its answer, or whole documents would come out `too_long`.

    So does a question of verification then: a mention is part of its window, and an answer has room for one and a half.
    """
    for labels in builder.format.groups(builder.task):
        fixed = len(builder.chat.encode(builder.format.messages("", labels, builder.task, ())))
        room = builder.format.max_answer_tokens(window_tokens, len(labels))
        need = fixed + window_tokens + room
        if need > builder.max_model_len:
            raise UserError(
                f"windows.max_tokens={window_tokens}: with {fixed} tokens of instructions and {room} of answer "
                f"that is {need}, over engine.max_model_len={builder.max_model_len}: lower one or raise the other"
            )


def _fingerprint(
    recipe: TaskRecipe, adapter: Adapter | None, index: retrieval.Index | None, builder: PromptBuilder
) -> dict[str, str]:
    """What decides the answers of one task."""
    questions = question.Questions(recipe.task, builder.chat, builder.max_model_len)
    scheme = f", {mention.SCHEME}" if recipe.verify and recipe.verify.k else ""
    return {
        "adapter": f"{adapter.name} ({adapter.digest[:16]})" if adapter else "none",
        "task": f"{recipe.task.name} ({recipe.task.digest()})",
        "format": recipe.format,
        "prompt": builder.fingerprint(),
        "index": f"{index.kind} ({index.fingerprint})" if index else "none",
        "retrieval.k": str(recipe.k),
        "decoding": recipe.decoding,
        "temperature": str(recipe.temperature),
        "score": str(recipe.score and (recipe.calibration or "uncalibrated")),
        "votes": str(recipe.votes or "none"),
        "verify": f"{recipe.verify} ({questions.fingerprint()}){scheme}" if recipe.verify else "none",
    }
