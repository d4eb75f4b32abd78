"""Everything in jobs/ loads, runs and goes together, and the set is complete."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ner_batch.config import ExtractConfig, IndexConfig, load
from ner_batch.demo import corpus
from ner_batch.encoder.settings import TrainEncoderConfig
from ner_batch.evaluate.settings import EvaluateConfig
from ner_batch.experiments.settings import AblateConfig
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


@pytest.fixture
def run(tmp_path, tiny_model):
    """Runs a job as the README does, in a folder of its own that has the repository's jobs and the demo's corpus."""
    for name in ("jobs", "ner_batch"):
        (tmp_path / name).symlink_to(ROOT / name)
    corpus.write_gold(tmp_path / "demo-output" / "gold")
    corpus.write_corpus(tmp_path / "demo-output" / "corpus")

    def job(name, config, *arguments):
        command = [sys.executable, f"jobs/{name}.py", config, *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{name} {config}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    return job


SHORT = ["optimiser.steps=2", "evaluation.examples=2", "serving.prompts=2", "run.report_to=none"]


@pytest.mark.engine
@pytest.mark.ray
@pytest.mark.slow
def test_every_config_runs_after_the_one_before(run, tmp_path):
    """index, train, extract, evaluate, ablate, curve, train-encoder: each shipped YAML, shortened by overrides alone."""
    run("index", "jobs/index.yaml")
    run("train", "jobs/train.yaml", *SHORT)
    adapter = "adapter=demo-output/my-adapter"
    assert " rows out 267 = " in run("extract", "jobs/extract.yaml", adapter, "job.replicas=1", "decoding=free")
    assert "F1" in run("evaluate", "jobs/evaluate.yaml", "bootstrap.resamples=20")
    run("ablate", "jobs/ablate.yaml", "gold.limit=2", "axes.retrieval=[none,lexical]", "axes.reader=[demo]")
    short = yaml.safe_load((ROOT / "jobs" / "train.yaml").read_text())
    for override in SHORT:
        section, _, rest = override.partition(".")
        field, _, value = rest.partition("=")
        short.setdefault(section, {})[field] = yaml.safe_load(value)
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(short))
    run("ablate", "jobs/curve.yaml", "gold.limit=2", "curve.sizes=[8]", "curve.train=short.yaml")
    run("train_encoder", "jobs/train-encoder.yaml", "optimiser.steps=2", "input.sentences=300")


@pytest.mark.engine
@pytest.mark.ray
@pytest.mark.slow
def test_the_4090_sequence_of_the_readme(run, tmp_path):
    """Train with the one config, extract with the other: the adapter's task and format come with it.

    On the tiny base, for the named one is not at hand; nothing else of what the configs say about each other is changed.
    """
    base = "ner_batch/demo/files/base"
    gold = "gold.train=demo-output/gold/dev.parquet"
    small = [f"base.model={base}", "base.revision=null", "base.dtype=float32", "task=ner_batch/demo/files/task.yaml"]
    run("train", "jobs/train-4090.yaml", *small, gold, "lora.r=8", *SHORT)
    engine = [f"engine.model={base}", "engine.dtype=float32", "engine.max_model_len=2048", "engine.cpu_kv_cache_gib=1"]
    places = ["input.path=demo-output/corpus", "output.path=entities", "adapter=adapters/news", "task=null"]
    output = run("extract", "jobs/extract-4090.yaml", *places, *engine, "engine.enforce_eager=true", "--limit", "60")
    assert "rows in 60 = rows out 60" in output
    fingerprint = json.loads((tmp_path / "entities" / "_manifest.json").read_text())["fingerprint"]
    assert fingerprint["adapter"].startswith("news")
    assert fingerprint["task"].startswith("demo")
