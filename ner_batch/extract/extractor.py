"""One replica: texts in, grounded predictions out. This is the file to read first.

A text becomes windows; each task's reader (:mod:`reader`) turns a window into one prompt per label group, with its
nearest demonstrations; the engine answers; the format reads the answer back into spans of the window; a text's windows
are merged into one prediction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from ner_batch.data import Entity, Prediction, Status, Ungrounded, clean, distinct, worst
from ner_batch.engine.engine import Engine
from ner_batch.extract.reader import Reader
from ner_batch.extract.reading import Reading
from ner_batch.extract.recipe import Recipe
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.text import windows
from ner_batch.text.windows import Window

# Windows prompted and parsed together: large enough for one retrieval search, small enough that the engine gets its
# first prompts after some 50 ms.
BATCH_WINDOWS = 128

Progress = Callable[[int, int], None]
"""Called with (rows finished, tokens spent) as a unit proceeds."""


class Extractor:
    """Holds one engine and a reader per task.

    Args:
        engine: one that runs already, with room for the recipe's adapters; None starts one.
    """

    def __init__(self, recipe: Recipe, engine: Engine | None = None) -> None:
        self.recipe = recipe
        config = recipe.engine
        self.chat = load_tokenizer(config.model, config.revision)
        self.engine = engine or Engine(config, adapters=any(task.adapter for task in recipe.tasks))
        self.readers = [Reader(task, self.engine, self.chat, config.max_model_len) for task in recipe.tasks]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batches = asyncio.Semaphore()

    async def predict(self, texts: Sequence[str | None], progress: Progress | None = None) -> list[Prediction]:
        """One prediction per text, in order. Raises EngineDead when the engine is gone; anything else is a status."""
        self._wait_in(asyncio.get_running_loop())
        cleaned = [None if text is None else clean(text) for text in texts]
        cut = await asyncio.to_thread(windows.split, cleaned, self.recipe.window_tokens, self.chat.count)
        report = progress or (lambda _rows, _tokens: None)
        report(len(texts) - len({window.document for window in cut}), 0)
        slices = [slice(i, i + BATCH_WINDOWS) for i in range(0, len(cut), BATCH_WINDOWS)]
        ends = [a.document != b.document for a, b in pairwise(cut)] + [True]
        readings = await asyncio.gather(*(self._read(cut[s], sum(ends[s]), report) for s in slices))
        return merge(texts, cut, [reading for batch in readings for reading in batch])

    def _wait_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """A semaphore of this event loop.

        Prompts of a few batches wait beside the engine's own queue: it never drains, and memory stays flat.
        """
        if loop is not self._loop:
            self._loop, self._batches = loop, asyncio.Semaphore(2 + self.recipe.engine.max_in_flight // BATCH_WINDOWS)

    def close(self) -> None:
        """Stop the engine."""
        self.engine.close()

    async def _read(self, batch: Sequence[Window], rows: int, progress: Progress) -> list[list[Reading]]:
        """The readings of some windows by every reader; ``rows`` texts end among them."""
        async with self._batches:
            by_task = await asyncio.gather(*(reader.read(batch) for reader in self.readers))
        if self.recipe.tagged:
            by_task = [
                _tagged(found, reader.recipe.task.name) for found, reader in zip(by_task, self.readers, strict=True)
            ]
        readings = [[r for found in per_window for r in found] for per_window in zip(*by_task, strict=True)]
        progress(rows, sum(r.prompt_tokens + r.completion_tokens for found in readings for r in found))
        return readings


def _tagged(readings: Sequence[Sequence[Reading]], task: str) -> list[list[Reading]]:
    """The same readings with the task's name in entities, ungrounded mentions and errors."""
    return [[_tag(reading, task) for reading in found] for found in readings]


def _tag(reading: Reading, task: str) -> Reading:
    parsed = replace(
        reading.parsed,
        entities=tuple(replace(e, task=task) for e in reading.parsed.entities),
        ungrounded=tuple(replace(u, task=task) for u in reading.parsed.ungrounded),
    )
    return replace(reading, parsed=parsed, error=reading.error and f"{task}: {reading.error}")


def merge(
    texts: Sequence[str | None], cut: Sequence[Window], readings: Sequence[Sequence[Reading]]
) -> list[Prediction]:
    """One prediction per text from the readings of its windows, offsets mapped back to the text."""
    per_text: list[list[tuple[Window, Reading]]] = [[] for _ in texts]
    for window, group in zip(cut, readings, strict=True):
        per_text[window.document] += [(window, reading) for reading in group]
    return [_merge_one(text, parts) for text, parts in zip(texts, per_text, strict=True)]


def _merge_one(text: str | None, parts: Sequence[tuple[Window, Reading]]) -> Prediction:
    if not parts:
        return Prediction(status=Status.EMPTY)
    assert text is not None
    entities = distinct(_lift(e, w.start, text) for w, r in parts for e in r.parsed.entities)
    ungrounded: dict[Ungrounded, None] = dict.fromkeys(u for _, r in parts for u in r.parsed.ungrounded)
    status = worst(reading.parsed.status for _, reading in parts)
    return Prediction(
        entities=entities,
        ungrounded=tuple(ungrounded),
        status=status,
        error=next((r.error for _, r in parts if r.parsed.status is status), None),
        prompt_tokens=sum(r.prompt_tokens for _, r in parts),
        completion_tokens=sum(r.completion_tokens for _, r in parts),
    )


def _lift(entity: Entity, offset: int, text: str) -> Entity:
    """The entity at its place in the whole, untouched text: the promise ``text[start:end] == surface`` is made here."""
    entity = entity.shifted(offset)
    return replace(entity, text=text[entity.start : entity.end])
