"""Numbers and threads follow the hardware: which CPUs compute bfloat16, and how cores are shared out."""

import pytest

from ner_batch.engine import device
from ner_batch.engine.settings import EngineConfig
from ner_batch.extract import job
from ner_batch.extract.settings import JobConfig
from ner_batch.jobs import cluster


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
    engine = EngineConfig(model="m", tensor_parallel_size=2)

    def gpus(address):
        return job.resources(JobConfig(address=address), engine)["num_gpus"]

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
