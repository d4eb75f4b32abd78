"""The recipe of the tiny model: packing is exact, initialisation copies, and a short run gives loadable files, again the same."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ner_batch import adapter as adapters
from ner_batch import formats
from ner_batch.chat import ChatTokenizer
from ner_batch.demo import adapter, build, corpus, curriculum, induction, learn, tiny, tokenizer
from ner_batch.demo.prompting import Prompting

WORDS = tokenizer.build()
CHAT = ChatTokenizer(WORDS)
SHAPE = induction.Shape()
GOLD = corpus.Gold(train=80, dev=10, test=4)


@pytest.fixture(scope="module")
def untrained() -> torch.nn.Module:
    config = SHAPE.config(len(WORDS), WORDS.eos_token_id, WORDS.pad_token_id)
    return induction.initialised(config, SHAPE, seed=0).eval()


def test_initialisation_copies(untrained: torch.nn.Module) -> None:
    """Without any training a repeated random sequence is continued rightly most of the time."""
    assert tiny.copy_accuracy(untrained, 60) > 0.8


def test_packing_changes_no_loss(untrained: torch.nn.Module) -> None:
    """The loss of a pack is that of its samples one by one, as the unmodified model computes it."""
    prompting = Prompting(formats.load("json"), build.task(), CHAT)
    samples = [prompting.sample(x, ()) for x in corpus.gold(GOLD)["train"][:5]]
    untrained.set_attn_implementation("branched")
    with torch.no_grad():
        packed = learn.loss(untrained, learn.pack(samples))
        untrained.set_attn_implementation("sdpa")
        alone = [
            torch.nn.functional.cross_entropy(
                untrained(torch.tensor([s.prompt + s.answer[:-1]])).logits[0, len(s.prompt) - 1 :],
                torch.tensor(s.answer),
                reduction="sum",
            )
            for s in samples
        ]
    assert torch.allclose(packed, sum(alone) / sum(len(s.answer) for s in samples), rtol=1e-4)


def test_packs_hold_every_sample_once() -> None:
    """Packs keep to their size where samples allow it, and lose no answer token."""
    samples = [learn.Sample(tuple(range(10)) + (n,) * (n % 7 + 1), (n, n + 1)) for n in range(50)]
    made = learn.packs(samples, 100, random.Random(0))
    assert sorted(t for p in made for t in p.targets.tolist()) == sorted(t for s in samples for t in s.answer)
    assert all(p.ids.shape[1] <= 100 for p in made)


def test_swapped_names_keep_their_spans() -> None:
    """Swapping gives a valid example of the same types, in which equal names stay equal."""
    train = corpus.gold(GOLD)["train"]
    pools, rng = adapter.pools(train), random.Random(0)
    changed = 0
    for example in train:
        swapped = adapter.swap(example, pools, rng, (1.0, 0.5))
        assert [e.type for e in swapped.entities] == [e.type for e in example.entities]
        assert all(swapped.text[e.start : e.end] == e.text for e in swapped.entities)
        pairs = {(a.type, a.text): b.text for a, b in zip(example.entities, swapped.entities, strict=True)}
        assert all(pairs[a.type, a.text] == b.text for a, b in zip(example.entities, swapped.entities, strict=True))
        changed += swapped.text != example.text
    assert changed > len(train) / 2


def test_curriculum_does_not_teach_the_task() -> None:
    """No lesson asks for a type of the demo by its definition, and lessons repeat with the seed."""
    lessons = curriculum.Curriculum(formats.load("json"), CHAT, 0)
    drawn = iter(lessons)
    texts = [CHAT.decode(next(drawn).ids[0].tolist()) for _ in range(40)]
    again = iter(lessons)
    assert [CHAT.decode(next(again).ids[0].tolist()) for _ in range(40)] == texts
    task = build.task()
    assert not any(f"{label}: {task.definition(label)}" in text for label in task.names for text in texts)


@pytest.mark.slow
def test_short_build_gives_the_same_loadable_files_again(tmp_path: Path) -> None:
    """A few steps of the whole recipe: a Qwen3 that transformers loads, an adapter that fits it, a card, the same bytes."""
    recipe = replace(build.Recipe(gold=GOLD).scaled(0.0), gold=GOLD)
    for name in ("one", "two"):
        build.build(tmp_path / name, recipe)
    for file in ("base/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "one" / "base").config.model_type == "qwen3"
    manifest = adapters.load(tmp_path / "one" / "adapter").manifest
    assert manifest is not None
    assert manifest.base_fingerprint == adapters.model_fingerprint(str(tmp_path / "one" / "base"))
    assert "| adapter |" in (tmp_path / "one" / "CARD.md").read_text()
