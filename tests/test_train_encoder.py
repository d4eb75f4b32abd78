"""`ner-batch train-encoder`: what it draws from a corpus, what it refuses, the same bytes for the same seed, a better index."""

import io
import json
import random
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from rich.console import Console
from s3_server import BUCKET, point_at, s3_server
from safetensors.torch import load_file
from tiny import FILES
from transformers import AutoTokenizer, BertConfig, BertModel, TrainerCallback
from typer.testing import CliRunner

from ner_batch import config as configs
from ner_batch import retrieval
from ner_batch.adapter import model_fingerprint
from ner_batch.cli import app, exit_code
from ner_batch.data import Example
from ner_batch.encoder import corpus as drawing
from ner_batch.encoder import job, model, plan
from ner_batch.encoder.corpus import Sample
from ner_batch.encoder.settings import BaseEncoderConfig, OptimiserConfig, TextConfig, TrainEncoderConfig
from ner_batch.errors import UserError
from ner_batch.io import storage
from ner_batch.io.examples import examples_table, read_examples
from ner_batch.io.listing import list_shards

WORDS = [
    "anna",
    "bob",
    "lives",
    "works",
    "sleeps",
    "in",
    "berlin",
    "paris",
    "rome",
    "for",
    "acme",
    "every",
    "day",
    "night",
    "and",
    "the",
    "river",
    "flows",
    "north",
]


def written(seed=0, documents=12):
    """Documents of some sentences each, half of which occur twice."""
    rng = random.Random(seed)
    made = [" ".join([*rng.sample(WORDS, 7), str(n)]).capitalize() + "." for n in range(documents * 4)]
    return [" ".join(made[i : i + 4] + made[:2]) for i in range(0, len(made), 4)]


@pytest.fixture(scope="session")
def base(tmp_path_factory, tiny_model):
    """A plain BERT of two layers that has learned nothing, with the demo's tokenizer: ``base(dropout, seed, **sizes)``."""

    def make(dropout=0.1, seed=0, **sizes):
        path = tmp_path_factory.mktemp("bert")
        torch.manual_seed(seed)
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        tokenizer.save_pretrained(path)
        small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        text = {"vocab_size": len(tokenizer), "max_position_embeddings": 128, "pad_token_id": tokenizer.pad_token_id}
        noise = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        config = BertConfig(**(small | text | noise | sizes))
        BertModel(config).save_pretrained(path)
        return str(path)

    return make


@pytest.fixture(scope="session")
def bert(base):
    return base()


