"""Every YAML in jobs/ is run by its program, shortened by overrides alone, in the order in which a user meets them.

Three are planned and no more: ablate.yaml, curve.yaml and train-4090.yaml.
"""

import contextlib
import json
import runpy
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny import ADAPTER, BASE, CORPUS, TASK, gold
from typer.testing import CliRunner

from ner_batch.cli import app
from ner_batch.demo import models
from ner_batch.io.examples import examples_table, read_examples

pytestmark = [
    *(pytest.mark.engine, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)),
    pytest.mark.usefixtures("in_cluster"),
]
ROOT = Path(__file__).parent.parent
SHORT = ["optimiser.steps=2", "evaluation.examples=2", "serving.prompts=0", "run.report_to=none"]


@pytest.fixture
def run(tmp_path, capsys):
    """Runs a program as the README does, in a folder of its own with the repository's jobs, where the demo seems to have
    run.

    With a tiny model and little gold in their places: what is tried are the configs. test_demo runs the demo itself. In
    this process, where all is imported already; test_submit starts one as a process.
    """
    for name in ("jobs", "ner_batch"):
        (tmp_path / name).symlink_to(ROOT / name)
    out = tmp_path / "demo-output"
    out.mkdir()
    for name, place in {"corpus": CORPUS, "model": BASE, "adapter": ADAPTER}.items():
        (out / name).symlink_to(place)
    (out / "gold").mkdir()
    for split in ("train", "dev", "test"):
        pq.write_table(examples_table(gold(split)[:60]), out / "gold" / f"{split}.parquet")
    (out / "encoder").symlink_to(models.encoder())

    def job(name, config, *arguments):
        program = [f"jobs/{name}.py", config, *arguments]
        with contextlib.chdir(tmp_path), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", program)
            with pytest.raises(SystemExit) as end:
                runpy.run_path(program[0], run_name="__main__")
        printed = capsys.readouterr()
        assert not end.value.code, f"{name} {config}: {printed.out[-3000:]}{printed.err[-3000:]}"
        return printed.out

    return job


def test_every_config_runs_after_the_one_before(run, tmp_path):
    """index, train, extract, a review of what it is least sure of, evaluate, ablate, curve, train-encoder; and those for
    a 4090.
    """
    task, few = f"task={TASK}", "demo-output/gold/dev.parquet"
    run("index", "jobs/index.yaml", f"examples={few}")
    # It goes on from an adapter that reads: two steps teach no model where an answer ends.
    going_on = "lora={r: 32, alpha: 64, init: demo-output/adapter}"
    run(
        "train",
        "jobs/train.yaml",
        *SHORT,
        task,
        going_on,
        f"gold.train={few}",
        "gold.dev=demo-output/gold/test.parquet",
    )
    assert (tmp_path / "demo-output" / "my-adapter" / "ner_batch.json").exists()
    sequence_for_a_4090(run, tmp_path, few)
    test = "demo-output/gold/test.parquet"
    places = [f"input.path={test}", "input.rename.entities=gold", "adapter=demo-output/my-adapter", "score=true"]
    assert "rows out 20 = " in run("extract", "jobs/extract.yaml", *places, "--limit", "20")
    corrected = review(tmp_path / "demo-output" / "entities", tmp_path)
    training = [task, f"gold.train={corrected}", f"gold.dev={few}", "run.name=again", "output=again"]
    assert "68 samples" in run("train", "jobs/train.yaml", *training, "--dry-run")
    columns = ["predictions.id_column=id", f"gold.path={test}", "without_prediction=skip"]
    assert "F1" in run("evaluate", "jobs/evaluate.yaml", *columns, "bootstrap.resamples=20")
    # What they plan: test_ablate and test_ablate_curve read such cells, and train such adapters.
    assert "8 cells of 60 texts" in run("ablate", "jobs/ablate.yaml", task, "--dry-run")
    assert "2 adapters to train, 0 of them done" in run(
        "ablate", "jobs/curve.yaml", task, "curve.sizes=[8, all]", "--dry-run"
    )
    run("train_encoder", "jobs/train-encoder.yaml", "optimiser.steps=2", "input.sentences=300")
    assert (tmp_path / "demo-output" / "my-encoder" / "ner_batch_encoder.json").exists()


def review(entities, folder):
    """The three commands of docs/exchange.md, with gold for a person: a folder of gold that holds corrections too."""
    corrected = folder / "corrected"
    corrected.mkdir()
    shutil.copy(folder / "demo-output" / "gold" / "dev.parquet", corrected)
    chosen = folder / "chosen.jsonl"
    choice = ["--select", "uncertain", "--count", "8"]
    done = CliRunner().invoke(app, ["export", "prodigy", str(entities), str(chosen), *choice])
    assert done.exit_code == 0, done.output
    annotated = {example.text: example.entities for example in gold("test")}
    rows = [json.loads(line) for line in chosen.read_text().splitlines()]
    assert len(rows) == 8
    for row in rows:
        row["spans"] = [{"start": e.start, "end": e.end, "label": e.type} for e in annotated[row["text"]]]
        row["answer"] = "accept"
    (folder / "reviewed.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    where = [str(folder / "reviewed.jsonl"), str(corrected / "reviewed.parquet")]
    done = CliRunner().invoke(app, ["import", "prodigy", *where])
    assert done.exit_code == 0, done.output
    assert {e.text: e.entities for e in read_examples(where[1])} == {
        row["text"]: annotated[row["text"]] for row in rows
    }
    return corrected


def sequence_for_a_4090(run, folder, few):
    """Train with the one config (planned: the other one has trained), extract with the other: task and format come with
    the adapter. On the tiny base, for the named one is not at hand; nothing else that they say of each other is changed.
    """
    base = "demo-output/model"
    small = [f"base.model={base}", "base.revision=null", "base.dtype=float32", f"task={TASK}", f"gold.train={few}"]
    planned = run("train", "jobs/train-4090.yaml", *small, "--dry-run")
    assert "54 samples" in planned
    engine = [f"engine.model={base}", "engine.dtype=float32", "engine.max_model_len=2048", "engine.cpu_kv_cache_gib=1"]
    places = [f"input.path={few}", "input.rename.entities=gold", "output.path=entities", "task=null"]
    adapter = ["adapter=demo-output/my-adapter", "engine.enforce_eager=true"]
    output = run("extract", "jobs/extract-4090.yaml", *places, *adapter, *engine, "--limit", "3")
    assert "rows in 3 = rows out 3" in output
    fingerprint = json.loads((folder / "entities" / "_manifest.json").read_text())["fingerprint"]
    assert fingerprint["adapter"].startswith("my-adapter")
    assert fingerprint["task"].startswith("demo")
