"""Metrics on their way from the workers to the driver, and from there to TensorBoard and others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray

from ner_batch.train.settings import ReportTo

Metrics = dict[str, float]


@ray.remote(num_cpus=0)
class MetricsBuffer:
    """An actor beside the driver: the first worker appends metrics, the driver asks for what is new."""

    def __init__(self) -> None:
        self._metrics: list[Metrics] = []
        self._step = 0

    def append(self, step: int, metrics: Metrics | None = None) -> None:
        """A step is done; metrics where some were measured."""
        self._step = step
        if metrics:
            self._metrics.append(metrics)

    def since(self, count: int) -> tuple[int, list[Metrics]]:
        """The last step that is done, and the metrics after the first ``count``."""
        return self._step, self._metrics[count:]


def open_tracker(kind: ReportTo, name: str, folder: Path) -> Any | None:
    """A tracker of accelerate's, started; None for ``none``. TensorBoard's files go into ``folder``.

    ``tracker.log(values, step)`` keeps numbers by name, ``tracker.finish()`` ends it.
    """
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