@pytest.fixture
def train(tmp_path, bert):
    """Runs `ner-batch train-encoder` on a sound config with changes; gives (exit code, error lines).

    With ``callbacks`` it runs what the command runs, these listening; gives the exit code.
    """
    (tmp_path / "corpus").mkdir()
    pq.write_table(pa.table({"text": [*written(), None, " \n"], "n": 14 * [1]}), tmp_path / "corpus" / "a.parquet")
    config = {
        "base": {"model": bert},
        "input": {"path": str(tmp_path / "corpus")},
        "output": str(tmp_path / "encoder"),
        "optimiser": {"batch": 8, "steps": 6, "learning_rate": 1e-3},
        "run": {"checkpoint_every": 2, "device": "cpu"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))

    def run(*overrides, callbacks=()):
        if callbacks:
            console = Console(file=io.StringIO())
            config = configs.load(TrainEncoderConfig, tmp_path / "job.yaml", [*map(str, overrides)])
            return exit_code(lambda: job.run(plan.prepare(config, console), console, callbacks))
        result = CliRunner().invoke(app, ["train-encoder", str(tmp_path / "job.yaml"), *map(str, overrides)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        run.output = result.stdout
        return result.exit_code, result.stderr.splitlines()

    return run


class After(TrainerCallback):
    """An error after so many steps, where their checkpoint is written already; by default what Ctrl-C raises."""

    def __init__(self, steps, error=KeyboardInterrupt):
        self.steps, self.error = steps, error

    def on_step_begin(self, _args, state, _control, **_):
        if state.global_step == self.steps:
            raise self.error


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- what is drawn ------------------------------------------------------------------------------------------------


@given(st.lists(st.text(alphabet="ab .\n", max_size=6), max_size=60), st.integers(1, 8), st.randoms())
def test_a_sample_is_of_distinct_sentences_in_any_order(sentences, size, rng):
    """No blank, no copy, not more than asked, all if they fit, and the order of the corpus decides nothing."""
    shuffled = sentences * 2
    rng.shuffle(shuffled)
    samples = []
    for given_ in (sentences, shuffled):
        sample = Sample(size, seed=1)
        for sentence in given_:
            sample.add(sentence)
            assert len(sample) < 2 * size
        samples.append(sample.sentences())
    distinct = {" ".join(s.split()) for s in sentences if set(s) & set("ab")}
    assert samples[0] == samples[1]
    assert len(samples[0]) == len(set(samples[0])) == min(size, len(distinct))
    assert set(samples[0]) <= distinct


def test_a_sample_is_uniform():
    """Over many seeds every sentence comes about equally often: 20 of 100, 300 times; 60 each, give or take 6 sigma."""
    counts = dict.fromkeys((f"sentence {n}" for n in range(100)), 0)
    for seed in range(300):
        sample = Sample(20, seed)
        for sentence in counts:
            sample.add(sentence)
        for sentence in sample.sentences():
            counts[sentence] += 1
    assert all(60 - 42 < count < 60 + 42 for count in counts.values())


def test_documents_become_sentences(tmp_path):
    """Of documents sentences, of a large corpus a part, and a broken file is told and passed over."""
    pq.write_table(
        pa.table({"text": ["Anna left. Bob stayed.\n\nIt rained. It rained.", None]}), tmp_path / "a.parquet"
    )
    (tmp_path / "b.parquet").write_bytes(b"not parquet at all, not at all")
    listing = list_shards(str(tmp_path), "text")
    found, unreadable = drawing.draw(listing, TextConfig(path=str(tmp_path)), 0, lambda *_: None)
    assert set(found.sentences()) == {"Anna left.", "Bob stayed.", "It rained."}
    assert found.seen == 4
    assert "b.parquet" in unreadable[0]
    lines = '{"text": "Anna left."}\n{"text": 5}\n{"text": 6}\n'
    (tmp_path / "lines.jsonl").write_text(lines)
    listing = list_shards(str(tmp_path / "lines.jsonl"), "text")
    found, unreadable = drawing.draw(listing, TextConfig(path=str(tmp_path)), 0, lambda *_: None)
    assert set(found.sentences()) == {"Anna left."}
    assert unreadable[0].endswith("lines.jsonl: 2 rows, the first is row 1 (row 1: text is number, not a string)")
    (tmp_path / "lines.jsonl").unlink()
    with pytest.raises(UserError, match=r"lines\.jsonl: "):  # it is gone: nothing that is passed over
        drawing.draw(listing, TextConfig(path=str(tmp_path)), 0, lambda *_: None)
    rows = [f"Sentence {n} of many." for n in range(100_000)]
    pq.write_table(pa.table({"text": rows}), tmp_path / "a.parquet", use_dictionary=False)
    part = TextConfig(path=str(tmp_path), bytes=1_000_000, sentences=10_000)
    drawn, other = (drawing.draw(list_shards(str(tmp_path), "text"), part, seed, lambda *_: None)[0] for seed in (0, 1))
    assert 0 < drawn.seen < 100_000
    assert drawn.sentences() != other.sentences()


def test_long_sentences_are_cut():
    """None is over the budget, what fits stays, and nothing is there twice."""
    long = " ".join(f"word{n}" for n in range(40))
    cut = drawing.fitted([long, "short one", long + " more"], 8, lambda texts: [len(text.split()) for text in texts])
    assert all(len(text.split()) <= 8 for text in cut)
    assert len(cut) == len(set(cut)) == 3


# --- what comes out -----------------------------------------------------------------------------------------------


def test_trained_encoder_builds_an_index(train, tmp_path, bert):
    """The folder works in `ner-batch index`, and the index finds with it; the manifest tells scores and origin."""
    assert train() == (0, [])
    manifest = json.loads((tmp_path / "encoder" / plan.MANIFEST).read_text())
    assert set(manifest["scores"]) == {"before", "after"}
    assert manifest["scores"]["after"]["uniformity"] < manifest["scores"]["before"]["uniformity"]
    assert (manifest["steps"], manifest["sentences"] + manifest["held_out"]) == (6, 48)
    assert manifest["versions"]["sentence-transformers"] == version("sentence-transformers")
    assert manifest["base_fingerprint"] == model_fingerprint(bert)
    assert not (tmp_path / "encoder.checkpoint").exists()
    sentences = [Example(str(n), text, ()) for n, text in enumerate(written())]
    pq.write_table(examples_table(sentences), tmp_path / "gold.parquet")
    where = {"examples": str(tmp_path / "gold.parquet"), "out": str(tmp_path / "index")}
    (tmp_path / "index.yaml").write_text(
        yaml.safe_dump(where | {"kind": "sentence", "encoder": str(tmp_path / "encoder")})
    )
    result = CliRunner().invoke(app, ["index", str(tmp_path / "index.yaml")])
    assert result.exit_code == 0, result.stderr
    index = retrieval.open_index(tmp_path / "index", device="cpu")
    assert index.nearest([written()[3] + "!"], 1)[0][0].text == written()[3]


def test_dry_run_trains_nothing(train, tmp_path):
    """It tells sentences and steps, and leaves no trace."""
    assert train("--dry-run") == (0, [])
    assert "43 distinct ones to train on, 5 held out" in train.output
    assert "6 steps of 8 sentences" in train.output
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "job.yaml"}


def test_same_seed_same_bytes_also_after_an_interruption(train, tmp_path):
    """Twice at once, and once stopped after step 3 of 6; another seed gives another encoder."""
    outputs = [tmp_path / name for name in ("one", "two", "other")]
    assert train(f"output={outputs[0]}")[0] == 0
    assert train(f"output={outputs[1]}", callbacks=[After(3)]) == 130
    assert not outputs[1].exists()
    refused(train(f"output={outputs[1]}", "run.seed=1"), "two.checkpoint", "another config")
    assert train(f"output={outputs[1]}")[0] == 0
    assert train(f"output={outputs[2]}", "run.seed=1")[0] == 0
    one, two, other = map(files_of, outputs)
    assert one == two
    assert one["model.safetensors"] != other["model.safetensors"]
    assert not list(tmp_path.glob("*.checkpoint"))


@pytest.mark.parametrize("every", [3, 5])
def test_a_run_that_stops_in_its_second_epoch_goes_on_there(train, tmp_path, every):
    """An epoch has 5 steps here: gone on after the first of the second one, and exactly between the two."""
    steps = ("optimiser.steps=9", f"run.checkpoint_every={every}")
    assert train(*steps, f"output={tmp_path / 'whole'}") == (0, [])
    assert train(*steps, callbacks=[After(7)]) == 130
    assert train(*steps) == (0, [])
    assert files_of(tmp_path / "encoder") == files_of(tmp_path / "whole")


KILLED = """
import os, signal, sys
from rich.console import Console
from transformers import TrainerCallback
from ner_batch import config
from ner_batch.encoder import job, plan, settings

class Kill(TrainerCallback):
    def on_save(self, args, state, control, **_):
        if state.global_step == 4:
            os.kill(os.getpid(), signal.SIGKILL)

console = Console()
job.run(plan.prepare(config.load(settings.TrainEncoderConfig, sys.argv[1], ()), console), console, [Kill()])
"""


def test_kill_9_while_a_checkpoint_is_written(train, tmp_path):
    """The run goes on from the one before, the half-written one is gone in the end, and the bytes are the same."""
    dead = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "job.yaml")])
    assert dead.returncode == -signal.SIGKILL
    checkpoints = tmp_path / "encoder.checkpoint"
    assert {path.name for path in checkpoints.iterdir()} == {"checkpoint-2", "checkpoint-4"}
    assert [path.parent.name for path in checkpoints.glob(f"*/{plan.MARK}")] == ["checkpoint-2"]
    for name in ("optimizer.pt", "trainer_state.json"):  # so it looks when the kill comes a moment earlier
        (checkpoints / "checkpoint-4" / name).unlink()
    assert train("optimiser.steps=6") == (0, [])
    assert train(f"output={tmp_path / 'whole'}") == (0, [])
    assert files_of(tmp_path / "encoder") == files_of(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "job.yaml", "encoder", "whole"}


