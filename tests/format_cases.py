"""Tasks, texts, demonstrations and helpers that the tests of answer formats share."""

from __future__ import annotations

import pytest
from hypothesis import settings
from strategies import TYPES

from ner_batch.data import Entity, Parsed
from ner_batch.prompts.formats import NAMES, Format, get
from ner_batch.task import Task

hard = settings(max_examples=200, deadline=None)
each_format = pytest.mark.parametrize("form", [get(name) for name in NAMES], ids=NAMES)
TASK = Task(name="test", labels=list(TYPES))
TASKS = {
    "en": Task(
        name="news",
        language="en",
        labels={"LOC": "a place", "PER": {"definition": "a person", "question": "Who?"}, "ORG": None},
        guidelines="No titles.",
    ),
    "zh": Task(
        name="新闻",
        language="zh",
        labels={"LOC": "地名", "PER": {"definition": "人名", "question": "文中提到了谁?"}},
        guidelines="不含头衔。",
    ),
}
TEXT = "Columbus is a city in Ohio."


def entity(text: str, surface: str, label: str = "LOC", nth: int = 0) -> Entity:
    """The occurrence number ``nth`` of a string, as an entity."""
    start = -1
    for _ in range(nth + 1):
        start = text.index(surface, start + 1)
    return Entity(start, start + len(surface), label, surface)


def there_and_back(form: Format, text: str, entities: list[Entity], task: Task = TASK) -> list[Parsed]:
    """The answers about these entities, each read."""
    return [form.parse(form.answer(text, entities, x, task), text, x, task) for x in form.groups(task)]


def read_back(form: Format, text: str, entities: list[Entity], task: Task = TASK) -> list[Entity]:
    """The entities that the answers about these entities are read as."""
    return sorted(e for parsed in there_and_back(form, text, entities, task) for e in parsed.entities)
