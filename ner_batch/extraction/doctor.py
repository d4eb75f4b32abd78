"""Will it run here: versions, machine, GPU memory, disk, cluster, and the whole of an extraction's config."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
from rich.console import Console

from ner_batch.data import Status
from ner_batch.engine.device import cpu_computes_bfloat16, is_without_gpu
from ner_batch.engine.engine import Engine, EngineDeadError, show_errors_alone
from ner_batch.engine.memory import GIB, memory_needs
from ner_batch.engine.settings import EngineConfig
from ner_batch.errors import Problems, UserError
from ner_batch.extraction import plan as plans
from ner_batch.extraction.manifest import VERSIONS
from ner_batch.extraction.plan import Plan
from ner_batch.extraction.predictor import Predictor, StartEngine
from ner_batch.extraction.settings import ExtractConfig
from ner_batch.io import storage
from ner_batch.jobs import cluster
from ner_batch.jobs.progress import ProgressLine, duration
from ner_batch.jobs.record import versions

T = TypeVar("T")

OK, PROBLEMS = 0, 2
LEAST_PROMPTS = 8
"""Prompts of full length that must fit into the KV cache together; with fewer a GPU waits for its memory."""


def doctor(
    config: ExtractConfig | None,
    console: Console,
    gpu_gib: float | None = None,
    *,
    start: bool = True,
    start_engine: StartEngine = Engine,
) -> int:
    """Print what is there and what is wrong; the exit code, 2 where something is.

    Args:
        config: an extraction's config; None: the machine alone.
        console: where the lines go.
        gpu_gib: memory of the GPU to compute for, in GiB; None: this machine's.
        start: whether to start the engine and have it read a sentence.
        start_engine: makes the engine.
    """
    show_errors_alone()
    problems = Problems()

    def check(name: str, step: Callable[[], T]) -> T | None:
        before = len(problems.lines)
        value = problems.check(step)
        for problem in problems.lines[before:]:
            console.print(f"{name:10} [red]problem[/] ", end="", highlight=False)
            console.print(problem, highlight=False, markup=False)
        return value

    def show(name: str, lines: Iterator[str]) -> None:
        def print_all() -> None:
            for line in lines:
                console.print(f"{name:10} {line}", highlight=False, markup=False)

        check(name, print_all)

    show("versions", iter([", ".join(f"{name} {value}" for name, value in versions(*VERSIONS).items())]))
    show("machine", machine())
    show("gpu", gpus())
    if config is None:
        return PROBLEMS if problems.lines else OK
    show("disk", disk(config))
    show("ray", ray_session(config))
    plan = check("config", lambda: plans.prepare(config))
    if plan:
        show("config", about_plan(plan))
    show("memory", memory(plan.recipe.engine if plan else config.engine, gpu_gib))
    if plan and start:
        show("engine", one_sentence(plan, start_engine, console))
    return PROBLEMS if problems.lines else OK


def machine() -> Iterator[str]:
    """CPUs, how they compute, memory."""
    memory_gib = psutil.virtual_memory()
    computes = "bfloat16" if cpu_computes_bfloat16() else "float32"
    yield (
        f"{os.cpu_count()} CPUs, which compute in {computes}; {memory_gib.available / GIB:.0f} of "
        f"{memory_gib.total / GIB:.0f} GiB memory free"
    )


def gpus() -> Iterator[str]:
    """Every GPU with its memory; what keeps torch from seeing one that there is."""
    import torch

    if not torch.cuda.is_available():
        if Path("/dev/nvidia0").exists():
            raise UserError(
                f"there is a GPU, and torch {torch.__version__} does not see it: install torch and vllm for CUDA "
                "(`make install GPU=1`), and look whether `nvidia-smi` works"
            )
        yield "none on this machine: models that run here run on the CPU"
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        yield (
            f"{about.name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, compute capability "
            f"{about.major}.{about.minor}, CUDA {torch.version.cuda}"
        )


def disk(config: ExtractConfig) -> Iterator[str]:
    """Room where local files will be written."""
    for what, uri in {"output": config.output.path, "Ray's files": "/tmp"}.items():  # noqa: S108 - Ray's own place
        path = storage.local_path(uri)
        if path is not None:
            with storage.explained(uri):
                place = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
                free = shutil.disk_usage(place).free
            if free < GIB:
                raise UserError(f"{place}: {free / GIB:.1f} GiB free for {what}: make room")
            yield f"{free / GIB:,.0f} GiB free for {what} ({path})"


def ray_session(config: ExtractConfig) -> Iterator[str]:
    """The cluster that will be joined, and whether anybody answers there."""
    address = config.job.address or os.environ.get("RAY_ADDRESS")
    if not cluster.is_named(config.job.address):
        yield "no cluster is named (job.address, RAY_ADDRESS): a session of this machine alone"
        return
    clock = time.monotonic()
    with cluster.session(config.job.address):
        import ray

        nodes = [node for node in ray.nodes() if node["Alive"]]
        have = {name: ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
    seconds = time.monotonic() - clock
    yield f"{address}: {len(nodes)} nodes, {have['CPU']:g} CPUs, {have['GPU']:g} GPUs ({seconds:.1f} s)"


def about_plan(plan: Plan) -> Iterator[str]:
    """What the config comes to. Files, model, adapter, index and output have been checked when the plan was made."""
    yield (
        f"{plan.rows:,} rows in {len(plan.listing.shards):,} files, {len(plan.units):,} units; {plan.rows_before:,} "
        f"rows done before; {plan.config.output.path} can be written"
    )
    for task in plan.recipe.tasks:
        yield f"task {task.fingerprint['task']}, adapter {task.fingerprint['adapter']}, format {task.format}"
    for corrupt in plan.listing.corrupt:
        raise UserError(f"input.path: {corrupt.name}: {corrupt.reason}")


def memory(engine: EngineConfig, gpu_gib: float | None) -> Iterator[str]:
    """What an engine takes of a GPU, and how many prompts its cache then holds."""
    import torch

    on_gpu = gpu_gib is not None or torch.cuda.is_available()
    try:
        needs = memory_needs(engine, on_gpu=on_gpu)
    except UserError as error:  # the engine's own start decides
        yield f"not known: {error}"
        return
    yield (
        f"{needs.parameters / 1e9:.2f} B parameters: {needs.weights / GIB:.1f} GiB of weights, "
        f"{needs.adapters / GIB:.1f} for adapters of rank {engine.max_lora_rank}, about {needs.workspace / GIB:.1f} to "
        f"compute; {needs.kv_per_token / 1024:.0f} KiB of cache a token"
    )
    if gpu_gib is None and torch.cuda.is_available():
        gpu_gib = torch.cuda.get_device_properties(0).total_memory / GIB
    if gpu_gib is None:
        yield "no GPU to compute for: --gpu-gib 24 computes for a card of 24 GiB"
        return
    budget = gpu_gib * engine.gpu_memory_utilization
    tokens = needs.kv_tokens(budget * GIB)
    prompts = tokens / engine.max_model_len
    about = f"{budget:.1f} GiB ({gpu_gib:g} x engine.gpu_memory_utilization {engine.gpu_memory_utilization:g})"
    if prompts < LEAST_PROMPTS:
        raise UserError(
            f"{about} hold {tokens:,} tokens of cache, {prompts:.1f} prompts of engine.max_model_len="
            f"{engine.max_model_len}: lower it, take engine.quantization (fp8) or a smaller model"
        )
    yield f"{about} hold {tokens:,} tokens of cache: {prompts:,.0f} prompts of engine.max_model_len"


def one_sentence(plan: Plan, start_engine: StartEngine, console: Console) -> Iterator[str]:
    """Start the engine with its adapters and have it read a sentence: that they load and answer."""
    clock = time.monotonic()
    with ProgressLine(console) as live:
        live.show(lambda: f"the engine starts: {duration(time.monotonic() - clock)}")
        try:
            predictor = Predictor(plan.recipe, start_engine=start_engine)
        except EngineDeadError as error:
            raise UserError(f"engine: {error}") from error
        ready = time.monotonic()
        try:
            (prediction,) = predictor.predict([f"Anna Schmidt of {socket.gethostname()} met Bob in Berlin."])
            answered = time.monotonic()
        finally:
            predictor.close()
    if prediction.status in {Status.FAILED, Status.TOO_LONG}:
        raise UserError(f"engine: it started, and cannot answer: {prediction.error}")
    yield f"started in {duration(ready - clock)}; a sentence took {answered - ready:.1f} s: {prediction.status}"
    eager = plan.recipe.engine.enforce_eager
    if is_without_gpu() and not eager:
        yield "without a GPU engine.enforce_eager: true starts in seconds; compiling pays where a run takes hours"
    elif eager and not is_without_gpu():
        yield "on a GPU engine.enforce_eager: true decodes slower: leave it out"
