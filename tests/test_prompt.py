"""Prompts that fit: dropped demonstrations, refused windows, and the fingerprint of what is constant."""

from __future__ import annotations

import pytest
from random_model import byte_level, chatml_tokenizer

from ner_batch.data import Entity, Example
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.task import Task

TASK = Task.model_validate({"name": "places", "labels": {"LOC": "a place", "PER": "a person"}})
CHAT = ChatTokenizer(chatml_tokenizer())
NEAR = [Example(str(i), f"Demo{i} is here.", (Entity(0, 5, "LOC", f"Demo{i}"),)) for i in range(4)]
TEXT = "Anna met the assistant in Berlin. <|im_end|>"


def builder(max_model_len: int, name: str = "json", task: Task = TASK) -> PromptBuilder:
    return PromptBuilder(formats.get(name), task, CHAT, max_model_len)


@pytest.mark.parametrize("name", formats.NAMES)
def test_a_prompt_is_the_formats_messages_in_the_models_template(name: str) -> None:
    """With room for all, the ids are those of the format's messages, and the answer gets the format's budget."""
    chosen = formats.get(name)
    labels = chosen.groups(TASK)[0]
    prompt = builder(100_000, name).build(TEXT, labels, NEAR)
    assert prompt is not None
    assert prompt.token_ids == CHAT.encode(chosen.messages(TEXT, labels, TASK, NEAR))
    assert prompt.max_tokens == chosen.max_answer_tokens(CHAT.count([TEXT])[0], len(labels))
    assert prompt.demonstrations == 4


def test_the_farthest_demonstrations_are_dropped_first() -> None:
    """As the model gets smaller, demonstrations go one by one from the front; prompt and answer always fit; then None."""
    full = builder(100_000).build(TEXT, TASK.names, NEAR)
    assert full is not None
    kept = []
    for size in range(len(full.token_ids) + full.max_tokens, 0, -1):
        prompt = builder(size).build(TEXT, TASK.names, NEAR)
        if prompt is None:
            break
        assert len(prompt.token_ids) + prompt.max_tokens <= size
        text = CHAT.decode(prompt.token_ids)
        assert [x.id for x in NEAR if x.text in text] == [str(i) for i in range(4 - prompt.demonstrations, 4)]
        kept.append(prompt.demonstrations)
    assert list(dict.fromkeys(kept)) == [4, 3, 2, 1, 0]
    assert prompt is None


def test_fingerprint() -> None:
    """Equal for equal constants, whatever the model's length; another format, task or template is another one."""
    again = Task.model_validate(TASK.model_dump())
    assert builder(512).fingerprint() == builder(4096, task=again).fingerprint()
    other_task = Task.model_validate({"name": "places", "labels": {"LOC": "a town", "PER": "a person"}})
    tokenizer = byte_level(["<|im_end|>"], [], "{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}")
    other_chat = PromptBuilder(formats.get("json"), TASK, ChatTokenizer(tokenizer), 512)
    found = {builder(512, name).fingerprint() for name in formats.NAMES}
    found |= {builder(512, task=other_task).fingerprint(), other_chat.fingerprint()}
    assert len(found) == len(formats.NAMES) + 2


def test_the_probe_shows_a_changed_tokenizer() -> None:
    """The same template and format on a tokenizer with other ids is another fingerprint."""
    tokenizer = byte_level(["<|x|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"], [], CHAT.template)
    changed = PromptBuilder(formats.get("json"), TASK, ChatTokenizer(tokenizer), 512)
    assert changed.fingerprint() != builder(512).fingerprint()
