"""LoRA products on a CPU: vLLM's own results where those are right, none where there is no adapter."""

import copy

import pytest
import torch

from ner_batch.engine import lora_cpu

ops = pytest.importorskip("vllm.lora.ops.torch_ops.lora_ops")
THEIRS = {name: copy.copy(getattr(ops, name)) for name in lora_cpu._NAMES}  # before anything is installed


@pytest.fixture
def numbers():
    """Rows of 24 numbers, three adapters of rank 4 for 24 -> 10, two decimals apart."""
    make = torch.Generator().manual_seed(0)
    rows = torch.randn(17, 24, generator=make)
    down = torch.randn(3, 1, 4, 24, generator=make)
    up = torch.randn(3, 1, 10, 4, generator=make)
    return rows, down, up


@pytest.mark.parametrize("slots", [[0] * 17, [2] * 17, [n % 3 for n in range(17)]])
def test_the_same_as_vllms(numbers, slots):
    """One adapter, and several mixed: shrink, expand and expand into a slice."""
    if THEIRS["bgmv_shrink"] is lora_cpu.bgmv_shrink:
        pytest.skip("an engine in this process has installed ours already")
    rows, down, up = numbers
    slots = torch.tensor(slots)
    results = []
    for functions in (THEIRS, {name: getattr(lora_cpu, name) for name in lora_cpu._NAMES}):
        low, wide, slice_ = torch.zeros(17, 4), torch.ones(17, 12), torch.ones(17, 30)
        functions["bgmv_shrink"](rows, down, low, slots, 0.5)
        functions["bgmv_expand"](low, up, wide, slots, True)
        functions["bgmv_expand_slice"](low, up, slice_, slots, 7, 10, True)
        results.append((low, wide, slice_))
    for theirs, ours in zip(*results, strict=True):
        assert torch.allclose(theirs, ours, atol=1e-5)


def test_no_adapter_is_none(numbers):
    """Slot -1 adds nothing; vLLM's own would read the last adapter."""
    rows, down, up = numbers
    slots = torch.tensor([-1] * 5 + [1] * 12)
    low, wide = torch.zeros(17, 4), torch.zeros(17, 10)
    lora_cpu.bgmv_shrink(rows, down, low, slots)
    lora_cpu.bgmv_expand(low, up, wide, slots)
    assert not wide[:5].any()
    assert torch.allclose(wide[5:], rows[5:] @ down[1, 0].T @ up[1, 0].T, atol=1e-4)


def test_it_is_installed_where_vllm_has_the_names():
    """This vLLM has them; what prefill calls goes through them too."""
    assert lora_cpu.install()
    assert ops.bgmv_shrink is lora_cpu.bgmv_shrink
