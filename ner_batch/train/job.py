"""The training job: workers under Ray Train, resumable by name, and an adapter proven to be served as trained."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from rich.console import Console
from safetensors.torch import load_file

from ner_batch.errors import JobError
from ner_batch.io import storage
from ner_batch.io.arrow import arrow_filesystem
from ner_batch.jobs import cluster
from ner_batch.train import artefacts, board, loop, serving
from ner_batch.train.plan import Plan, claim
from ner_batch.train.worth import Worth

OK, POLL_SECONDS = 0, 0.5


def run(plan: Plan, console: Console) -> int:
    """Train, write the adapter, compare it with what vLLM serves; the exit code.

    Raises:
        JobError: workers keep dying, or the served adapter answers otherwise than the trained model.
        KeyboardInterrupt: the last checkpoint stays; the same command goes on from it.
    """
    claim(plan)
    with cluster.session(plan.config.run.address), tempfile.TemporaryDirectory() as scratch:
        gpu = plan.config.run.gpu if plan.config.run.gpu is not None else bool(ray.cluster_resources().get("GPU"))
        state, weights = _finished(_fit(plan, gpu, console))
        folder = Path(scratch) / Path(plan.config.output).name
        artefacts.write(folder, plan, state, weights)
        console.print(f"best dev span F1 {state.best_f1:.3f} at step {state.best_step:,}", highlight=False)
        if plan.config.serving.prompts:
            artefacts.tell(folder, _prove(plan, folder, gpu, console))
        _publish(folder, plan.config.output)
    console.print(f"adapter: {plan.config.output}", highlight=False, soft_wrap=True)
    return OK


def _fit(plan: Plan, gpu: bool, console: Console) -> Any:
    """Run the trainer in a thread; the main one shows progress and stays free for Ctrl-C. Ray Train's result."""
    run_config = plan.config.run
    desk = board.Board.remote()  # type: ignore[attr-defined]
    resources: dict[str, float] = {"CPU": run_config.cpus_per_worker} | ({"GPU": 1.0} if gpu else {})
    trainer = TorchTrainer(
        loop.train,
        train_loop_config={"plan": plan, "board": desk},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=run_config.workers, use_gpu=gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=run_config.name,
            **_storage(run_config.storage),
            failure_config=ray.train.FailureConfig(max_failures=run_config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    outcome: list[Any] = []
    thread = threading.Thread(target=_keep, args=(trainer.fit, outcome), daemon=True)
    thread.start()
    _watch(plan, desk, thread, console)
    if isinstance(outcome[0], BaseException):
        raise JobError(f"training failed: {_cause(outcome[0])}")
    return outcome[0]


def _storage(uri: str) -> dict[str, Any]:
    """Where Ray Train keeps checkpoints. Its own S3 client would not know AWS_ENDPOINT_URL, so it is given ours."""
    if "://" not in uri:
        return {"storage_path": uri}
    filesystem, path = arrow_filesystem(uri)
    return {"storage_path": path, "storage_filesystem": filesystem}


def _keep(step: Any, outcome: list[Any]) -> None:
    try:
        outcome.append(step())
    except BaseException as error:  # noqa: BLE001 - raised again by the main thread
        outcome.append(error)


def _watch(plan: Plan, desk: Any, thread: threading.Thread, console: Console) -> None:
    """Pass on what workers tell until the trainer has ended."""
    config = plan.config.run
    logs = Path(config.storage if "://" not in config.storage else "runs") / config.name / "logs"
    reporter, seen = board.open_reporter(config.report_to, config.name, logs), 0
    with board.Line(console) as line:
        running = True
        while running:
            thread.join(POLL_SECONDS)
            running = thread.is_alive()
            told, steps = ray.get(desk.since.remote(seen))
            seen += len(told)
            for metrics in told:
                reporter.log(metrics)
                line.show(metrics, steps)


def _finished(result: Any) -> tuple[loop.State, dict[str, Any]]:
    """The last state and the best weights."""
    with result.checkpoint.as_directory() as folder:
        state = loop.State(**json.loads((Path(folder) / loop.STATE).read_text(encoding="utf-8")))
        return state, load_file(Path(folder) / loop.BEST)


def _prove(plan: Plan, folder: Path, gpu: bool, console: Console) -> Worth:
    """Compare trained and served answers in a process of its own, whose memory is free afterwards."""
    task = ray.remote(num_cpus=1, num_gpus=1 if gpu else 0, max_retries=0)(serving.compare)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    agreement: serving.Agreement = ray.get(
        task.options(runtime_env={"env_vars": _environment()}).remote(plan, files, gpu)
    )
    console.print(
        f"served = trained: {agreement.same} of {agreement.prompts} greedy answers identical", highlight=False
    )
    exact = not gpu and plan.config.base.dtype != "bfloat16"
    least = 1.0 if exact else plan.config.serving.least_agreement
    if agreement.share < least:
        trained, served = agreement.example or ("", "")
        raise JobError(
            f"the served adapter agrees in {agreement.share:.0%} of the answers, {least:.0%} are wanted "
            f"(serving.least_agreement); for example {trained!r} was served as {served!r}"
        )
    if found := agreement.worth.verification:
        told = f"AUROC {found.auroc:.3f} over {found.claims:,} claims about dev, threshold {found.threshold:.2f}"
        console.print(f"verification: {told}", highlight=False)
    return agreement.worth


def _environment() -> dict[str, str]:
    return {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} if "VLLM_ENABLE_V1_MULTIPROCESSING" not in os.environ else {}


def _publish(folder: Path, output: str) -> None:
    """Copy the adapter to its place; ``ner_batch.json`` last, for it says that the rest is there."""
    files: Sequence[Path] = sorted(folder.iterdir(), key=lambda path: path.name == "ner_batch.json")
    for path in files:
        storage.write_bytes(storage.join(output, path.name), path.read_bytes())


def _cause(error: BaseException) -> str:
    """The last line of what Ray tells, which is the worker's own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
