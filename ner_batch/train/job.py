"""The training job: workers under Ray Train, resumable by name, and an adapter proven to be served as trained."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, TypeVar

import ray
import ray.train
import torch
from ray.exceptions import RayActorError, RayError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.exceptions import RayTrainError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from ner_batch.engine.engine import EngineDeadError
from ner_batch.errors import JobError, UserError, first_line
from ner_batch.io.arrow import arrow_filesystem
from ner_batch.jobs import cluster
from ner_batch.jobs.progress import ProgressLine, duration
from ner_batch.train import artefacts, loop, serving, trackers
from ner_batch.train.plan import Plan, claim, write_proof
from ner_batch.train.trackers import Metrics

OK, POLL_SECONDS = 0, 0.5
T = TypeVar("T")


def run(plan: Plan, console: Console) -> int:
    """Train, write the adapter, compare it with what vLLM serves; the exit code.

    Raises:
        UserError: training cannot succeed with these settings.
        JobError: workers keep dying, or the proof fails. The adapter is at its place then.
        KeyboardInterrupt: the last checkpoint stays; the same command goes on from it.
    """
    claim(plan)
    output = plan.config.output
    with cluster.session(plan.config.run.address), tempfile.TemporaryDirectory() as scratch:
        gpu = plan.config.run.gpu if plan.config.run.gpu is not None else bool(ray.cluster_resources().get("GPU"))
        checkpoint = fit(plan, gpu, console)
        with checkpoint.as_directory() as folder:
            state, weights = loop.load_result(folder)
        adapter = Path(scratch) / Path(output).name
        artefacts.write(adapter, plan, state, weights)
        proves = plan.config.serving.prompts > 0
        write_proof(plan, "pending" if proves else "skipped")
        artefacts.publish(adapter, output)
        console.print(f"best dev span F1 {state.best_f1:.3f} at step {state.best_step:,}", highlight=False)
        console.print(f"adapter: {output}", highlight=False, soft_wrap=True)
        if proves:
            prove(plan, adapter, gpu, console)
    return OK


# --- training ---


def fit(plan: Plan, gpu: bool, console: Console) -> Any:
    """Train under Ray Train while the main thread shows progress and stays free for Ctrl-C; the last checkpoint."""
    config = plan.config.run
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    buffer = trackers.MetricsBuffer.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    resources: dict[str, float] = {"CPU": config.cpus_per_worker} | ({"GPU": 1.0} if gpu else {})
    trainer = TorchTrainer(
        loop.train,
        train_loop_config={"plan": plan, "metrics": buffer},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=config.workers, use_gpu=gpu, resources_per_worker=resources),
        run_config=ray.train.RunConfig(
            name=config.name,
            **_checkpoint_storage(config.storage),
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    result = _in_background(trainer.fit)
    _follow(plan, buffer, result, console)
    try:
        return result.result().checkpoint
    except ray.train.WorkerGroupError as error:
        failures = list(error.worker_failures.values())
        for failure in failures:
            if isinstance(failure, UserError):
                raise failure from None
        if any(isinstance(failure, (RayActorError, RayTrainError)) for failure in failures):
            raise JobError(f"training failed: its workers died: {cluster.last_line(error)}") from None
        raise  # a bug; the message has the worker's traceback
    except ray.train.ControllerError as error:
        raise JobError(f"training failed: {cluster.last_line(error)}") from None


def _checkpoint_storage(uri: str) -> dict[str, Any]:
    """Where Ray Train keeps checkpoints. Its own S3 client would not know AWS_ENDPOINT_URL, so it is given ours."""
    if "://" not in uri:
        return {"storage_path": uri}
    filesystem, path = arrow_filesystem(uri)
    return {"storage_path": path, "storage_filesystem": filesystem}


def _in_background(step: Callable[[], T]) -> Future[T]:
    """Run a step in a daemon thread: after Ctrl-C nobody waits for it, as they would for an executor's.

    In the main thread Ray Train would put a handler of its own in Ctrl-C's place, which ends the process with 0.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(step())
        except Exception as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def _follow(plan: Plan, buffer: Any, result: Future[Any], console: Console) -> None:
    """Pass on what the workers measure, until training has ended."""
    config, steps = plan.config.run, plan.schedule.steps
    logs = Path(config.storage if "://" not in config.storage else "runs") / config.name / "logs"
    tracker = trackers.open_tracker(config.report_to, config.name, logs)
    count, first_step, start_time = 0, 0, time.monotonic()
    latest: Metrics = {}
    with ProgressLine(console) as line:
        line.show("starting the training workers")
        running = True
        while running:
            running = bool(wait([result], POLL_SECONDS).not_done)
            step, news = ray.get(buffer.since.remote(count))
            count += len(news)
            for metrics in news:
                latest |= metrics
                if tracker:
                    tracker.log(
                        {name: value for name, value in metrics.items() if name != "step"}, int(metrics["step"])
                    )
                if "f1" in metrics:
                    console.print(f"step {metrics['step']:,} of {steps:,}: dev F1 {metrics['f1']:.3f}", highlight=False)
            if step and not first_step:
                first_step, start_time = step, time.monotonic()
            if step:
                seconds = (time.monotonic() - start_time) / max(1, step - first_step) * (steps - step)
                line.show(progress_text(step, steps, latest, seconds if step > first_step else None))
    if tracker:
        tracker.finish()


