"""Where the demo's files lie, and how its adapter is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ner_batch.train.settings import TrainConfig

FILES = Path(__file__).parent / "files"
BASE, ADAPTER, TASK = FILES / "base", FILES / "adapter", FILES / "task.yaml"


def adapter(base: Path, gold: Mapping[str, Path], out: Path, steps: int, init: Path | None = None) -> TrainConfig:
    """The config of the demo's adapter; jobs/train.yaml says the same with comments, for fewer steps.

    ``gold`` are the files of the splits train and dev, ``init`` is an adapter to go on from; checkpoints and logs go
    beside ``out``.
    """
    return TrainConfig.model_validate(
        {
            "base": {"model": str(base), "dtype": "float32", "max_model_len": 2048},
            "task": str(TASK),
            "gold": {"train": str(gold["train"]), "dev": str(gold["dev"])},
            "output": str(out),
            "demonstrations": {"kind": "lexical", "k": {0: 0.85, 1: 0.05, 2: 0.1}},
            "lora": {"r": 32, "alpha": 64, "init": str(init) if init else None},
            "optimiser": {"learning_rate": 3e-4 if init else 3e-3, "steps": steps, "batch_tokens": 2048},
            "packing": {"kind": "shared", "tokens": 2048},
            "augmentation": {"swapped": 0.7},
            "evaluation": {"every": max(1, steps // (2 if init else 4)), "examples": 60},
            "run": {"name": f"{out.name}-{steps}", "storage": str(out.parent / "runs"), "checkpoint_every": 100},
        }
    )
