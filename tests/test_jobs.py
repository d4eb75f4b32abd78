"""Everything in jobs/ loads and goes together, and the set is complete."""

from pathlib import Path

import pytest

from ner_batch.config import load
from ner_batch.encoder.settings import TrainEncoderConfig
from ner_batch.evaluate.settings import EvaluateConfig
from ner_batch.experiments.settings import AblateConfig
from ner_batch.extraction.settings import ExtractConfig
from ner_batch.jobs.index import IndexConfig
from ner_batch.task import load_task
from ner_batch.train.settings import TrainConfig

ROOT = Path(__file__).parent.parent
JOBS = ("ablate", "evaluate", "extract", "index", "train", "train_encoder")
KINDS = {
    "ablate.yaml": AblateConfig,
    "curve.yaml": AblateConfig,
    "evaluate.yaml": EvaluateConfig,
    "extract.yaml": ExtractConfig,
    "extract-4090.yaml": ExtractConfig,
    "index.yaml": IndexConfig,
    "train.yaml": TrainConfig,
    "train-4090.yaml": TrainConfig,
    "train-encoder.yaml": TrainEncoderConfig,
}


def test_every_file_in_jobs_is_known_here():
    """A new job or config must be tested; a job has a config of its name."""
    files = {path.name for path in (ROOT / "jobs").iterdir() if path.is_file()}
    assert files == {*KINDS, "task.yaml", *(f"{job}.py" for job in JOBS)}


@pytest.mark.parametrize("name", KINDS)
def test_config_loads(name):
    """Shipped configs are valid as they are."""
    load(KINDS[name], ROOT / "jobs" / name)


def test_task_file_loads():
    """So is the example of a task file."""
    assert load_task(str(ROOT / "jobs" / "task.yaml")).names == ("PERSON", "ORG", "PLACE")


def test_the_4090_configs_are_about_one_base_model():
    """An adapter of the one is served on the base of the other."""
    train = load(TrainConfig, ROOT / "jobs" / "train-4090.yaml")
    extract = load(ExtractConfig, ROOT / "jobs" / "extract-4090.yaml")
    assert extract.engine.model == train.base.model
    assert extract.engine.max_model_len >= train.base.max_model_len
