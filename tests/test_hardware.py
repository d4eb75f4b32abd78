"""Numbers and threads follow the hardware: which CPUs compute bfloat16, and how cores are shared out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ner_batch.engine import device
from ner_batch.engine.settings import EngineConfig
from ner_batch.extraction import job
from ner_batch.extraction.recipe import Recipe, TaskRecipe
from ner_batch.extraction.settings import JobConfig
from ner_batch.jobs import cluster
from ner_batch.task import Task

HERE = Path(__file__).parent
ENGINE = EngineConfig(model="m")
TASK = Task.model_validate({"name": "t", "labels": ["NAME"]})
READS, SEARCHES = TaskRecipe(TASK, "json"), TaskRecipe(TASK, "json", index="i", encodes=True, k=4)


@pytest.mark.parametrize(
    ("line", "computes"),
    [
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f avx512_bf16", False),
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_bf16", True),
        ("flags\t\t: fpu sse2 avx2 amx_bf16", True),
        ("flags\t\t: fpu sse2 avx2 avx512f avx512bw avx512vl", False),
        ("flags\t\t: fpu sse2 avx2", False),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("Features\t: fp asimd", False),
        ("", False),
    ],
)
def test_which_cpus_compute_bfloat16(tmp_path, monkeypatch, line, computes):
    """Intel since AMX, AMD since AVX-512 BF16, Arm since v8.6; AVX-512 alone only emulates it."""
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: any\n{line}\n")
    monkeypatch.setattr(device, "Path", lambda _: tmp_path / "cpuinfo")
    assert device.cpu_computes_bfloat16.__wrapped__() is computes


@pytest.mark.ray
def test_a_cluster_without_gpus_yet(ray_address, monkeypatch, tmp_path):
    """With vLLM's build for CUDA a named cluster is to have some; a machine alone has what it has, and so has any with CPUs."""
    recipe = Recipe(EngineConfig(model="m", tensor_parallel_size=2), 512, ())

    def gpus(address):
        return job.resources(JobConfig(address=address), recipe)["num_gpus"]

    assert [gpus(None), gpus(ray_address)] == [0, 0]
    (tmp_path / "vllm-0.29.0.dist-info").mkdir()
    (tmp_path / "vllm-0.29.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.29.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [gpus(None), gpus(ray_address)] == [0, 2]


@pytest.mark.ray
def test_cores_are_shared_out(ray_address):
    """All of the machine's for one, half of them each for two, one at least; in a cluster that is named one."""
    assert [cluster.cpus_each(count, None) for count in (1, 2, 3)] == [2.0, 1.0, 1.0]
    assert cluster.cpus_each(1, ray_address) == 1.0


BESIDE_GPUS = """
import json, os, ray
from test_hardware import ENGINE, READS, SEARCHES
from ner_batch.extraction import job
from ner_batch.extraction.recipe import Recipe
from ner_batch.extraction.settings import JobConfig

ray.init(address="local", include_dashboard=False, num_cpus=9, num_gpus=2)
threads = ray.remote(lambda: os.environ["OMP_NUM_THREADS"])
options = [job.resources(JobConfig(), Recipe(ENGINE, 512, tasks)) for tasks in ((READS,), (READS, SEARCHES))]
print(json.dumps([options, [ray.get(threads.options(**of_replica).remote()) for of_replica in options]]))
"""


@pytest.mark.ray
def test_an_encoder_beside_gpus_has_their_share_of_the_cores():
    """Of nine cores and two GPUs a replica with one GPU takes four cores, and as many threads, where texts are encoded."""
    command = [sys.executable, "-c", BESIDE_GPUS]
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent)))}
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # a user's own stays
    done = subprocess.run(command, env=environment | paths, capture_output=True, text=True, check=True)
    reserved, threads = json.loads(done.stdout.splitlines()[-1])
    assert reserved == [{"num_cpus": 1.0, "num_gpus": 1.0}, {"num_cpus": 4.0, "num_gpus": 1.0}]
    assert threads == ["1", "4"]
