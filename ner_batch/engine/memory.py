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
_QUANTIZED_BITS = {
    **dict.fromkeys(("awq", "awq_marlin", "gptq", "gptq_marlin", "bitsandbytes", "mxfp4", "modelopt_fp4"), 4),
    **dict.fromkeys(("fp8", "fbgemm_fp8", "compressed-tensors", "modelopt", "experts_int8"), 8),
}
"""Bits of a weight by vLLM's names of quantizations, where the model's own config does not say them."""
_SCALE_BITS = 0.5  # of fewer bits than eight: a scale and a zero for each group of weights


@dataclass(frozen=True, slots=True)
class MemoryNeeds:
    """Bytes on each GPU of one engine. ``workspace`` (activations, logits, context, graphs) is an estimate.

    ``parameters`` counts the whole model's; ``kv_per_token`` is what layers that look back to the first token take, so
    more than sliding windows do.
    """

    parameters: int
    weights: float
    adapters: float
    workspace: float
    kv_per_token: float

    def kv_tokens(self, budget: float) -> int:
        """Tokens of KV cache in a budget of bytes (the GPU's memory times `gpu_memory_utilization`); 0: none fit."""
        return max(0, int((budget - self.weights - self.adapters - self.workspace) / self.kv_per_token))


def memory_needs(engine: EngineConfig, *, on_gpu: bool = True) -> MemoryNeeds:
    """The memory of an engine with these settings, with room for its adapters.

    Args:
        engine: the engine's section of a config.
        on_gpu: whether a GPU is computed for, where `auto` means 16 bits whatever the files hold.

    Raises:
        UserError: there is no arithmetic for this model: its config cannot be read, or is of a kind of its own.
    """
    import torch
    from transformers import AutoConfig

    trusted = bool(engine.extra.get("trust_remote_code", False))
    try:
        config = AutoConfig.from_pretrained(engine.model, revision=engine.revision, trust_remote_code=trusted)
        quantized = getattr(config, "quantization_config", None) or {}
        config.quantization_config = None  # the plain model's maps are counted
        model = _without_weights(config, trusted)
        text = config.get_text_config()
        width = _bytes_per_number(engine, on_gpu)
        kv_per_token = _kv_numbers(text, engine.tensor_parallel_size)
        workspace = _workspace(engine, text, width)
        map_bytes = _bytes_of_a_map(engine.quantization, quantized, width)
    except UserError:
        raise
    except Exception as error:  # configs of many authors, and what transformers makes of them
        raise UserError(f"engine.model {engine.model}: its memory cannot be computed: {first_line(error)}") from error
    ends = {id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module}
    weights = {id(weight): weight for weight in model.parameters()}
    parameters = sum(weight.numel() for weight in weights.values())
    in_maps = sum(w.numel() for number, w in weights.items() if w.dim() > 1 and number not in ends)
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and id(m.weight) not in ends]
    rows_of_lora = sum(module.in_features + module.out_features for module in linear)
    kv_width = 1 if str(engine.extra.get("kv_cache_dtype", "auto")).startswith("fp8") else width
    return MemoryNeeds(
        parameters=parameters,
        weights=(in_maps * map_bytes + (parameters - in_maps) * width) / engine.tensor_parallel_size,
        adapters=engine.max_loras * engine.max_lora_rank * rows_of_lora * width / engine.tensor_parallel_size,
        workspace=workspace,
        kv_per_token=kv_per_token * kv_width,
    )


def _without_weights(config: Any, trusted: bool) -> Any:
    """The config's language model, or its model of text and images, on no device."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    with torch.device("meta"):
        try:
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
        except ValueError:
            return AutoModelForImageTextToText.from_config(config, trust_remote_code=trusted)


def _bytes_of_a_map(name: str | None, quantized: Any, width: int) -> float:
    """Of a weight of a linear map; ``quantized`` is the model's config's section, ``name`` the engine's setting."""
    section = quantized if isinstance(quantized, dict) else {}
    name = name or section.get("quant_method") or (quantized if isinstance(quantized, str) else None)
    if name is None:
        return width
    groups = section.get("config_groups")
    in_groups = [group["weights"]["num_bits"] for group in groups.values()] if isinstance(groups, dict) else []
    in_groups += [8] if section.get("load_in_8bit") else []
    default = max(in_groups, default=_QUANTIZED_BITS.get(name))
    bits = section.get("bits") or section.get("w_bit") or default
    if bits is None:
        raise UserError(f"engine.quantization {name}: how many bits a weight takes is not known here")
    return float(bits + (_SCALE_BITS if bits < 8 else 0)) / 8


def _kv_numbers(text: Any, shared: int) -> float:
    """Numbers that the cache holds for a token on each of ``shared`` GPUs, at most: some layers may look back less."""
    kinds = getattr(text, "layer_types", None) or []
    stateless = sum("linear" in kind or "mamba" in kind or "conv" in kind for kind in kinds)
    layers = text.num_hidden_layers - stateless
    if latent := getattr(text, "kv_lora_rank", None):  # DeepSeek's latent attention; each GPU holds all of it
        return float(layers * (latent + text.qk_rope_head_dim))
    heads = 1 if getattr(text, "multi_query", False) else getattr(text, "num_key_value_heads", None)
    heads = heads or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return float(2 * layers * max(1.0, heads / shared) * size)


def _bytes_per_number(engine: EngineConfig, on_gpu: bool) -> int:
    """Of weights and activations."""
    narrow_cpu = not on_gpu and not cpu_computes_bfloat16()
    return 4 if engine.dtype in {"float32", "float"} or (engine.dtype == "auto" and narrow_cpu) else 2


def _workspace(engine: EngineConfig, text: Any, width: int) -> float:
    """An estimate of what is neither weights nor cache."""
    tokens = engine.max_num_batched_tokens or STEP_TOKENS
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    widest = max(inner) if isinstance(inner, list | tuple) else inner
    activations = tokens * (6 * text.hidden_size + 3 * widest) * width
    logits = engine.max_num_seqs * text.vocab_size * _LOGIT_BYTES
    return float(activations + logits + CONTEXT_BYTES + (0 if engine.enforce_eager else GRAPH_BYTES))
