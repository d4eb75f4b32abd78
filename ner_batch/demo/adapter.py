"""The demo's LoRA adapter, trained by a plain script with transformers and peft on the project's own prompts.

Training texts are the synthetic train split with their names swapped for others of the split, so that the model meets
many more combinations than sentences. A share of the prompts carries demonstrations (the most similar
examples by character n-grams), so that the adapter answers with and without them.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Qwen3ForCausalLM

from ner_batch import adapter
from ner_batch.data import Entity, Example
from ner_batch.demo import learn, words
from ner_batch.demo.prompting import Prompting
from ner_batch.demo.tokenizer import common_characters
from ner_batch.prompt import PromptBuilder

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_CHARACTERS = common_characters()
_PART = re.compile("[A-Za-z]{4,}|[0-9]+")
Pools = dict[tuple[str, bool], list[str]]


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the training; ``mutated`` is the share of names of which a part is made random."""

    schedule: learn.Schedule
    mutated: float


# The first stage alone: F1 0.52 on held-out names, at a training loss of 0.15. What it had never seen it did not copy.
STAGES = (
    Stage(learn.Schedule(steps=2400, rate=3e-3), mutated=0.0),
    Stage(learn.Schedule(steps=1300, rate=2e-3), mutated=0.5),
)


@dataclass(frozen=True, slots=True)
class Lora:
    """How the adapter is trained. ``shown`` are the chances of 0, 1 and 2 demonstrations."""

    rank: int = 32
    alpha: int = 64
    stages: tuple[Stage, ...] = STAGES
    shown: tuple[float, float, float] = (0.85, 0.05, 0.1)
    swapped: float = 0.7
    pack_tokens: int = 1300
    seed: int = 2


def is_chinese(text: str) -> bool:
    """Whether a text has Chinese characters."""
    return any("\u4e00" <= c <= "\u9fff" for c in text)


def pools(examples: Sequence[Example]) -> Pools:
    """All surfaces of the examples by (type, whether the text is Chinese)."""
    found: Pools = defaultdict(list)
    for example in examples:
        for entity in example.entities:
            found[entity.type, is_chinese(example.text)].append(entity.text)
    return dict(found)


def mutate(surface: str, rng: random.Random) -> str:
    """A name with parts made random: Chinese characters, the beginnings of words, digits. Its shape and ending stay.

    So a model has to go by the shape, the ending and what stands around a name, and to copy what it has never seen.
    """
    characters = [rng.choice(_CHARACTERS) if is_chinese(c) and rng.random() < 0.35 else c for c in surface]
    return _PART.sub(lambda part: _random_part(part[0], rng), "".join(characters))


def _random_part(part: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return part
    if part.isdigit():
        return "".join(rng.choices("0123456789", k=len(part)))
    made = "".join(rng.choices(words.SYLLABLES, k=rng.choice((1, 2, 2))))
    return (made.capitalize() if part[0].isupper() else made) + part[4:]


def swap(example: Example, others: Pools, rng: random.Random, shares: tuple[float, float]) -> Example:
    """The example with a share of its names replaced by others of their type and language; equal names stay equal.

    ``shares`` are those of names that are replaced, and of names that are mutated.
    """
    new: dict[tuple[str, str], str] = {}
    text, last, entities = "", 0, []
    chinese = is_chinese(example.text)
    for entity in sorted(example.entities):
        if entity.start < last:  # nested in the one before, which may have changed
            return example
        other = rng.choice(others[entity.type, chinese]) if rng.random() < shares[0] else entity.text
        other = mutate(other, rng) if rng.random() < shares[1] else other
        surface = new.setdefault((entity.type, entity.text), other)
        text += example.text[last : entity.start]
        entities.append(Entity(len(text), len(text) + len(surface), entity.type, surface))
        text += surface
        last = entity.end
    return Example(example.id, text + example.text[last:], tuple(entities))


def batches(
    examples: Sequence[Example], neighbours: Sequence[Sequence[Example]], prompting: Prompting, config: Lora, stage: int
) -> Iterator[learn.Pack]:
    """Endless packs of swapped examples; all prompts of a pack have the same number of demonstrations.

    ``neighbours`` are the demonstrations of each example, nearest last, never itself; the nearest few are shown.
    """
    rng, others = random.Random(config.seed + stage), pools(examples)
    shares = (config.swapped, config.stages[stage].mutated)
    while True:
        (shown,) = rng.choices(range(len(config.shown)), config.shown)
        picked = rng.sample(range(len(examples)), 64)
        asked = [(swap(examples[i], others, rng, shares), neighbours[i][len(neighbours[i]) - shown :]) for i in picked]
        samples = [prompting.sample(example, near) for example, near in asked]
        yield from learn.packs(samples, config.pack_tokens, rng)


def train(
    base: Qwen3ForCausalLM, packs: Callable[[int], Iterator[learn.Pack]], config: Lora, report: Callable[[str], None]
) -> tuple[PeftModel, dict[str, float]]:
    """Train an adapter on a float32 base model; ``packs`` gives each stage's. Returns the PEFT model and its cost."""
    torch.manual_seed(config.seed)
    lora = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    used = {"seconds": 0.0, "tokens": 0.0}
    for number, stage in enumerate(config.stages):
        spent = learn.train(model.get_base_model().train(), packs(number), stage.schedule, report)
        used = {name: used[name] + spent[name] for name in used}
    return model.eval(), used


def save(model: PeftModel, folder: Path, base: Path, prompting: Prompting, scores: dict[str, float]) -> None:
    """Write PEFT's files and ``ner_batch.json``; the base model is named by its folder's name alone."""
    model.peft_config["default"].base_model_name_or_path = base.name
    model.save_pretrained(str(folder), save_embedding_layers=False)
    builder = PromptBuilder(prompting.form, prompting.task, prompting.chat, 4096)
    manifest = adapter.AdapterManifest(
        name="demo",
        format=prompting.form.NAME,
        task=prompting.task,
        prompt_fingerprint=builder.fingerprint(),
        base_model=base.name,
        base_fingerprint=adapter.model_fingerprint(str(base)),
        retrieval=("none", "lexical"),
        k=2,
        scores=scores,
        versions={name: version(name) for name in ("torch", "transformers", "peft")},
    )
    adapter.save_manifest(folder, manifest)