def test_a_gradient_that_is_no_number(train, tmp_path):
    """One line with the step and the remedy, exit code 1, and no checkpoint of such weights."""
    assert train("optimiser.learning_rate=1e30") == (
        1,
        ["error: the gradient of step 2 is not finite: lower optimiser.learning_rate"],
    )
    assert not (tmp_path / "encoder").exists()
    assert not list((tmp_path / "encoder.checkpoint").iterdir())


@pytest.mark.parametrize(
    ("more", "remedy"), [((), "set optimiser.mini_batch=16"), (("optimiser.mini_batch=4",), "lower")]
)
def test_a_gpu_that_is_too_small(train, capsys, more, remedy):
    """One line with the remedy, exit code 1."""
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert train(*more, callbacks=[After(1, error)]) == 1
    assert capsys.readouterr().err.startswith(f"error: out of memory on the GPU: {remedy}")


def test_a_log_has_lines_of_every_stage(train, tmp_path):
    """With no pause between them: scoring, each step with its loss, counted on after an interruption."""
    assert train(callbacks=[After(3)]) == 130
    log = io.StringIO()
    config = configs.load(TrainEncoderConfig, tmp_path / "job.yaml", [])
    assert job.run(plan.prepare(config, Console(file=log)), Console(file=log), every=0) == 0
    lines = log.getvalue().splitlines()
    assert lines[0] == "scoring the base"
    for step, line in enumerate(lines[1:5], start=3):
        assert re.fullmatch(rf"step {step} of 6 \| loss \d\.\d+ \| ETA \d+ s", line)
    assert lines[5] == "scoring the encoder"


