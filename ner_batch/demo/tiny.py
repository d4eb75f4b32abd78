"""The recipe of the tiny base model: tokeniser, structured initialisation, curriculum, Qwen3 checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedModel, Qwen3ForCausalLM

from ner_batch.demo import curriculum, induction, learn, tokenizer
from ner_batch.prompts import formats
from ner_batch.prompts.chat import ChatTokenizer


@dataclass(frozen=True, slots=True)
class Base:
    """How the base model is made.

    Slow rates for the embeddings and the first two layers' attention keep the copying it is born with: at 0.3 and
    0.1 of the rate, random tokens were copied at 0.53 afterwards; at 0.1 and 0.01 at 0.91, with a higher loss.
    """

    shape: induction.Shape = field(default_factory=induction.Shape)
    mix: curriculum.Mix = field(default_factory=curriculum.Mix)
    schedule: learn.Schedule = field(
        default_factory=lambda: learn.Schedule(steps=3400, rate=2.5e-3, embeddings=0.2, circuit=0.03)
    )
    seed: int = 1


def build(out_dir: str | Path, config: Base, report: Callable[[str], None]) -> dict[str, float]:
    """Train the base model and write its directory; returns CPU-seconds, tokens and copy accuracy.

    The checkpoint is bfloat16 (6 MB); generation stops at ``<|im_end|>``.
    """
    words = tokenizer.build()
    chat = ChatTokenizer(words)
    shape = config.shape.config(
        len(words), words.convert_tokens_to_ids(tokenizer.END), words.convert_tokens_to_ids(tokenizer.PAD)
    )
    model = induction.initialised(shape, config.shape, config.seed)
    lessons = curriculum.Curriculum(formats.get("json"), chat, config.seed, config.mix)
    used = learn.train(model.train(), iter(lessons), config.schedule, report)
    model.eval().to(torch.bfloat16).save_pretrained(str(out_dir))
    words.save_pretrained(str(out_dir))
    return used | {f"copy_{length}": copy_accuracy(model.float(), length) for length in (60, 300, 1000)}


def load(folder: str | Path) -> Qwen3ForCausalLM:
    """The base model in float32, for training and for reference answers."""
    return Qwen3ForCausalLM.from_pretrained(str(folder), dtype=torch.float32)


def copy_accuracy(model: PreTrainedModel, length: int, rows: int = 4) -> float:
    """Share of tokens predicted rightly in the second half of a random sequence said twice (2 x ``length`` tokens)."""
    generator = torch.Generator().manual_seed(0)
    once = torch.randint(256, int(model.config.vocab_size) - 3, (rows, length), generator=generator)
    ids = torch.cat([once, once], dim=1)
    with torch.no_grad():
        logits = model(ids).logits
    predicted = logits[:, length:-1].argmax(-1)
    return float((predicted == ids[:, length + 1 :]).float().mean())
