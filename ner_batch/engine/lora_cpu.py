"""Faster and right LoRA products for vLLM on a CPU.

vLLM's own (``vllm/lora/ops/torch_ops``, 0.26 to 0.32) copy an adapter's whole matrix for every token before they
multiply: two thirds of a step of the tiny model at rank 32. Here the rows of one adapter are multiplied at once. They
also read slot -1, a prompt without adapter, as the last adapter (vllm#48421); here it is none. CUDA has kernels of its
own, and nothing of this applies there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_NAMES = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")  # vLLM's sgmv_* for prefill call these


def install() -> bool:
    """Put the functions below into this process' vLLM; false where it has no functions of these names."""
    try:
        from vllm.lora.ops.torch_ops import lora_ops
        from vllm.lora.punica_wrapper import punica_cpu
    except ImportError:
        return False
    modules: tuple[Any, ...] = (lora_ops, punica_cpu)
    if not all(hasattr(module, name) for module in modules for name in _NAMES):
        return False
    for module in modules:
        for name in _NAMES:
            setattr(module, name, globals()[name])
    return True


def bgmv_shrink(inputs: Tensor, weights: Tensor, output: Tensor, slots: Tensor, scaling: float = 1.0) -> None:
    """Down to the rank: rows (n, in) and weights (slots, [1,] rank, in) into the first columns of ``output``."""
    outcome = products(inputs, weights, output, slots)
    output[:, : outcome.shape[1]] = scaling * outcome


def bgmv_expand(inputs: Tensor, weights: Tensor, output: Tensor, slots: Tensor, add_inputs: bool = True) -> None:
    """Up from the rank: into as many columns as both have, added or set."""
    width = min(weights.shape[-2], output.shape[1])
    bgmv_expand_slice(inputs, weights[..., :width, :], output, slots, 0, width, add_inputs)


def bgmv_expand_slice(
    inputs: Tensor, weights: Tensor, output: Tensor, slots: Tensor, offset: int, size: int, add_inputs: bool = True
) -> None:
    """The same into the columns from ``offset``, ``size`` of them."""
    place = output[:, offset : offset + size]
    outcome = products(inputs, weights, output, slots)[: len(output)]
    if add_inputs:
        place += outcome
    else:
        place.copy_(outcome)


def products(inputs: Tensor, weights: Tensor, like: Tensor, slots: Tensor) -> Tensor:
    """Every row times the matrix in its slot, in the numbers of ``like``: (n, out). Rows of slot -1 give zeros."""
    matrices = weights.squeeze(1) if weights.dim() == 4 else weights
    rows = inputs.to(like.dtype)
    used = slots.unique().tolist()
    if len(used) == 1 and used[0] >= 0:
        return rows @ matrices[used[0]].to(like.dtype).T
    outcome = rows.new_zeros(rows.shape[0], matrices.shape[1])
    for slot in used:
        if slot >= 0:
            here = slots == slot
            outcome[here] = rows[here] @ matrices[slot].to(like.dtype).T
    return outcome
