"""What the driver sees of a training that runs elsewhere: a progress line, and metrics for TensorBoard and others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, Self

import ray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ner_batch.train.settings import ReportTo

Metrics = dict[str, float]


@ray.remote(num_cpus=0)
class Board:
    """An actor beside the driver: workers tell it metrics, the driver asks for what is new."""

    def __init__(self) -> None:
        self.told: list[Metrics] = []
        self.steps = 0

    def tell(self, metrics: Metrics, steps: int) -> None:
        """Metrics of a step, and how many steps there are."""
        self.told.append(metrics)
        self.steps = steps

    def since(self, seen: int) -> tuple[list[Metrics], int]:
        """What was told after the first ``seen``, and the number of steps."""
        return self.told[seen:], self.steps


class Reporter(Protocol):
    """Something that keeps metrics."""

    def log(self, metrics: Metrics) -> None:
        """Metrics of one step; ``metrics["step"]`` says which."""
        ...


class TensorBoard:
    """Event files in a folder, for `tensorboard --logdir`."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def log(self, metrics: Metrics) -> None:
        """One scalar each."""
        for name, value in metrics.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(metrics["step"]))
        self._writer.flush()


class WandB:
    """Weights & Biases."""

    def __init__(self, name: str) -> None:
        import wandb

        self._run = wandb.init(project="ner_batch", name=name, id=name, resume="allow")

    def log(self, metrics: Metrics) -> None:
        """All of a step at once."""
        self._run.log(metrics, step=int(metrics["step"]))


class Mlflow:
    """MLflow, at the tracking server its environment names."""

    def __init__(self, name: str) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.start_run(run_name=name)

    def log(self, metrics: Metrics) -> None:
        """All of a step at once."""
        self._mlflow.log_metrics(metrics, step=int(metrics["step"]))


class Nowhere:
    """Keeps nothing."""

    def log(self, metrics: Metrics) -> None:
        """Nothing."""


def open_reporter(kind: ReportTo, name: str, folder: Path) -> Reporter:
    """The reporter of a kind; TensorBoard's events go into ``folder``."""
    if kind == "tensorboard":
        return TensorBoard(folder)
    if kind == "wandb":
        return WandB(name)
    return Mlflow(name) if kind == "mlflow" else Nowhere()


class Line:
    """The progress bar: steps, loss, F1, tokens per second, time left."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("step {task.completed:,}/{task.total:,}"), BarColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console)
        self._task = self._progress.add_task("starting", total=1)
        self._last: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, metrics: Metrics, steps: int) -> None:
        """The newest figures."""
        self._last |= metrics
        shown = {"loss": "loss {:.3f}", "f1": "dev F1 {:.3f}", "tokens_per_second": "{:,.0f} tokens/s"}
        words = "  ".join(form.format(self._last[name]) for name, form in shown.items() if name in self._last)
        self._progress.update(self._task, completed=int(metrics["step"]), total=steps, description=words)
        if not self._progress.console.is_terminal and "f1" in metrics:
            self._progress.console.print(f"step {int(metrics['step']):,} of {steps:,}  {words}", highlight=False)
