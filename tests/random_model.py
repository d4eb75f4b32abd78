"""Tokenizers and a model that tests make on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CHATML = """
{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"""
SAMPLE = "The system user and the assistant met Anna in Berlin on Monday. 张三在北京大学学习,李四住在上海。"


def byte_level(special: list[str], added: list[str], template: str, **names: Any) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer like Qwen's and Llama 3's, trained on one line. ``added`` tokens are not special."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([SAMPLE] * 9, trainer)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    backend.add_tokens([AddedToken(token, normalized=False) for token in added])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.chat_template = template
    return tokenizer


def chatml_tokenizer() -> PreTrainedTokenizerFast:
    """Qwen3's arrangement: chat marks are special, ``<think>`` is added but not special."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return byte_level(special, ["<think>", "</think>", "<tool_call>"], CHATML, eos_token="<|im_end|>")


def save_random_model(path: Path, tied: bool = True) -> None:
    """A Qwen3 of two layers that has learned nothing, with the ChatML tokenizer; ``tied``: embeddings are the output layer."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = chatml_tokenizer()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=16384,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
