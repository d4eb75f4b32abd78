"""The training job on real Ray Train and a real engine: killed, resumed, served as trained. Losses go on as if nothing was."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from processes import kill_session
from ray.cluster_utils import Cluster
from s3_server import BUCKET, point_at, s3_server
from tiny import gold
from typer.testing import CliRunner

from ner_batch import adapter as adapters
from ner_batch.cli import app
from ner_batch.io import storage
from ner_batch.io.examples import examples_table

pytestmark = [pytest.mark.ray, pytest.mark.engine]

STEPS, EVERY = 30, 5
WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"  # off in tests, on by default
GOLD = {"train": gold("train")[:60], "dev": gold("dev")[:6]}


@pytest.fixture(scope="module")
def config_folder(tmp_path_factory, tiny_model):
    """Writes a train.yaml: ``config_folder(name, storage)`` is its folder, one for each name."""
    home = tmp_path_factory.mktemp("train")
    for split in ("train", "dev"):
        pq.write_table(examples_table(GOLD[split]), home / f"{split}.parquet")
    files = Path(tiny_model).parent
    config = {
        "base": {"model": tiny_model, "dtype": "float32", "max_model_len": 640},
        "task": str(files / "task.yaml"),
        "gold": {"train": str(home / "train.parquet"), "dev": str(home / "dev.parquet")},
        "demonstrations": {"kind": "lexical", "k": {0: 0.7, 1: 0.3}},
        "lora": {"r": 8, "alpha": 16},
        "optimiser": {"steps": STEPS, "learning_rate": 0.002, "batch_tokens": 1280},
        "packing": {"kind": "shared", "tokens": 640},
        "augmentation": {"swapped": 0.5},
        "evaluation": {"every": 20},
        "run": {"checkpoint_every": EVERY, "max_failures": 1},
        "serving": {"prompts": 0},
    }

    def written(name, storage=None):
        folder = home / name
        folder.mkdir(exist_ok=True)
        where = storage or str(folder)
        places = {"output": f"{where}/adapter", "run": {**config["run"], "storage": where, "name": "run"}}
        (folder / "train.yaml").write_text(yaml.safe_dump(config | places))
        return folder

    return written


@pytest.fixture(scope="module")
def start(config_folder):
    """Starts `ner-batch train` in a folder of its own: ``start(name, *overrides)`` gives (folder, process)."""

    def run(name, *overrides, storage=None, **environment):
        folder = config_folder(name, storage)
        process = subprocess.Popen(
            [sys.executable, "-m", "ner_batch", "train", "train.yaml", *overrides],
            cwd=folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return folder, process

    return run


@pytest.fixture(scope="module")
def train(config_folder, ray_address):
    """`ner-batch train` in this process, where all is imported already: (folder, exit code, output)."""

    def run(name, *overrides):
        folder = config_folder(name)
        with contextlib.chdir(folder):
            done = CliRunner().invoke(app, ["train", "train.yaml", *overrides])
        return folder, done.exit_code, done.output

    return run


@pytest.fixture(scope="module")
def whole(train, tiny_model):
    """A run that nobody disturbs, with the comparison of served and trained answers at its end."""
    template = f"base.chat_template={tiny_model}/chat_template.jinja"  # its own, by name
    folder, code, output = train("whole", "serving.prompts=6", template)
    assert code == 0, output
    return folder, output


def state_of(uri):
    """The newest complete checkpoint's state, from a local folder or from S3."""
    files = [file.uri for file in storage.list_files(f"{uri}/run") if file.name.endswith("/state.json")]
    return max((storage.read_json(file) for file in files), key=lambda state: state["step"], default=None)


def curve(uri):
    """What was measured at which step, but for speed."""
    told = state_of(uri)["history"]
    return [{k: v for k, v in entry.items() if k != "tokens_per_second"} for entry in told]


