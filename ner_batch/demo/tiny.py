"""The recipe of the tiny base model: tokeniser, structured initialisation, curriculum, Qwen3 checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedModel, Qwen3ForCausalLM

from ner_batch import formats
from ner_batch.chat import ChatTokenizer
from ner_batch.demo import curriculum, induction, learn, tokenizer


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the training: which lessons, and how fast they are learnt."""

    mix: curriculum.Mix
    schedule: learn.Schedule


# The first stage learns fast and wears down the copying the model was born with (0.97 to 0.71 of random tokens); the
# second learns on, and does not mend it (0.53; 0.88 on readable text). Lower rates on the circuit are the thing to try.
STAGES = (
    Stage(curriculum.Mix(), learn.Schedule(steps=1300, rate=2e-3, embeddings=0.3, circuit=0.1)),
    Stage(
        curriculum.Mix(copying=0.12, noticing=0.55),
        learn.Schedule(steps=1300, rate=1.2e-3, embeddings=0.5, circuit=0.2),
    ),
)


@dataclass(frozen=True, slots=True)
class Base:
    """How the base model is made."""

    shape: induction.Shape = field(default_factory=induction.Shape)
    stages: tuple[Stage, ...] = STAGES
    seed: int = 1


def build(out_dir: str | Path, config: Base, report: Callable[[str], None]) -> dict[str, float]:
    """Train the base model and write its directory; returns CPU-seconds, tokens and copy accuracy.

    The checkpoint is bfloat16 (5 MB); generation stops at ``<|im_end|>``. Weights are rounded to bfloat16 after every
    stage, so that a stage can be tried again from the files of the one before with the same outcome.
    """
    words = tokenizer.build()
    chat = ChatTokenizer(words)
    shape = config.shape.config(
        len(words), words.convert_tokens_to_ids(tokenizer.END), words.convert_tokens_to_ids(tokenizer.PAD)
    )
    model = induction.initialised(shape, config.shape, config.seed)
    used = {"seconds": 0.0, "tokens": 0.0}
    for number, stage in enumerate(config.stages):
        lessons = curriculum.Curriculum(formats.load("json"), chat, config.seed + number, stage.mix)
        spent = learn.train(model.train(), iter(lessons), stage.schedule, report)
        used = {name: used[name] + spent[name] for name in used}
        model = model.to(torch.bfloat16).float()
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
