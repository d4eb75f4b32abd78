"""What bad input to `ner-batch train` gets: one clear line each, exit code 2, no worker started, nothing half-written."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from refusals import refused
from typer.testing import CliRunner

from ner_batch.cli import app
from ner_batch.data import EXAMPLES, Entity, Example
from ner_batch.io.examples import examples_table
from ner_batch.train import job
from ner_batch.train import plan as plans

TASK = {"name": "t", "labels": {"PER": "a person", "ORG": "a company"}}
GOLD = [Example(str(n), f"Anna{n} joined Acme.", (Entity(0, 4 + len(str(n)), "PER", f"Anna{n}"),)) for n in range(8)]


def write(path, examples):
    pq.write_table(examples_table(examples), path)
    return path


@pytest.fixture
def train(tmp_path, random_model, monkeypatch):
    """Runs `ner-batch train` on a sound config with changes; gives (exit code, error lines). It must never start."""
    monkeypatch.setattr(job, "run", lambda *_: pytest.fail("the job was started"))
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(TASK, sort_keys=False))
    config = {
        "base": {"model": random_model},
        "task": str(tmp_path / "task.yaml"),
        "gold": {"train": str(write(tmp_path / "gold.parquet", GOLD))},
        "output": str(tmp_path / "adapter"),
        "run": {"storage": str(tmp_path / "runs")},
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config))

    def run(*overrides):
        result = CliRunner().invoke(app, ["train", str(tmp_path / "train.yaml"), *map(str, overrides)])
        return result.exit_code, result.stderr.splitlines()

    return run


def test_empty_gold(train, tmp_path):
    """No example at all, and none with an entity."""
    pq.write_table(EXAMPLES.empty_table(), tmp_path / "none.parquet")
    refused(train(f"gold.train={tmp_path / 'none.parquet'}"), "none.parquet", "no example")
    write(tmp_path / "bare.parquet", [Example("1", "It rained.", ())])
    refused(train(f"gold.train={tmp_path / 'bare.parquet'}"), "bare.parquet", "no example has an entity")


def test_unknown_type(train, tmp_path):
    """The row and the type are named, and the types there are."""
    odd = Example("r7", "In Rome.", (Entity(3, 7, "CITY", "Rome"),))
    write(tmp_path / "odd.parquet", [*GOLD, odd])
    refused(train(f"gold.train={tmp_path / 'odd.parquet'}"), "odd.parquet", "r7", "'CITY'", "PER, ORG")


def test_span_out_of_range_or_not_matching(train, tmp_path):
    """The file and the row are named."""
    for name, start, end, text in (("range", 0, 99, "Anna"), ("text", 0, 4, "Bert")):
        row = {"id": "1", "text": "Anna.", "entities": [{"start": start, "end": end, "type": "PER", "text": text}]}
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"{name}.parquet")
        refused(train(f"gold.train={tmp_path / name}.parquet"), f"{name}.parquet row 0")


def test_storage_and_output_that_cannot_be_written(train, tmp_path):
    """A file stands where a folder should."""
    (tmp_path / "file").write_text("x")
    refused(train(f"run.storage={tmp_path / 'file' / 'runs'}"), tmp_path / "file")
    refused(train(f"output={tmp_path / 'file' / 'adapter'}"), tmp_path / "file")


def test_output_that_is_an_adapter_already(train, tmp_path):
    """It is not overwritten."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "ner_batch.json").write_text("{}")
    refused(train(), "output", "holds an adapter already")
    for theirs in ("[]", "{}"):  # a file of that name that no run of ours has written
        (tmp_path / "adapter" / plans.PROOF).write_text(theirs)
        refused(train(), "output", "holds an adapter already")


def test_storage_of_another_run(train, tmp_path):
    """A run of that name with another config is not gone on with."""
    folder = tmp_path / "runs" / "train"
    folder.mkdir(parents=True)
    for theirs in ({"digest": "another"}, []):
        (folder / "ner_batch_run.json").write_text(json.dumps(theirs))
        refused(train(), "run.name", "another config")


def test_base_that_does_not_exist(train, tmp_path):
    """A folder that is not there."""
    refused(train(f"base.model={tmp_path / 'nowhere'}"), "nowhere")


def test_targets_that_match_nothing(train):
    """The names there are, are told."""
    refused(train("lora.targets=[query_key_value]"), "query_key_value", "q_proj")
    refused(train("lora.r=1000"), "lora.r", "512")


def test_reporter_that_is_not_installed(train):
    """The package to install is named."""
    refused(train("run.report_to=wandb"), "wandb", "pip install")


def test_samples_that_do_not_fit(train):
    """All too long: an error, not a training on nothing."""
    refused(train("base.max_model_len=40"), "base.max_model_len=40", "no sample fits")


def test_packs_that_cannot_hold_a_sample(train):
    """Rows shorter than the model's length."""
    refused(train("packing.tokens=100"), "packing.tokens=100", "base.max_model_len")


def test_unknown_fields_are_all_told_at_once(train):
    """Two mistakes, two lines, with what was meant."""
    code, lines = train("lora.rank=8", "optimiser.lr=0.1")
    assert code == 2
    assert len(lines) == 2
    assert "lora.rank" in lines[0] + lines[1]


