"""What a machine computes fast."""

from __future__ import annotations

import re
import shutil
from functools import cache
from pathlib import Path


def is_without_gpu() -> bool:
    """Whether nothing points to a GPU of NVIDIA or AMD: neither a device nor the driver's tool. torch is not asked."""
    return not (shutil.which("nvidia-smi") or any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists())


@cache
def cpu_computes_bfloat16() -> bool:
    """Whether products in bfloat16 are the faster ones on this CPU (AMX, AVX-512 BF16 of AMD, Arm's BF16).

    Without such instructions they take some fifty times as long as in float32: 1.2 against 59 GFLOP/s on a core with
    AVX2. Intel's AVX-512 BF16 without AMX has half the speed of float32 (158 against 300 GFLOP/s on two cores, 0.7 of
    it at 32 rows, with torch 2.13); AMD's has 2.4 times its speed (340 against 140 on two cores of an EPYC). PyTorch
    and vLLM choose bfloat16 all the same.
    """
    path = Path("/proc/cpuinfo")
    info = path.read_text() if path.is_file() else ""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", info, re.MULTILINE)
    flags = set(line[1].split()) if line else set()
    by_amd = "AuthenticAMD" in info
    return bool(flags & {"amx_bf16", "bf16"}) or (by_amd and "avx512_bf16" in flags)


def disable_cudnn_attention() -> None:
    """Let torch choose other kernels than cuDNN's for attention in this process, which it prefers on Hopper GPUs.

    Those are planned anew for every length that they have not met: 0.1 to 2 s on an H200, where the call then takes
    milliseconds, and hardly a row or batch of ours has the length of another. And with a mask their gradients are not
    finite where a length leaves 64 over 128 and a row's scores are far below zero, as in some heads of Qwen2.5 (torch
    2.11 to 2.13, pytorch/pytorch#196678); a training on Qwen2.5-0.5B ended in its ninth step.
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)
