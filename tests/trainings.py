"""Small trainings, planned as `ner-batch train` plans them."""

import pyarrow.parquet as pq
import yaml

from ner_batch.data import Entity, Example
from ner_batch.io.examples import examples_table
from ner_batch.train.plan import Plan, prepare
from ner_batch.train.settings import TrainConfig

TASK = {"name": "t", "labels": {"PER": "a person", "ORG": "a company"}}


def plan_training(folder, model, dev, train=8, **sections) -> Plan:
    """A training on ``train`` sentences with a person each, with ``dev`` others; ``sections`` change the config."""
    (folder / "task.yaml").write_text(yaml.safe_dump(TASK, sort_keys=False))
    for name, count in (("train", train), ("dev", dev)):
        people = [f"Anna{number}" for number in range(count)]
        examples = [Example(p, f"{p} joined Acme.", (Entity(0, len(p), "PER", p),)) for p in people]
        pq.write_table(examples_table(examples), folder / f"{name}.parquet")
    config = {
        "base": {"model": model, "dtype": "float32", "max_model_len": 512},
        "task": str(folder / "task.yaml"),
        "gold": {"train": str(folder / "train.parquet"), "dev": str(folder / "dev.parquet")},
        "output": str(folder / "adapter"),
        "run": {"storage": str(folder / "runs")},
    }
    return prepare(TrainConfig.model_validate(config | sections))
