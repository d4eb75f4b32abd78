"""The engine's settings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ner_batch.config import Config, Count, Uri, core_value


class EngineConfig(Config):
    """One vLLM engine per replica."""

    model: Uri
    """Local folder or hub name of the base model."""
    revision: str | None = None
    """Hub revision; pin it for runs that must be repeatable."""
    chat_template: Uri | None = None
    """A Jinja file or its text, for a base model that has none of its own, or in its place. Adapters that were trained
    with one have it among their files."""
    dtype: str = "auto"
    """Numbers of weights and activations; auto takes the model's own (bf16 mostly), on a CPU that does not compute
    bfloat16 float32."""
    quantization: str | None = None
    """vLLM's name of it (awq, fp8 ...); None reads the model's own config."""
    max_model_len: Count = 4096
    """Tokens of prompt plus answer. Demonstrations, window and answer must fit."""
    max_num_seqs: Count = 256
    """Sequences decoded together."""
    max_num_batched_tokens: Count | None = None
    """Tokens of one engine step; None: vLLM chooses."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the GPU that weights and KV cache may take."""
    tensor_parallel_size: Count = 1
    """GPUs that share one engine."""
    enforce_eager: bool = False
    """Skip CUDA graphs and compilation: starts faster, decodes slower."""
    max_lora_rank: Count = 64
    """Room for adapters; the job sets it from the adapter it serves."""
    max_loras: Count = 1
    """Adapters held on the device at once; the job makes room for all it serves."""
    cpu_kv_cache_gib: Count | None = None
    """CPU only: memory for the KV cache; None: a quarter of what is free, at least 1."""
    in_process: bool | None = None
    """Run vLLM's engine core in the replica's process. None: on CPU yes (starts in 2 s instead of 30), on GPU no."""
    max_in_flight: Count = 512
    """Prompts handed to vLLM at once; beyond `max_num_seqs`, so that it never drains."""
    start_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """An engine that is not ready after so long is taken for dead, a model that it fetches first included."""
    stall_seconds: Annotated[float, Field(gt=0)] = 600.0
    """An engine that returns nothing for so long with work in flight is taken for dead."""
    extra: Annotated[dict[str, Any], BeforeValidator(core_value)] = Field(default_factory=dict)
    """Passed to vLLM's EngineArgs as they are."""
