"""The demo's LoRA adapter, trained by a plain script with transformers and peft on the project's own prompts.

Training texts are the synthetic train split with their names swapped for others of the split, so that the model meets
many more combinations than sentences. A share of the prompts carries demonstrations (the most similar
examples by character n-grams), so that the adapter answers with and without them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Qwen3ForCausalLM

from ner_batch import adapter
from ner_batch.data import Entity, Example
from ner_batch.demo import learn
from ner_batch.demo.prompting import Prompting
from ner_batch.prompt import PromptBuilder

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Pools = dict[tuple[str, bool], list[str]]


@dataclass(frozen=True, slots=True)
class Lora:
    """How the adapter is trained. ``shown`` are the chances of 0, 1 and 2 demonstrations."""

    rank: int = 32
    alpha: int = 64
    schedule: learn.Schedule = field(default_factory=lambda: learn.Schedule(steps=2400, rate=3e-3))
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


def swap(example: Example, others: Pools, rng: random.Random, share: float) -> Example:
    """The example with a share of its names replaced by others of their type and language; equal names stay equal."""
    new: dict[tuple[str, str], str] = {}
    text, last, entities = "", 0, []
    chinese = is_chinese(example.text)
    for entity in sorted(example.entities):
        if entity.start < last:  # nested in the one before, which may have changed
            return example
        other = rng.choice(others[entity.type, chinese]) if rng.random() < share else entity.text
        surface = new.setdefault((entity.type, entity.text), other)
        text += example.text[last : entity.start]
        entities.append(Entity(len(text), len(text) + len(surface), entity.type, surface))
        text += surface
        last = entity.end
    return Example(example.id, text + example.text[last:], tuple(entities))


def batches(
    examples: Sequence[Example], neighbours: Sequence[Sequence[Example]], prompting: Prompting, config: Lora
) -> Iterator[learn.Pack]:
    """Endless packs of swapped examples; all prompts of a pack have the same number of demonstrations.

    ``neighbours`` are the demonstrations of each example, nearest last, never itself; the nearest few are shown.
    """
    rng, others = random.Random(config.seed), pools(examples)
    while True:
        (shown,) = rng.choices(range(len(config.shown)), config.shown)
        picked = rng.sample(range(len(examples)), 64)
        asked = [
            (swap(examples[i], others, rng, config.swapped), neighbours[i][len(neighbours[i]) - shown :])
            for i in picked
        ]
        samples = [prompting.sample(example, near) for example, near in asked]
        yield from learn.packs(samples, config.pack_tokens, rng)


def train(
    base: Qwen3ForCausalLM, packs: Iterator[learn.Pack], config: Lora, report: Callable[[str], None]
) -> tuple[PeftModel, dict[str, float]]:
    """Train an adapter on a float32 base model; returns the PEFT model and what it cost."""
    torch.manual_seed(config.seed)
    lora = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    used = learn.train(model.get_base_model().train(), packs, config.schedule, report)
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
