"""Served = trained, on a real engine: what it costs and what it leaves."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from transformers import AutoTokenizer

from ner_batch.data import Entity, Example, examples_table
from ner_batch.train import serving
from ner_batch.train.plan import prepare
from ner_batch.train.settings import TrainConfig

pytestmark = pytest.mark.engine

TASK = {"name": "t", "labels": {"PER": "a person", "ORG": "a company"}}


def examples(count):
    """Sentences with one person each."""
    return [
        Example(str(n), f"Anna{n} joined Acme.", (Entity(0, 4 + len(str(n)), "PER", f"Anna{n}"),)) for n in range(count)
    ]


@pytest.fixture
def plan_with_dev(tmp_path, random_model):
    """Plans a training with that many dev examples."""

    def plan(count, **sections):
        (tmp_path / "task.yaml").write_text(yaml.safe_dump(TASK, sort_keys=False))
        for name, size in (("train", 8), ("dev", count)):
            pq.write_table(examples_table(examples(size)), tmp_path / f"{name}.parquet")
        config = {
            "base": {"model": random_model, "dtype": "float32", "max_model_len": 512},
            "task": str(tmp_path / "task.yaml"),
            "gold": {"train": str(tmp_path / "train.parquet"), "dev": str(tmp_path / "dev.parquet")},
            "output": str(tmp_path / "adapter"),
            "run": {"storage": str(tmp_path / "runs")},
        }
        return prepare(TrainConfig.model_validate(config | sections))

    return plan


def test_the_tokenizer_is_loaded_as_often_for_many_dev_answers_as_for_few(
    plan_with_dev, random_model, random_adapter, monkeypatch
):
    """Loading a large vocabulary takes seconds: 200 answers, each with a load of its own, once took 18 minutes."""
    adapter = random_adapter(random_model, 5)
    files = {path.name: path.read_bytes() for path in Path(adapter).iterdir()}
    loads = []
    load = AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        AutoTokenizer, "from_pretrained", lambda *args, **options: loads.append(args) or load(*args, **options)
    )
    numbers = []
    for count in (1, 6):
        plan = plan_with_dev(count, serving={"prompts": 1}, augmentation={"verification": 1.0})
        loads.clear()
        serving.compare(plan, files, gpu=False)
        numbers.append(len(loads))
    assert 0 < numbers[1] <= numbers[0]  # vLLM loads it once more for the first engine of a process
