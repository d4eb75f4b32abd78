"""What an engine takes of a GPU's memory, by arithmetic on the model's config: no weights and no GPU are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ner_batch.engine.device import cpu_computes_bfloat16
from ner_batch.engine.settings import EngineConfig
from ner_batch.errors import UserError, first_line

GIB = 2**30
CONTEXT_BYTES = 0.6 * GIB  # CUDA's context and libraries, before any tensor
GRAPH_BYTES = 0.8 * GIB  # CUDA graphs and compiled kernels, where `enforce_eager` is off
STEP_TOKENS = 8192  # of one engine step, where `max_num_batched_tokens` leaves it to vLLM
_LOGIT_BYTES = 10  # a word of the vocabulary and sequence: logits in 16 bits, in 32 for sampling, and sorted once
_QUANTIZED_BYTES = {"fp8": 1.0, "awq": 0.57, "gptq": 0.57, "bitsandbytes": 0.57, "compressed-tensors": 1.0}
"""Bytes of a weight of a linear map, scales included; of four bits in groups of 128, or of eight."""


@dataclass(frozen=True, slots=True)
class MemoryNeeds:
    """Bytes on each GPU of one engine. ``workspace`` (activations, logits, context, graphs) is an estimate.

    ``parameters`` counts the whole model's; ``kv_per_token`` holds for models that attend everywhere, and is more than
    sliding windows or latent attention take.
    """

    parameters: int
    weights: float
    adapters: float
    workspace: float
    kv_per_token: float

    def kv_tokens(self, budget: float) -> int:
        """Tokens of KV cache in a budget of bytes (the GPU's memory times `gpu_memory_utilization`); 0: none fit."""
        return max(0, int((budget - self.weights - self.adapters - self.workspace) / self.kv_per_token))


def memory_needs(engine: EngineConfig) -> MemoryNeeds:
    """The memory of an engine with these settings, with room for its adapters.

    Raises:
        UserError: the model has no config that can be read, or one of no known architecture.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(engine.model, revision=engine.revision)
        quantization = engine.quantization or (getattr(config, "quantization_config", None) or {}).get("quant_method")
        config.quantization_config = None  # the plain model's maps are counted
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"engine.model {engine.model}: its memory cannot be computed: {first_line(error)}") from error
    text = config.get_text_config()
    width = _bytes_per_number(engine)
    head = model.get_output_embeddings()
    maps = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    in_maps = sum(linear.weight.numel() for linear in maps)
    of_map = _QUANTIZED_BYTES.get(quantization or "", width)
    rows_of_lora = sum(linear.in_features + linear.out_features for linear in maps)
    lora = engine.max_loras * engine.max_lora_rank * rows_of_lora * width
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    kv_width = 1 if str(engine.extra.get("kv_cache_dtype", "auto")).startswith("fp8") else width
    shared = engine.tensor_parallel_size
    return MemoryNeeds(
        parameters=parameters,
        weights=(in_maps * of_map + (parameters - in_maps) * width) / shared,
        adapters=lora / shared,
        workspace=_workspace(engine, text, width),
        kv_per_token=2 * text.num_hidden_layers * heads * head_width * kv_width / shared,
    )


def _bytes_per_number(engine: EngineConfig) -> int:
    """Of weights and activations: vLLM's `auto` is of 16 bits on a GPU, whatever the files hold."""
    import torch

    narrow_cpu = not torch.cuda.is_available() and not cpu_computes_bfloat16()
    return 4 if engine.dtype in {"float32", "float"} or (engine.dtype == "auto" and narrow_cpu) else 2


def _workspace(engine: EngineConfig, text: Any, width: int) -> float:
    """An estimate of what is neither weights nor cache."""
    tokens = engine.max_num_batched_tokens or STEP_TOKENS
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    activations = tokens * (6 * text.hidden_size + 3 * inner) * width
    logits = engine.max_num_seqs * text.vocab_size * _LOGIT_BYTES
    return float(activations + logits + CONTEXT_BYTES + (0 if engine.enforce_eager else GRAPH_BYTES))
