"""The recipe of the tiny model: initialisation copies, and a short run gives loadable files, again the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ner_batch.config import load
from ner_batch.demo import augment, build, curriculum, induction, recipe, tiny, tokenizer
from ner_batch.prompts import formats
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.train.settings import TrainConfig

WORDS = tokenizer.build()
CHAT = ChatTokenizer(WORDS)
SHAPE = induction.Shape()


@pytest.fixture(scope="module")
def untrained() -> torch.nn.Module:
    config = SHAPE.config(len(WORDS), WORDS.eos_token_id, WORDS.pad_token_id)
    return induction.initialised(config, SHAPE, seed=0).eval()


def test_initialisation_copies(untrained: torch.nn.Module) -> None:
    """Without any training a repeated random sequence is continued rightly most of the time."""
    assert tiny.copy_accuracy(untrained, 60) > 0.8


def test_mutated_names_keep_their_length_of_words() -> None:
    """Parts of a name become random; what is left shows its kind, and the same seed gives the same."""
    rng, names = random.Random(0), ("Rosa Norovic", "紫电G488手表", "1993-04-10", "Lake Kest")
    made = [[augment.mutate(name, rng) for name in names] for _ in range(50)]
    assert len({x[0] for x in made}) > 10
    assert all(len(a.split()) == len(b.split()) for row in made for a, b in zip(row, names, strict=True))
    assert all(row[2].count("-") == 2 for row in made)


def test_curriculum_does_not_teach_the_task() -> None:
    """No lesson asks for a type of the demo by its definition, and lessons repeat with the seed."""
    lessons = curriculum.Curriculum(formats.get("json"), CHAT, 0)
    drawn = iter(lessons)
    texts = [CHAT.decode(next(drawn).ids) for _ in range(40)]
    again = iter(lessons)
    assert [CHAT.decode(next(again).ids) for _ in range(40)] == texts
    task = build.task()
    assert not any(f"{label}: {task.definition(label)}" in text for label in task.names for text in texts)


def test_the_jobs_config_is_the_recipe() -> None:
    """jobs/train.yaml is the demo's recipe with fewer steps and paths of its own."""
    files = {"train": Path("demo-output/gold/train.parquet"), "dev": Path("demo-output/gold/dev.parquet")}
    wanted = recipe.adapter(recipe.BASE, files, Path("demo-output/my-adapter"), 400)
    shipped = load(TrainConfig, Path(__file__).parent.parent / "jobs" / "train.yaml")
    for section in ("demonstrations", "lora", "optimiser", "augmentation", "format"):
        assert getattr(shipped, section) == getattr(wanted, section)


@pytest.mark.slow
def test_a_short_base_is_the_same_again_and_loads(tmp_path: Path) -> None:
    """A few steps of the base's recipe: a Qwen3 that transformers loads, the same bytes twice."""
    for name in ("one", "two"):
        build.build_base(tmp_path / name, scale=0.001)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "one").config.model_type == "qwen3"