def test_a_checkpoint_goes_on_when_text_and_base_have_moved(train, tmp_path, bert, monkeypatch):
    """From another folder, from S3 in two spellings, under another column's name: the content decides."""
    steps = ("optimiser.steps=8", "run.checkpoint_every=1")
    base, text = Path(shutil.copytree(bert, tmp_path / "base")), tmp_path / "corpus"
    with s3_server() as (endpoint, _), monkeypatch.context() as patch:
        point_at(patch, endpoint)
        storage.write_bytes(f"s3://{BUCKET}/raw/a.parquet", (text / "a.parquet").read_bytes())
        for done, path in enumerate((text, f"s3://{BUCKET}/raw", f"s3://{BUCKET}/raw/"), start=1):
            assert train(*steps, f"base.model={base}", f"input.path={path}", callbacks=[After(done)]) == 130
            assert [path.name for path in (tmp_path / "encoder.checkpoint").iterdir()] == [f"checkpoint-{done}"]
            base = base.rename(tmp_path / f"base-{done}")
    moved = tmp_path / "moved"
    pq.write_table(pq.read_table(text).rename_columns({"text": "raw"}), moved.with_suffix(".parquet"))
    where = (f"base.model={base}", f"input.path={moved}.parquet", "input.text_column=raw")
    refused(train(*steps, *where, "input.max_tokens=3"), "encoder.checkpoint", "another config")
    refused(train(*steps, f"base.model={base}", "base.pooling=cls"), "encoder.checkpoint", "another config")
    assert train(*steps, *where) == (0, [])
    assert train(*steps, f"output={tmp_path / 'whole'}") == (0, [])
    assert (tmp_path / "encoder" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("change", [{"pooling_mode": "cls"}, {"include_prompt": False}])
def test_a_base_of_other_modules_is_another_base(train, tmp_path, change):
    """Two encoders of the same weights, one of which pools in another way."""
    assert train("optimiser.steps=1", f"output={tmp_path / 'first'}")[0] == 0
    first, other = tmp_path / "first", Path(shutil.copytree(tmp_path / "first", tmp_path / "other"))
    told = json.loads((other / "1_Pooling" / "config.json").read_text())
    (other / "1_Pooling" / "config.json").write_text(json.dumps(told | change))
    assert train(f"base.model={first}", callbacks=[After(3)]) == 130
    refused(train(f"base.model={other}"), "encoder.checkpoint", "another config")


def test_ctrl_c_while_text_is_read(train, tmp_path, monkeypatch):
    """One line, 130, nothing written."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(drawing, "texts_of", interrupted)
    assert train() == (130, ["interrupted; start the same command again: it goes on from what was saved"])
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "job.yaml"}


def test_mini_batches_do_not_change_the_loss(bert):
    """GradCache in mini-batches of 3: the loss of the same vectors, and a gradient that matches it."""
    sentences = [sentence for text in written() for sentence in text.split(". ")][:8]
    gradients = []
    for mini_batch in (None, 3):
        encoder = model.load(BaseEncoderConfig(model=bert), "cpu").eval()
        given = encoder.preprocess(sentences)
        loss = job.contrastive_loss(encoder, OptimiserConfig(mini_batch=mini_batch))
        loss([dict(given), dict(given)], None).backward()
        gradients.append(torch.cat([w.grad.flatten() for w in encoder.parameters() if w.grad is not None]))
    assert torch.allclose(*gradients, atol=1e-5)
    assert gradients[0].abs().max() > 1e-3


def test_bfloat16_and_mini_batches_train(train, tmp_path):
    """The path of a small GPU: autocast in the encoder, which float32 weights come out of, GradCache around it."""
    small = ("optimiser.mini_batch=4", "base.pooling=cls")
    assert train(*small, f"output={tmp_path / 'float32'}") == (0, [])
    assert train(*small, "base.compute=bfloat16") == (0, [])
    rough, exact = (load_file(tmp_path / name / "model.safetensors") for name in ("encoder", "float32"))
    assert {weight.dtype for weight in rough.values()} == {torch.float32}
    assert any(not torch.equal(rough[name], exact[name]) for name in exact)
    pooling = json.loads((tmp_path / "encoder" / "1_Pooling" / "config.json").read_text())
    assert "cls" in json.dumps(pooling)
    assert "in bf16" in train.output


def test_a_finished_encoder_is_a_base(train, tmp_path):
    """What came out goes in again, with the pooling it has."""
    assert train("optimiser.steps=1", f"output={tmp_path / 'first'}")[0] == 0
    refused(train(f"base.model={tmp_path / 'first'}", "base.pooling=cls"), "base.pooling", "leave base.pooling out")
    assert train("optimiser.steps=1", f"base.model={tmp_path / 'first'}")[0] == 0


def test_text_on_s3(train, tmp_path):
    """The corpus is read from a bucket; the encoder is written here, or nowhere."""
    with s3_server() as (endpoint, _), pytest.MonkeyPatch.context() as patch:
        point_at(patch, endpoint)
        pq.write_table(pa.table({"text": written()}), tmp_path / "b.parquet")
        storage.write_bytes(f"s3://{BUCKET}/raw/b.parquet", (tmp_path / "b.parquet").read_bytes())
        assert train(f"input.path=s3://{BUCKET}/raw", "--dry-run") == (0, [])
        assert "43 distinct ones" in train.output
        refused(train(f"output=s3://{BUCKET}/encoder"), "output: s3://", "local disk")


# --- what it is good for ------------------------------------------------------------------------------------------


def recall(folder, kind, encoder, sets, k=3):
    """Share of the ``k`` nearest that are of the query's own pattern, through a real index."""
    examples, queries = sets
    retrieval.build(examples, kind, folder, encoder)
    found = retrieval.open_index(folder, device="cpu").nearest([query.text for query in queries], k)
    pairs = [(query, near) for query, some in zip(queries, found, strict=True) for near in some]
    return float(np.mean([query.id.split("-")[0] == near.id.split("-")[0] for query, near in pairs]))


@pytest.mark.slow
@pytest.mark.usefixtures("train")  # writes the config
def test_trained_encoder_finds_the_pattern(tmp_path, base):
    """Trained on raw documents, a small encoder brings more sentences of the query's own pattern than it did before.

    155 patterns (the id tells which), four sentences of each in the index, queries with names that occur nowhere else.
    A random encoder is not bad at it, for the mean of random token vectors counts shared words; lexical, without any
    training, is better than an encoder of this size.
    """
    untrained, out = base(0.1, 0, hidden_size=64, intermediate_size=128, num_attention_heads=4), tmp_path / "trained"
    overrides = ["optimiser.batch=32", "optimiser.steps=60", "optimiser.learning_rate=0.001"]
    places = [f"input.path={FILES / 'patterns' / 'documents.parquet'}", f"base.model={untrained}", f"output={out}"]
    # In a process of its own: an engine of another test leaves torch.distributed set up, which accelerate would join.
    command = [sys.executable, "-m", "ner_batch", "train-encoder", str(tmp_path / "job.yaml"), *places, *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    sets = [read_examples(str(FILES / "patterns" / f"{name}.parquet")) for name in ("examples", "queries")]
    asked = {"untrained": ("sentence", untrained), "trained": ("sentence", str(out)), "random": ("random", None)}
    found = {what: recall(tmp_path / f"index-{what}", *how, sets) for what, how in asked.items()}
    print(found, json.loads((out / plan.MANIFEST).read_text())["scores"])
    assert found["trained"] > found["untrained"] + 0.05
    assert found["trained"] > found["random"] + 0.3


# --- what is refused ----------------------------------------------------------------------------------------------


def test_bad_config_and_places(train, tmp_path):
    """Model, input, column, device, output: one line each, and nothing is written."""
    refused(train("base.model=/no/such/encoder"), "/no/such/encoder")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text("{}")
    refused(train(f"base.model={tmp_path / 'odd'}"), "base.model", "odd", "cannot be loaded")
    refused(train("input.path=/nowhere"), "/nowhere", "no such file")
    refused(train("input.text_column=txt"), "txt", "did you mean 'text'")
    refused(train("input.text_column=n"), "'n'", "int64")
    refused(train("run.device=cuda:7"), "run.device: cuda:7")
    refused(train("optimiser.batch=1"), "optimiser.batch")
    refused(train("base.pool=mean"), "base.pool: unknown field (did you mean pooling?)")
    assert not (tmp_path / "encoder").exists()


def test_too_little_text(train, tmp_path):
    """An empty file, and fewer sentences than a batch; the remedy is named."""
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    refused(train(f"input.path={tmp_path / 'empty.parquet'}"), "empty.parquet", "0 distinct sentences")
    refused(train("optimiser.batch=64"), "43 distinct sentences", "optimiser.batch=64")


def test_output_that_is_taken(train, tmp_path):
    """By an encoder, by something else, by a file; an empty folder is taken over."""
    (tmp_path / "encoder").mkdir()
    assert train("optimiser.steps=1")[0] == 0
    before = files_of(tmp_path / "encoder")
    refused(train(), "holds an encoder already")
    assert files_of(tmp_path / "encoder") == before
    refused(train(f"output={tmp_path / 'corpus'}"), "output", "no empty folder")
    refused(train(f"output={tmp_path / 'job.yaml'}"), "output", "no empty folder")
    for name in ("notes.checkpoint/diary.txt", "file.checkpoint"):  # somebody's own, beside a place that is free
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        refused(train(f"output={tmp_path / name.partition('.')[0]}"), "not a folder of checkpoints", "remove it")
        assert path.read_text() == "mine"


def test_an_encoder_without_dropout(train, base, tiny_model):
    """Two equal vectors of a sentence teach nothing: refused with the remedy, which works; also for a decoder."""
    still = base(0.0)
    refused(train(f"base.model={still}"), "base.dropout", "set base.dropout=0.1")
    assert train(f"base.model={still}", "base.dropout=0.1", "--dry-run") == (0, [])
    refused(train(f"base.model={tiny_model}"), "set base.dropout=0.1")
    assert train(f"base.model={tiny_model}", "base.dropout=0.1", "--dry-run") == (0, [])