def wait_for_checkpoint(uri, process, step):
    """Until a checkpoint of that step or a later one is there."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            state = state_of(uri)
        except (ValueError, OSError):  # not there yet, or being written
            state = None
        if state and state["step"] >= step:
            return
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    raise AssertionError("no checkpoint")


def test_the_adapter_directory(whole, tiny_model):
    """What extract needs is there, what a person wants to see too, and vLLM answers as the trained model does."""
    folder, output = whole
    adapter = folder / "adapter"
    assert "served = trained: 6 of 6 greedy answers identical" in output
    assert "step 20 of 30: dev F1" in output
    assert json.loads((adapter / "serving.json").read_text())["status"] == "agreed"
    assert (adapter / "chat_template.jinja").read_text() == (Path(tiny_model) / "chat_template.jinja").read_text()
    manifest = adapters.load(adapter).manifest
    assert manifest.format == "json"
    assert manifest.retrieval == ("none", "lexical")
    assert manifest.scores.keys() == {"dev span F1"}
    assert manifest.training_data
    assert json.loads((adapter / "adapter_config.json").read_text())["modules_to_save"] is None
    assert (adapter / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert "dev" in (adapter / "README.md").read_text()
    assert list((folder / "run" / "logs").glob("events*"))
    losses = [entry["loss"] for entry in curve(folder) if "loss" in entry]
    assert losses[-1] < losses[0]


def test_one_of_two_workers_on_two_nodes_is_killed_and_made_good(start, whole, monkeypatch):
    """Two workers share every step, each on a node of its own, their checkpoints in S3; kill -9 of one: all go on from the
    checkpoint, to the one worker's adapter.
    """
    with s3_server() as (endpoint, _):
        point_at(monkeypatch, endpoint)
        node = {"object_store_memory": 100 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **node})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, **node)
            uri = f"s3://{BUCKET}/nodes"
            monkeypatch.delenv(WATCHER)
            _, process = start("worker", "run.workers=2", storage=uri, RAY_ADDRESS=cluster.address)
            wait_for_checkpoint(uri, process, 10)
            below = psutil.Process().children(recursive=True)
            workers = [child for child in below if re.match(r"ray::.*RayTrainWorker", child.cmdline()[0])]
            raylets = {worker.ppid() for worker in workers}
            assert len(workers) == len(raylets) == 2
            workers[1].kill()
            output = process.communicate(timeout=600)[0]
            assert process.returncode == 0, output
            assert curve(uri) == curve(whole[0])
            assert weights(uri) == weights(whole[0])
        finally:
            cluster.shutdown()


def test_a_finished_run_is_not_trained_again(train, whole, tiny_model):
    """Killed between the last checkpoint and the adapter: the same command writes the adapter, and trains nothing."""
    folder, _ = whole
    before = state_of(folder)
    template = f"base.chat_template={tiny_model}/chat_template.jinja"
    _, code, output = train("whole", f"output={folder / 'again'}", template)
    assert code == 0, output
    assert state_of(folder) == before
    again = (folder / "again" / "adapter_model.safetensors").read_bytes()
    assert again == weights(folder)


def test_a_killed_driver_is_resumed_over_s3(start, whole, monkeypatch):
    """kill -9 of the driver, checkpoints and adapter in S3: the same command goes on, to the same adapter, byte for byte.

    On a Ray of its own, where none of Ray Train's processes is started that would have nothing to do.
    """
    with s3_server() as (endpoint, _):
        point_at(monkeypatch, endpoint)
        uri = f"s3://{BUCKET}/models"
        monkeypatch.delenv(WATCHER)
        _, process = start("driver", storage=uri)
        wait_for_checkpoint(uri, process, 10)
        below = psutil.Process(process.pid).children(recursive=True)
        actors = {name for child in below for name in child.cmdline()[:1] if name.startswith("ray::")}
        os.kill(process.pid, signal.SIGKILL)
        kill_session(process)
        assert any("RayTrainWorker" in name for name in actors)
        assert not [name for name in actors if re.search("DatasetManager|PreemptionWatcher|GroupCleaner", name)]
        before = state_of(uri)["step"]
        assert 10 <= before < STEPS
        _, process = start("driver", storage=uri)
        output = process.communicate(timeout=600)[0]
        assert process.returncode == 0, output
        assert curve(uri) == curve(whole[0])
        assert weights(uri) == weights(whole[0])


@pytest.mark.usefixtures("in_cluster")
def test_ctrl_c_keeps_the_last_checkpoint(start):
    """130, one line, and what was saved is there to go on from."""
    folder, process = start("interrupted", "optimiser.steps=5000", "evaluation.every=5000")
    wait_for_checkpoint(folder, process, 5)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert output.splitlines()[-1] == "interrupted; start the same command again: it goes on from what was saved"
    assert state_of(folder)["step"] >= 5


BROKEN = """
import importlib.util
import sys


def broken(*_, **__):
    raise LookupError("an invariant of ours does not hold")


class Breaking:
    def find_spec(self, name, path=None, target=None):
        if name != "safetensors.torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (load(module), setattr(module, "save_file", broken))
        return spec


sys.meta_path.insert(0, Breaking())
"""


@pytest.mark.usefixtures("in_cluster")
def test_a_bug_in_a_worker_shows_its_traceback(start, tmp_path):
    """Exit code 1, and where it was: a checkpoint that cannot be written for a reason no user can mend."""
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    of_workers = json.dumps({"runtime_env": {"env_vars": {"PYTHONPATH": path}}})
    overrides = ("optimiser.steps=1", "run.max_failures=0")
    _, process = start("bug", *overrides, RAY_JOB_CONFIG_JSON_ENV_VAR=of_workers)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 1, output
    assert "Traceback" in output
    assert "an invariant of ours does not hold" in output
    assert "save_checkpoint" in output
    assert "error:" not in output


def test_what_a_user_can_mend_is_one_line_from_a_worker_too(train):
    """A learning rate that makes the weights infinite: exit code 2, with the setting to change."""
    _, code, output = train("steep", "optimiser.learning_rate=1e30", "optimiser.steps=4", "run.max_failures=0")
    assert code == 2, output
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("error: the gradient of step 2 is not finite")
    assert "optimiser.learning_rate" in output.splitlines()[-1]


def test_a_failed_proof_costs_nothing_but_the_proof(train, random_model):
    """vLLM refuses more tokens than the model has positions for: the adapter is there, and is kept without a proof."""
    changes = (
        f"base.model={random_model}",
        "base.max_model_len=20000",
        "packing.tokens=20000",
        "gold.train=../dev.parquet",
        "optimiser.steps=1",
        "evaluation.examples=1",
    )
    folder, code, output = train("unproved", *changes, "serving.prompts=1")
    assert code == 1, output
    assert "Traceback" not in output
    assert "serving.prompts=0" in output.splitlines()[-1]
    proof = json.loads((folder / "adapter" / "serving.json").read_text())
    assert proof["status"] == "failed"
    assert "max_model_len" in proof["error"]
    before = weights(folder)
    _, code, output = train("unproved", *changes, "serving.prompts=0")
    assert code == 0, output
    assert weights(folder) == before
    assert json.loads((folder / "adapter" / "serving.json").read_text())["status"] == "skipped"


def weights(uri):
    """The adapter's weights as bytes."""
    return storage.read_bytes(f"{uri}/adapter/adapter_model.safetensors")
