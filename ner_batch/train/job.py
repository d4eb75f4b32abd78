"""The training job: workers under Ray Train, resumable by name, and an adapter proven to be served as trained."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.exceptions import RayActorError, RayError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import RayTrainError
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from ner_batch.engine.engine import EngineDeadError
from ner_batch.errors import JobError, UserError, first_line
from ner_batch.io.storage import arrow_filesystem
from ner_batch.jobs import cluster
from ner_batch.jobs.progress import ProgressLine, duration
from ner_batch.train import artefacts, loop, serving
from ner_batch.train.loop import Metrics
from ner_batch.train.plan import Plan, claim, write_proof
from ner_batch.train.settings import ReportTo

POLL_SECONDS = 0.5
WORKER = "a training worker (run.gpu, run.cpus_per_worker, run.workers)"


def run(plan: Plan, console: Console) -> int:
    """Train, write the adapter, compare it with what vLLM serves; the exit code. The same command goes on after a stop.

    A UserError where training cannot succeed with these settings; a JobError where workers keep dying, or the proof
    fails.
    """
    claim(plan)
    output = plan.config.output
    with cluster.session(plan.config.run.address) as alone, tempfile.TemporaryDirectory() as scratch:
        resources, workers = _resources(plan), plan.config.run.workers
        cluster.wait_for_room(WORKER, workers, resources, console, alone=alone)
        gpu = "1 GPU and " if "GPU" in resources else ""
        console.print(f"{workers} x {gpu}{resources['CPU']:g} CPUs", highlight=False)
        checkpoint = fit(plan, resources, console, alone=alone)
        with checkpoint.as_directory() as folder:
            state, weights = loop.load_result(folder)
        adapter = Path(scratch) / Path(output).name
        artefacts.write(adapter, plan, state, weights)
        write_proof(plan, "pending" if plan.config.serving.prompts else "skipped")
        artefacts.publish(adapter, output)
        console.print(f"best dev span F1 {state.best_f1:.3f} at step {state.best_step:,}", highlight=False)
        console.print(f"adapter: {output}", highlight=False, soft_wrap=True)
        if plan.config.serving.prompts:
            prove(plan, adapter, resources, console)
    return 0


def dry_run(plan: Plan, console: Console) -> int:
    """Tell where the cluster that is named has no room for the workers. Nothing is started, no node is asked for."""
    if not cluster.is_named(plan.config.run.address):
        return 0  # a Ray of this machine alone tells within seconds of a start
    with cluster.session(plan.config.run.address):
        line = cluster.about_room(WORKER, plan.config.run.workers, _resources(plan))
    if line:
        console.print(f"{line}; a training would wait a quarter of an hour for nodes", highlight=False, markup=False)
    return 0


def _resources(plan: Plan) -> dict[str, float]:
    """What each worker reserves, by Ray's names. Needs a session."""
    config = plan.config.run
    gpu = config.gpu if config.gpu is not None else cluster.has_gpus(config.address)
    cpus = config.cpus_per_worker or (1.0 if gpu else cluster.cpus_each(config.workers, config.address))
    return {"CPU": cpus} | ({"GPU": 1.0} if gpu else {})


def fit(plan: Plan, resources: dict[str, float], console: Console, *, alone: bool) -> Any:
    """Train under Ray Train, showing progress; the last checkpoint. ``alone``: in a session of this machine alone."""
    config = plan.config.run
    if alone:  # no node of it is ever taken back, which a process of Ray Train's looks out for
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    progress = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    storage: dict[str, Any] = {"storage_path": config.storage}
    if "://" in config.storage:  # Ray Train's own S3 client would not know AWS_ENDPOINT_URL, so it is given ours
        filesystem, path = arrow_filesystem(config.storage)
        storage = {"storage_path": path, "storage_filesystem": filesystem}
    gpu = "GPU" in resources
    trainer = (_TrainerAlone if alone else _Trainer)(
        loop.train,
        train_loop_config={"plan": plan, "progress": progress},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=config.workers, use_gpu=gpu, resources_per_worker=resources),
        run_config=ray.train.RunConfig(
            name=config.name,
            **storage,
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    with following_progress(plan, progress, console):
        try:
            return trainer.fit().checkpoint
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


class _Trainer(TorchTrainer):  # type: ignore[misc]  # Ray has no types for it
    """Ray Train's trainer, with Ctrl-C left as it is: a KeyboardInterrupt here, not the end of the process with 0.

    And without those of its processes that have nothing to do: each takes 4 to 6 CPU-seconds to import Ray Train, one
    after the other, before the first step.
    """

    unneeded: tuple[type, ...] = (DatasetsCallback,)  # no Ray dataset is trained on

    def _register_sigint_handler(self, controller: Any) -> None:
        pass

    def _create_default_callbacks(self) -> list[Any]:
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, self.unneeded)]


class _TrainerAlone(_Trainer):
    """For a session that ends with the job: nobody has to free what a dead controller held."""

    unneeded = (*_Trainer.unneeded, PlacementGroupCleanerCallback)


