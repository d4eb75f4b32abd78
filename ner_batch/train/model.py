"""The base model and its LoRA: checked, loaded, merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from ner_batch import adapter as adapters
from ner_batch.engine.device import cpu_computes_bfloat16, disable_cudnn_attention
from ner_batch.errors import UserError, first_line, require_extra
from ner_batch.io import copies, storage
from ner_batch.train import attention
from ner_batch.train.settings import BaseModelConfig, LoraSettings


def check_base(base: BaseModelConfig, lora: LoraSettings) -> None:
    """Raises UserError, one line, where the base cannot be adapted as configured; looks at its config alone."""
    place = f"base.model: {base.model}"
    try:
        config = AutoConfig.from_pretrained(base.model, revision=base.revision)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise UserError(f"{place}: {first_line(error)}") from None
    text = config.get_text_config()  # of a multimodal model attention is described there
    if getattr(text, "attn_logit_softcapping", None):
        raise UserError(f"{place}: caps attention logits, which packed rows do not; choose another")
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    if window and window < base.max_model_len:
        raise UserError(f"base.max_model_len={base.max_model_len}: {base.model} looks back {window} tokens; lower it")
    chunk = getattr(text, "attention_chunk_size", None)
    if chunk and chunk < base.max_model_len:
        raise UserError(f"base.max_model_len={base.max_model_len}: {base.model} attends in chunks of {chunk}; lower it")
    try:
        attention.check_packing(config)
    except ValueError as error:
        raise UserError(
            f"{place}: {config.model_type} cannot be trained in packed rows: {error}; choose another"
        ) from None
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    missing = [target for target in lora.targets if target not in linear]
    if missing:
        possible = ", ".join(sorted(linear - {"lm_head"}))
        raise UserError(f"lora.targets: no {', '.join(missing)} in {base.model}; there are {possible}")


def computes_bfloat16(base: BaseModelConfig, device: torch.device) -> bool:
    """Whether the products of a training are in bfloat16 (autocast).

    ``auto``: where the device computes it fast, or the frozen weights are bfloat16: torch multiplies these with nothing
    else.
    """
    if base.compute != "auto":
        return base.compute == "bfloat16"
    return device.type == "cuda" or cpu_computes_bfloat16() or base.dtype == "bfloat16"


def load(base: BaseModelConfig, lora: LoraSettings, device: torch.device, seed: int) -> PeftModel:
    """The frozen base with fresh LoRA weights (float32) in it, packed attention on.

    Raises UserError where 4 bits are asked for and bitsandbytes is not installed here, where the worker runs.
    """
    torch.manual_seed(seed)
    disable_cudnn_attention()
    auto = "bfloat16" if device.type == "cuda" and base.compute != "float32" else "float32"
    dtype = auto if base.dtype == "auto" else base.dtype
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if base.quantization:
        require_extra("qlora", purpose=f"base.quantization={base.quantization}")
        options["device_map"] = {"": device}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(base.model, revision=base.revision, **options)
    if base.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    if not base.quantization:
        model = model.to(device)
    peft = get_peft_model(model, lora_config(lora))
    if lora.init:
        set_peft_model_state_dict(peft, load_file(Path(copies.fetched(lora.init)) / adapters.WEIGHTS))
    peft.get_base_model().set_attn_implementation(attention.NAME)
    return peft


def lora_config(lora: LoraSettings) -> LoraConfig:
    """PEFT's config: LoRA on linear maps alone, so that vLLM serves it."""
    size: dict[str, Any] = {"r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    return LoraConfig(**size, target_modules=sorted(lora.targets), task_type="CAUSAL_LM")


def weights(model: PeftModel) -> dict[str, Tensor]:
    """The LoRA weights, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in get_peft_model_state_dict(model).items()}


def merge(path: str | Path, folder: str | Path, base: str | None = None) -> None:
    """Write ``base`` (by default the one the adapter names) with the adapter merged in, and its tokenizer, to a folder.

    The merge is done in float32 and rounded once to the base's dtype. A UserError, one line, where there is no such
    adapter, it was trained on another base, or the folder is taken.
    """
    if "://" in str(folder):
        raise UserError(f"{folder}: the merged model is written to a local folder")
    out = Path(folder)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out}: exists: name another folder, or remove it")
    storage.check_writable(str(out))
    adapter = adapters.load(path)
    trained = adapter.manifest
    name = base or (trained.base_model if trained else None)
    if name is None:
        raise UserError(f"{adapter.uri}: carries no ner_batch.json: name its base model with --base")
    revision = trained.base_revision if trained and not Path(name).is_dir() else None
    if trained and adapters.model_fingerprint(name, revision) != trained.base_fingerprint:
        raise UserError(f"{adapter.uri}: was trained on {trained.base_model}, {name} is another model")
    try:
        model = AutoModelForCausalLM.from_pretrained(name, revision=revision, use_safetensors=True)
    except OSError as error:
        raise UserError(f"base model {name}: {first_line(error)}: say where it lies with --base") from None
    adapters.check_weights(adapter, name, {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()})
    dtype = model.dtype
    merged = PeftModel.from_pretrained(model.float(), str(adapter.path)).merge_and_unload()
    merged.to(dtype).save_pretrained(str(out))
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    if (template := adapter.path / adapters.CHAT_TEMPLATE).is_file():
        tokenizer.chat_template = template.read_text(encoding="utf-8")
    tokenizer.save_pretrained(str(out))
