"""Adapters by trainer: what PEFT, TRL, LLaMA-Factory, Unsloth and axolotl write, and what becomes of it.

The fields are those of adapters that people have published; weights are zeros of the names and shapes of a tiny base.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from ner_batch import adapter

RANK, WIDTH = 4, 32
LAYER = "model.layers.0.self_attn.q_proj"

# What PEFT has written into adapter_config.json over the years. 0.4 of summer 2023:
PEFT_4: dict[str, Any] = {
    "auto_mapping": None,
    "base_model_name_or_path": "meta-llama/Llama-2-7b-hf",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layers_pattern": None,
    "layers_to_transform": None,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": RANK,
    "revision": None,
    "target_modules": ["q_proj"],
    "task_type": "CAUSAL_LM",
}
PEFT_12 = PEFT_4 | {
    "alpha_pattern": {},
    "layer_replication": None,
    "loftq_config": {},
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "rank_pattern": {},
    "use_dora": False,
    "use_rslora": False,
}
PEFT_15 = PEFT_12 | {
    "corda_config": None,
    "eva_config": None,
    "exclude_modules": None,
    "lora_bias": False,
    "trainable_token_indices": None,
}
PEFT_18 = PEFT_15 | {
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "ensure_weight_tying": False,
    "peft_version": "0.18.1",
    "qalora_group_size": 16,
    "target_parameters": None,
    "use_qalora": False,
}
PEFT_21 = PEFT_18 | {
    "kasa_config": None,
    "lora_ga_config": None,
    "monteclora_config": None,
    "peft_version": "0.21.2",
    "use_bdlora": None,
    "velora_config": None,
}
# Unsloth's FastModel names layers by a pattern, and itself in auto_mapping.
UNSLOTH_PATTERN = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:q_proj|v_proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\.(?:(?:q_proj|v_proj)))"
)
UNSLOTH_CLASS = {
    "base_model_class": "Gemma3ForConditionalGeneration",
    "parent_library": "transformers.models.gemma3.modeling_gemma3",
    "unsloth_fixed": True,
}


def save(folder: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]] | None = None) -> Path:
    """An adapter directory; by default with the weights of one layer, as PEFT names them."""
    folder.mkdir()
    (folder / adapter.CONFIG).write_text(json.dumps(config))
    shapes = shapes or lora(f"base_model.model.{LAYER}")
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, folder / adapter.WEIGHTS)
    return folder


def lora(module: str, out: int = WIDTH) -> dict[str, tuple[int, ...]]:
    return {f"{module}.lora_A.weight": (RANK, WIDTH), f"{module}.lora_B.weight": (out, RANK)}


SERVED = {
    "PEFT 0.4": PEFT_4,
    "PEFT 0.12": PEFT_12,
    "PEFT 0.15": PEFT_15,
    "PEFT 0.18": PEFT_18,
    "PEFT 0.21": PEFT_21,
    "PEFT, of a custom class": PEFT_12 | {"task_type": None, "auto_mapping": {"base_model_class": "Qwen2ForCausalLM"}},
    "PEFT, some layers": PEFT_18 | {"layers_to_transform": [16, 17], "layers_pattern": "layers"},
    "PEFT, without some modules": PEFT_18 | {"exclude_modules": ["lm_head"]},
    "PEFT, EVA": PEFT_18 | {"init_lora_weights": "eva", "eva_config": {"rho": 1.0, "tau": 0.99}},
    "TRL, SFTTrainer": PEFT_18 | {"base_model_name_or_path": "google/gemma-2-9b-it", "modules_to_save": None},
    "TRL, QLoRA of all-linear": PEFT_18 | {"target_modules": ["q_proj", "down_proj", "o_proj"], "lora_dropout": 0.1},
    "LLaMA-Factory, lora_target: all": PEFT_12 | {"base_model_name_or_path": "/root/models/glm-4-9b-chat"},
    "LLaMA-Factory, a vision tower frozen": PEFT_18 | {"target_modules": "^(?!.*visual).*(?:q_proj|v_proj).*"},
    "LLaMA-Factory, use_rslora": PEFT_15 | {"use_rslora": True, "inference_mode": False},
    "Unsloth, a base in 4 bits": PEFT_15
    | {"base_model_name_or_path": "unsloth/qwen2.5-7b-instruct-unsloth-bnb-4bit", "lora_dropout": 0},
    "Unsloth, FastModel": PEFT_21 | {"target_modules": UNSLOTH_PATTERN, "auto_mapping": UNSLOTH_CLASS},
    "axolotl, lora": PEFT_12 | {"fan_in_fan_out": None, "base_model_name_or_path": "NousResearch/Llama-3.2-1B"},
    "axolotl, peft_layers_to_transform": PEFT_18 | {"fan_in_fan_out": None, "layers_to_transform": [0, 1]},
}


@pytest.mark.parametrize("name", SERVED)
def test_what_trainers_write_is_served(tmp_path: Path, name: str) -> None:
    """Fields of any age, empty ones of newer kinds of LoRA, patterns of names, quantised bases, nothing at all in them."""
    loaded = adapter.load(save(tmp_path / "adapter", SERVED[name]))
    assert (loaded.rank, loaded.manifest) == (RANK, None)
    adapter.check_weights(loaded, "base", {f"{LAYER}.weight": (WIDTH, WIDTH)})
    adapter.check_weights(loaded, "base in 4 bits", {f"{LAYER}.weight": (WIDTH * WIDTH // 2, 1)})


REFUSED = {
    # SFTTrainer's chat_template_path adds the template's tokens, and trains them and the output layer.
    "TRL, chat_template_path": (
        {"trainable_token_indices": {"embed_tokens": [151669]}, "modules_to_save": ["lm_head"]},
        "modules_to_save is",
    ),
    "TRL, a reward model": ({"task_type": "SEQ_CLS", "modules_to_save": ["score"]}, "modules_to_save is"),
    "LLaMA-Factory, resize_vocab": ({"modules_to_save": ["lm_head", "embed_tokens"]}, "modules_to_save is"),
    "LLaMA-Factory, additional_target": ({"modules_to_save": ["embed_tokens"]}, "modules_to_save is"),
    "LLaMA-Factory, use_dora": ({"use_dora": True}, "use_dora is True"),
    "LLaMA-Factory, finetuning_type: oft": ({"peft_type": "OFT"}, "peft_type is 'OFT'"),
    "LLaMA-Factory, pissa_init": ({"init_lora_weights": "pissa_niter_16"}, "path_initial_model_for_weight_conversion"),
    "Unsloth, embed_tokens among target_modules": ({"modules_to_save": ["embed_tokens"]}, "modules_to_save is"),
    "Unsloth, loftq": ({"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, "which changed the base"),
    "axolotl, lora_modules_to_save": ({"modules_to_save": ["embed_tokens", "lm_head"]}, "modules_to_save is"),
    "axolotl, peft_use_dora": ({"use_dora": True, "fan_in_fan_out": None}, "use_dora is True"),
    "axolotl, peft_layer_replication": ({"layer_replication": [[0, 8], [4, 12]]}, "layer_replication is"),
    "axolotl, lora_target_parameters": ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters is"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_trainers_write_and_nobody_serves_is_refused(tmp_path: Path, name: str) -> None:
    """One line with the field, and a way out for those who cannot train again."""
    changes, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as error:
        adapter.load(save(tmp_path / "adapter", PEFT_18 | changes))
    assert "\n" not in str(error.value)
    if " is [" in words:
        assert "merge_and_unload" in str(error.value)


NAMES = {
    "torch.compile's wrapper around all": (lora(f"_orig_mod.base_model.model.{LAYER}"), "take _orig_mod. out"),
    "torch.compile's wrapper inside": (lora(f"base_model.model._orig_mod.{LAYER}"), "take _orig_mod. out"),
    "FSDP's wrapper, of recomputed layers": (
        lora(f"base_model.model.{LAYER.replace('self_attn', '_checkpoint_wrapped_module.self_attn')}"),
        "take _checkpoint_wrapped_module. out",
    ),
    "a state of the training, with the adapter's name": (
        {f"base_model.model.{LAYER}.lora_A.default.weight": (RANK, WIDTH)},
        "only LoRA's A and B",
    ),
    "a process's share of ZeRO-3": (
        {f"base_model.model.{LAYER}.lora_{part}.weight": (0,) for part in "AB"},
        "is empty, a process's share of DeepSpeed's ZeRO-3",
    ),
    "embeddings saved along": (
        lora(f"base_model.model.{LAYER}") | {"base_model.model.model.embed_tokens.weight": (64, WIDTH)},
        "save_embedding_layers=False",
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_an_engine_would_not_find_are_refused(tmp_path: Path, name: str) -> None:
    """Each comes of a way to train in parts or compiled; vLLM or PEFT would load nothing of it, without an error."""
    shapes, words = NAMES[name]
    folder = save(tmp_path / "adapter", PEFT_18, shapes)
    with pytest.raises(ValueError, match=words) as error:
        adapter.load(folder)
    assert "\n" not in str(error.value)


def test_a_language_model_inside_of_another_has_two_names(tmp_path: Path) -> None:
    """Gemma 3's files say language_model.model, an adapter trained since transformers 4.52 says model.language_model.

    vLLM turns the one into the other. On a base that is a language model alone either would be passed over.
    """
    inside = save(tmp_path / "inside", PEFT_21, lora(f"base_model.model.model.language_model.{LAYER[6:]}"))
    outside = save(tmp_path / "outside", PEFT_21)
    shape = {"weight": (WIDTH, WIDTH)}
    for base in ("language_model.model", "model.language_model"):
        shapes = {f"{base}.{LAYER[6:]}.{name}": value for name, value in shape.items()}
        adapter.check_weights(adapter.load(inside), base, shapes)
        with pytest.raises(ValueError, match="which the base does not have"):
            adapter.check_weights(adapter.load(outside), base, shapes)
    with pytest.raises(ValueError, match="which the base does not have"):
        adapter.check_weights(adapter.load(inside), "text alone", {f"{LAYER}.weight": (WIDTH, WIDTH)})
    with pytest.raises(ValueError, match="maps 32 to 32 numbers"):
        adapter.check_weights(
            adapter.load(inside), "wider", {f"language_model.model.{LAYER[6:]}.weight": (2 * WIDTH, WIDTH)}
        )


@pytest.fixture
def base() -> PreTrainedModel:
    """A Llama of one layer."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 1}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2))