def test_nothing_is_left_behind(train, tmp_path):
    """A refused run leaves no output and no run record."""
    refused(train("lora.targets=[nothing]"), "nothing")
    assert not list((tmp_path / "adapter").glob("*")) if (tmp_path / "adapter").exists() else True
    assert not list(Path(tmp_path / "runs").rglob("*.json"))


def test_dry_run_tells_and_starts_nothing(train, tmp_path):
    """Samples, rows and steps are told; no adapter, no run."""
    code, lines = train("--dry-run")
    assert code == 0, lines
    assert not list(Path(tmp_path / "runs").rglob("*.json"))


@pytest.mark.usefixtures("train")  # writes the config
def test_what_is_passed_over_is_told(tmp_path):
    """Other files among the gold of training and dev."""
    for name in ("train", "dev"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "gold.parquet", GOLD)
        (tmp_path / name / f"{name}.csv").touch()
    changes = [f"gold.{name}={tmp_path / name}" for name in ("train", "dev")]
    result = CliRunner().invoke(app, ["train", str(tmp_path / "train.yaml"), "--dry-run", *changes])
    assert result.exit_code == 0
    for name in ("train", "dev"):
        line = f"{tmp_path / name}: passed over (hidden, links to the same, or files of another kind): {name}.csv"
        assert line in result.stdout.splitlines()


@pytest.mark.ray
@pytest.mark.usefixtures("train", "in_cluster")
def test_dry_run_asks_a_cluster_that_is_named(tmp_path, ray_address):
    """Whether its nodes have room for the workers is told at once; nobody waits, and no node is asked for."""
    for workers, told in ((1, False), (1000, True)):
        changes = ["run.gpu=false", f"run.workers={workers}"]
        named = [*changes, f"run.address={ray_address}"]
        result = CliRunner().invoke(app, ["train", str(tmp_path / "train.yaml"), "--dry-run", *named])
        assert result.exit_code == 0, result.stderr
        words = "a training worker (run.gpu, run.cpus_per_worker, run.workers) needs "
        assert (words in result.stdout) == told
        assert ("of 1000 (nodes have" in result.stdout) == told


@pytest.mark.usefixtures("train")  # writes the config
def test_what_flatters_and_what_is_lost_is_told(tmp_path):
    """A dev set of training texts, and entities that the format cannot say."""
    gold = [*GOLD, Example("twice", "Bob and Bob.", (Entity(8, 11, "PER", "Bob"),))]
    write(tmp_path / "more.parquet", gold)
    changes = [f"gold.train={tmp_path / 'more.parquet'}", f"gold.dev={tmp_path / 'gold.parquet'}"]
    result = CliRunner().invoke(app, ["train", str(tmp_path / "train.yaml"), "--dry-run", *changes])
    assert result.exit_code == 0
    printed = result.stdout
    assert "8 of 8 dev examples have a text that is trained on: dev F1 will flatter" in printed
    assert (
        "1 of 9 gold entities cannot be said in json, so answers leave them out: 'Bob' [8, 11) PER of twice@0"
        in printed
    )


def test_an_unmasked_shared_prefix_is_refused(train):
    """The paper's variant has no meaning there."""
    refused(train("packing.kind=shared", "packing.masked=false"), "packing.masked")


def test_an_adapter_to_go_on_from_must_fit(train, tmp_path, random_adapter, random_model, tiny_model):
    """No adapter there, another rank, other targets, another base."""
    refused(train(f"lora.init={tmp_path / 'nowhere'}"), "nowhere")
    adapter = random_adapter(random_model, 5)  # rank 8, alpha 64
    refused(train(f"lora.init={adapter}", "lora.r=4"), "lora.r: 4", "8")
    refused(train(f"lora.init={adapter}", "lora.r=8", "lora.alpha=64"), "lora.targets")
    other = Path(tiny_model).parent / "adapter"
    refused(train(f"lora.init={other}", "lora.r=32", "lora.alpha=64"), "was trained on", random_model)


def test_shares_of_demonstrations_must_be_there(train):
    """None at all, or shares of nothing."""
    refused(train("demonstrations.k={}"), "demonstrations.k")
    refused(train("demonstrations.k={0: 0}"), "demonstrations.k")


def test_kinds_and_their_encoder_go_together(train):
    """An unknown kind, one without its encoder, an encoder that no kind uses."""
    refused(train("demonstrations={kind: [lexical, nearest]}"), "demonstrations.kind", "nearest")
    refused(train("demonstrations={kind: [lexical, entity]}"), "encoder", "missing")
    refused(train("demonstrations={kind: lexical, encoder: x}"), "demonstrations", "encoder")


def test_changed_gold_is_another_run(train, tmp_path, monkeypatch):
    """The same paths, other examples: a run that lies there is not gone on with."""
    monkeypatch.setattr(job, "run", lambda plan, _: plans.claim(plan) or 0)
    assert train()[0] == 0
    assert train()[0] == 0
    write(tmp_path / "gold.parquet", GOLD[:-1])
    refused(train(), "run.name", "another config, gold or base")
