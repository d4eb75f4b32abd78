"""Shared fixtures: a randomly initialised chat model, the tiny model, and one running engine.

The environment is set before anything imports vllm: its engine core runs in this process and starts in 2 s, not 30.
"""

from __future__ import annotations

import os
import signal
import sys

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Ray's workers run at nice 15: beside another test's engine they would hardly run at all.
    "RAY_worker_niceness": "0",
    # As jobs have it where they start Ray themselves.
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
    # As training has it where it starts Ray itself; 6 CPU-seconds a training. The test with nodes has it on.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ner_batch.engine.engine import Engine

ROOT = Path(__file__).parent.parent

# A shell ignores SIGINT for what it starts in the background; the command line sets it so too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# vLLM fills its cache with zeros, so every engine that is open has it in memory, and those of a session stay open: at
# 1 GiB each, the least that `cpu_kv_cache_gib` takes, five made a worker of 5.8 GB.
KV_CACHE = {"kv_cache_memory_bytes": 192 * 2**20}

from skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: E402, F401


def ray_runs() -> bool:
    """Whether this process has started or joined a Ray session; Ray is not imported to find out."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


# Files that take minutes go first (`--no-loadscope-reorder` keeps the order), so that two workers end together: with the
# longest last, one of them was alone for the last five minutes of a quarter of an hour.
LONGEST = (
    "test_train_job",
    "test_extract_faults",
    "test_extract_job",
    "test_jobs_run",
    "test_demo",
    "test_ablate_curve",
    "test_extract_tasks",
    "test_submit",
    "test_ablate",
    "test_extract_nodes",
    "test_api",
    "test_engine",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of the files."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))


@pytest.fixture(autouse=True)
def _ray_has_its_marker(request: pytest.FixtureRequest) -> Iterator[None]:
    """`make unit` starts no Ray: a test that does is marked."""
    ran_before = ray_runs()
    yield
    if not ran_before and ray_runs() and request.node.get_closest_marker("ray") is None:
        pytest.fail("this test starts Ray: mark it with @pytest.mark.ray")


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """The address of a Ray session that jobs of a test file may join, as they would a cluster.

    A session of its own takes a job some 12 CPU-seconds, as much as all that it does in a test.
    """
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def in_cluster(ray_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that a test starts join the test file's Ray session. Its workers have the environment of this process."""
    monkeypatch.setenv("RAY_ADDRESS", ray_address)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Qwen3 of two layers that has learned nothing."""
    from random_model import save_random_model

    path = tmp_path_factory.mktemp("random_model")
    save_random_model(path)
    return str(path)


@pytest.fixture(scope="session")
def tiny_model() -> str:
    """A base model of 3 million parameters that reads the sentences of its own gold: tests/data/tiny."""
    from tiny import BASE

    return str(BASE)


@pytest.fixture(scope="session")
def random_adapter(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], str]:
    """Makes LoRA adapters for a model, strong enough to change its answers: ``random_adapter(model, seed)``."""

    def make(model: str, seed: int) -> str:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(seed)
        layers = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
        config = LoraConfig(r=8, lora_alpha=64, target_modules=layers, init_lora_weights=False)
        path = tmp_path_factory.mktemp(f"adapter{seed}")
        get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(path)
        return str(path)

    return make


@pytest.fixture(scope="session")
def start_engine() -> Iterator[Callable[..., Engine]]:
    """Starts engines, ``start_engine(model, **config)``, and closes them at the end of the session."""
    from ner_batch.engine.engine import Engine
    from ner_batch.engine.settings import EngineConfig

    engines: list[Engine] = []

    def start(model: str, **changes: Any) -> Engine:
        small = {"dtype": "float32", "max_model_len": 2048, "max_num_seqs": 16, "max_num_batched_tokens": 2048}
        lora = {"max_loras": 2, "max_lora_rank": 64}
        config = EngineConfig(model=model, enforce_eager=True, extra=KV_CACHE, **(small | lora | changes))
        with pytest.MonkeyPatch.context() as environment:
            environment.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)  # GiB; it would overrule KV_CACHE
            engines.append(Engine(config))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


@pytest.fixture(scope="session")
def engine(tiny_model: str, start_engine: Callable[..., Engine]) -> Engine:
    """An engine on the tiny model that takes two adapters of rank 64 or less."""
    return start_engine(tiny_model)


@pytest.fixture(scope="session")
def random_engine(random_model: str, start_engine: Callable[..., Engine]) -> Engine:
    """An engine on the random model."""
    return start_engine(random_model)