def test_pissa_is_served_once_it_is_converted(tmp_path: Path, base: PreTrainedModel) -> None:
    """The way out that the message names works: PEFT writes plain LoRA of twice the rank, for the base as it was."""
    model = get_peft_model(base, LoraConfig(r=RANK, target_modules=["q_proj"], init_lora_weights="pissa"))
    start = tmp_path / "start"
    model.peft_config["default"].init_lora_weights = True  # PEFT's documentation does so before it saves the start
    model.save_pretrained(str(start))
    model.peft_config["default"].init_lora_weights = "pissa"
    model.save_pretrained(str(tmp_path / "own"))
    with pytest.raises(ValueError, match="init_lora_weights is 'pissa'"):
        adapter.load(tmp_path / "own")
    model.save_pretrained(str(tmp_path / "plain"), path_initial_model_for_weight_conversion=str(start))
    assert adapter.load(tmp_path / "plain").rank == 2 * RANK


def test_embeddings_that_peft_saves_along(tmp_path: Path, base: PreTrainedModel) -> None:
    """It does so for an adapted output layer; without them the adapter is served, as the message says."""
    model = get_peft_model(base, LoraConfig(r=RANK, target_modules=["q_proj", "lm_head"]))
    model.save_pretrained(str(tmp_path / "whole"))
    with pytest.raises(ValueError, match="save_embedding_layers=False"):
        adapter.load(tmp_path / "whole")
    model.save_pretrained(str(tmp_path / "lean"), save_embedding_layers=False)
    assert adapter.load(tmp_path / "lean").targets == ("lm_head", "q_proj")