def progress_text(step: int, steps: int, latest: Metrics, seconds_left: float | None) -> str:
    """One line: steps, and what was measured last."""
    forms = {"loss": "loss {:.3f}", "f1": "dev F1 {:.3f}", "tokens_per_second": "{:,.0f} tokens/s"}
    parts = [form.format(latest[name]) for name, form in forms.items() if name in latest]
    left = [] if seconds_left is None else [f"{duration(seconds_left)} left"]
    return "  ".join([f"step {step:,} of {steps:,}", *parts, *left])


# --- served = trained ---


REMEDY = "the adapter is at its place, unproved: the same command tries again, serving.prompts=0 does without"


def prove(plan: Plan, adapter: Path, gpu: bool, console: Console) -> None:
    """Compare trained and served answers, in a process of its own, whose memory is free afterwards.

    Raises:
        JobError: vLLM does not serve the adapter, or answers otherwise than the trained model.
    """
    environment = {} if "VLLM_ENABLE_V1_MULTIPROCESSING" in os.environ else {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    task = ray.remote(num_cpus=1, num_gpus=1 if gpu else 0, max_retries=0)(serving.compare)
    files = {path.name: path.read_bytes() for path in adapter.iterdir()}
    with ProgressLine(console) as line:
        line.show("comparing served with trained answers")
        try:
            agreement = ray.get(task.options(runtime_env={"env_vars": environment}).remote(plan, files, gpu))
        except RayError as error:
            cause = cluster.root_cause(error)
            write_proof(plan, "failed", error=first_line(cause))
            if not isinstance(cause, (UserError, EngineDeadError, torch.OutOfMemoryError, RayError)):
                raise  # a bug; the message has the task's traceback
            raise JobError(f"served = trained could not be shown: {first_line(cause)}; {REMEDY}") from None
    conclude(plan, adapter, agreement, console, exact=not gpu and plan.config.base.dtype != "bfloat16")


def conclude(plan: Plan, adapter: Path, agreement: serving.Agreement, console: Console, *, exact: bool) -> None:
    """Write beside the published adapter how the comparison came out, and into it what was fitted.

    Args:
        plan: of the run.
        adapter: the adapter's local folder.
        agreement: what was compared.
        console: for one line about it.
        exact: all answers must be identical, whatever ``serving.min_agreement``.

    Raises:
        JobError: too few answers are identical.
    """
    min_agreement = 1.0 if exact else plan.config.serving.min_agreement
    agrees = agreement.share >= min_agreement
    console.print(
        f"served = trained: {agreement.identical} of {agreement.prompts} greedy answers identical", highlight=False
    )
    if agrees:
        artefacts.add_calibration(adapter, agreement)
        artefacts.publish(adapter, plan.config.output)
    trained, served = agreement.difference or (None, None)
    write_proof(
        plan,
        "agreed" if agrees else "disagreed",
        prompts=agreement.prompts,
        identical=agreement.identical,
        min_agreement=min_agreement,
        first_difference={"trained": trained, "served": served} if agreement.difference else None,
    )
    if not agrees:
        raise JobError(
            f"the served adapter agrees in {agreement.share:.0%} of the answers, {min_agreement:.0%} are asked for "
            f"(serving.min_agreement); for example {trained!r} was served as {served!r}; {REMEDY}"
        )
    if verification := agreement.verification:
        console.print(
            f"verification: AUROC {verification.auroc:.3f} over {verification.claims:,} claims about dev, "
            f"threshold {verification.threshold:.2f}",
            highlight=False,
        )
