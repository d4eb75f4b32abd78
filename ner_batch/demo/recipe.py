"""The demo's files, and the configs of its jobs; the files in jobs/ say the same with comments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ner_batch.extraction.settings import ExtractConfig
from ner_batch.train.settings import TrainConfig

FILES = Path(__file__).parent / "files"
ADAPTER, TASK, GOLD, NOTES = FILES / "adapter", FILES / "task.yaml", FILES / "gold", FILES / "notes.txt"
MAX_MODEL_LEN = 1024
STEPS = 10
"""Of training in the demo, a minute on two cores; the adapter that ships has had some hundred times as many tokens."""


def training(model: Path, encoder: Path, gold: Path, out: Path, **changes: Any) -> TrainConfig:
    """The training job: SmolLM2 on NCBI-disease. ``gold`` has train.parquet and dev.parquet; ``changes`` are sections.

    A laptop reads some 150 tokens a second in training, so the demo goes on from the adapter that ships, for few steps.
    """
    values: dict[str, Any] = {
        "base": {"model": str(model), "max_model_len": MAX_MODEL_LEN},
        "task": str(TASK),
        "gold": {"train": str(gold / "train.parquet"), "dev": str(gold / "dev.parquet")},
        "output": str(out),
        "demonstrations": {"kind": "sentence", "encoder": str(encoder), "k": {0: 0.5, 2: 0.5}},
        "lora": {"r": 8, "alpha": 16, "dropout": 0.0, "init": str(ADAPTER)},
        "optimiser": {"learning_rate": 2e-4, "steps": STEPS, "batch_tokens": 1024},
        "packing": {"kind": "shared", "tokens": 1024},
        "evaluation": {"examples": 24, "every": STEPS},
        "run": {"name": f"{out.name}-{STEPS}", "storage": str(out.parent / "runs")},
        "serving": {"prompts": 12},
    }
    return TrainConfig.model_validate(values | changes)


def extraction(model: Path, out: Path) -> ExtractConfig:
    """The extraction job, of the demo's folder ``out``."""
    return ExtractConfig.model_validate(
        {
            "input": {"path": str(out / "corpus")},
            "output": {"path": str(out / "entities")},
            "engine": {
                "model": str(model),
                "max_model_len": MAX_MODEL_LEN,
                "max_num_seqs": 32,
                "cpu_kv_cache_gib": 1,
                "enforce_eager": True,
            },
            "adapter": str(out / "adapter"),
            "retrieval": {"index": str(out / "index"), "k": 2},
            "windows": {"max_tokens": 128},
            "job": {"unit_rows": 20},
        }
    )