@contextmanager
def following_progress(plan: Plan, progress: Queue, console: Console) -> Iterator[None]:
    """Pass on what the workers measure, in a thread, while training runs.

    Training itself stays in the main thread, and the other one has ended when this returns: a thread that asks Ray
    anything while its session ends makes Ray end the process, with exit code 1 and without a word (every third Ctrl-C
    on a busy machine). A tracker that fails stops the training.
    """
    config = plan.config.run
    logs = Path(config.storage if "://" not in config.storage else "runs") / config.name / "logs"
    ended = threading.Event()

    def stop_training(follower: Future[None]) -> None:
        if follower.exception() and not ended.is_set():
            # A real signal wakes the main thread from whatever it waits for; `_thread.interrupt_main` does not.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with ProgressLine(console) as line, ThreadPoolExecutor(1) as pool:
        # MLflow's run is its thread's own: one thread opens the tracker, logs and ends it.
        tracker = pool.submit(open_tracker, config.report_to, config.name, logs).result()
        line.show("starting the training workers")
        following = pool.submit(show_progress, plan, progress, ended, tracker, console, line)
        following.add_done_callback(stop_training)
        try:
            yield
        except KeyboardInterrupt:
            ended.set()
            if error := following.exception():
                raise error from None
            raise
        finally:
            ended.set()
        following.result()


def show_progress(
    plan: Plan, progress: Queue, ended: threading.Event, tracker: Any, console: Console, line: ProgressLine
) -> None:
    """Show and log what comes through the queue, until ``ended`` is set and the queue is empty."""
    steps, first_step, start_time = plan.schedule.steps, 0, time.monotonic()
    latest: Metrics = {}
    running = True
    while running:
        running = not ended.wait(POLL_SECONDS)
        for step, measured in progress.get_nowait_batch(progress.qsize()):
            if "answered" in measured:
                line.show(f"step {step:,} of {steps:,}  reading dev: {measured['answered']:.0%} answered")
                continue
            if not first_step:
                first_step, start_time = step, time.monotonic()
            latest |= measured
            if tracker and measured:
                tracker.log(measured, step)
            if "f1" in measured:
                console.print(f"step {step:,} of {steps:,}: dev F1 {measured['f1']:.3f}", highlight=False)
            done = step - first_step
            left = (time.monotonic() - start_time) / done * (steps - step) if done > 0 else None
            line.show(progress_text(step, steps, latest, left))
    if tracker:
        tracker.finish()


def open_tracker(kind: ReportTo, name: str, folder: Path) -> Any | None:
    """A tracker of accelerate's, started; None for ``none``. TensorBoard's files go into ``folder``."""
    if kind == "none":
        return None
    from accelerate import PartialState, tracking

    PartialState(cpu=True)  # its trackers ask for one; on a GPU machine the driver would take memory of a GPU for it
    tracker: Any
    if kind == "tensorboard":
        tracker = tracking.TensorBoardTracker(folder.name, folder.parent)
    elif kind == "wandb":
        tracker = tracking.WandBTracker("ner_batch", name=name, id=name, resume="allow")
    else:
        tracker = tracking.MLflowTracker("ner_batch", run_name=name)
    tracker.start()
    return tracker


def progress_text(step: int, steps: int, latest: Metrics, seconds_left: float | None) -> str:
    """One line: steps, and what was measured last."""
    forms = {"loss": "loss {:.3f}", "f1": "dev F1 {:.3f}", "tokens_per_second": "{:,.0f} tokens/s"}
    parts = [form.format(latest[name]) for name, form in forms.items() if name in latest]
    left = [] if seconds_left is None else [f"{duration(seconds_left)} left"]
    return "  ".join([f"step {step:,} of {steps:,}", *parts, *left])


REMEDY = "the adapter is at its place, unproved: the same command tries again, serving.prompts=0 does without"


def prove(plan: Plan, adapter: Path, resources: dict[str, float], console: Console) -> None:
    """Compare trained and served answers, in a process of its own, whose memory is free afterwards.

    A JobError where vLLM does not serve the adapter, or answers otherwise than the trained model.
    """
    gpu = "GPU" in resources
    task = ray.remote(num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0), max_retries=0)(serving.compare)
    files = {path.name: path.read_bytes() for path in adapter.iterdir()}
    with ProgressLine(console) as line:
        line.show("comparing served with trained answers")
        try:
            agreement = ray.get(task.remote(plan, files, gpu))
        except RayError as error:
            cause = cluster.root_cause(error)
            write_proof(plan, "failed", error=first_line(cause))
            if not isinstance(cause, (UserError, EngineDeadError, torch.OutOfMemoryError, RayError)):
                raise  # a bug; the message has the task's traceback
            raise JobError(f"served = trained could not be shown: {first_line(cause)}; {REMEDY}") from None
    base = plan.config.base
    exact = not gpu and base.dtype != "bfloat16" and not base.quantization and not plan.config.serving.quantization
    conclude(plan, adapter, agreement, console, exact=exact)


def conclude(plan: Plan, adapter: Path, agreement: serving.Agreement, console: Console, *, exact: bool) -> None:
    """Write beside the published adapter how the comparison came out, and into it what was fitted.

    ``adapter`` is its local folder. A JobError where too few answers are identical; all must be where ``exact``.
    """
    min_agreement = 1.0 if exact else plan.config.serving.min_agreement
    share = agreement.identical / agreement.prompts if agreement.prompts else 1.0
    agrees = share >= min_agreement
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
            f"the served adapter agrees in {share:.0%} of the answers, {min_agreement:.0%} are asked for "
            f"(serving.min_agreement); for example {trained!r} was served as {served!r}; {REMEDY}"
        )
    if verification := agreement.verification:
        console.print(
            f"verification: AUROC {verification.auroc:.3f} over {verification.claims:,} claims about dev, "
            f"threshold {verification.threshold:.2f}",
            highlight=False,
        )
