"""One replica: texts in, grounded predictions out. This is the file to read first.

A text becomes windows; a window becomes one prompt per label group, with its nearest demonstrations; the engine
answers; the format reads the answer back into spans of the window; a text's windows are merged into one prediction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ner_batch import formats, retrieval, windows
from ner_batch.chat import load_tokenizer
from ner_batch.data import Completion, Entity, Example, Parsed, Prediction, Status, Ungrounded, clean, distinct, worst
from ner_batch.engine import Engine, Request
from ner_batch.extract.recipe import Recipe
from ner_batch.prompt import PromptBuilder
from ner_batch.windows import Window

# Windows prompted and parsed together: large enough for one retrieval search, small enough that the engine gets its
# first prompts after some 50 ms.
BATCH_WINDOWS = 128

Ask = tuple[Window, tuple[str, ...], Sequence[Example]]
"""One prompt to come: a window, the labels asked for, the demonstrations shown."""

Progress = Callable[[int, int], None]
"""Called with (rows finished, tokens spent) as a unit proceeds."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one prompt about one window gave."""

    parsed: Parsed
    error: str | None
    prompt_tokens: int
    completion_tokens: int


class Extractor:
    """Holds one engine, its adapter and the index of demonstrations."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.format = formats.load(recipe.format)
        self.groups = self.format.groups(recipe.task)
        self.chat = load_tokenizer(recipe.engine.model, recipe.engine.revision)
        self.builder = PromptBuilder(self.format, recipe.task, self.chat, recipe.engine.max_model_len)
        self.index = _open_index(recipe)
        self.engine = Engine(recipe.engine, adapters=recipe.adapter is not None)
        # Prompts of a few batches wait beside the engine's own queue: it never drains, and memory stays flat.
        self._batches = asyncio.Semaphore(2 + recipe.engine.max_in_flight // BATCH_WINDOWS)

    async def predict(self, texts: Sequence[str | None], progress: Progress | None = None) -> list[Prediction]:
        """One prediction per text, in order. Raises EngineDead when the engine is gone; anything else is a status."""
        cleaned = [None if text is None else clean(text) for text in texts]
        cut = await asyncio.to_thread(windows.split, cleaned, self.recipe.window_tokens, self.chat.count)
        report = progress or (lambda _rows, _tokens: None)
        report(len(texts) - len({window.document for window in cut}), 0)
        slices = [slice(i, i + BATCH_WINDOWS) for i in range(0, len(cut), BATCH_WINDOWS)]
        ends = [a.document != b.document for a, b in pairwise(cut)] + [True]
        readings = await asyncio.gather(*(self._read(cut[s], sum(ends[s]), report) for s in slices))
        return merge(texts, cut, [reading for batch in readings for reading in batch])

    def close(self) -> None:
        """Stop the engine."""
        self.engine.close()

    async def _read(self, batch: Sequence[Window], rows: int, progress: Progress) -> list[list[Reading]]:
        """The readings of some windows, one per label group each; ``rows`` texts end among them."""
        async with self._batches:
            near = await asyncio.to_thread(self._demonstrations, batch)
            asks = [(w, labels, shots) for w, shots in zip(batch, near, strict=True) for labels in self.groups]
            readings = await self._ask(asks)
        progress(rows, sum(r.prompt_tokens + r.completion_tokens for r in readings))
        n = len(self.groups)
        return [readings[i : i + n] for i in range(0, len(readings), n)]

    def _demonstrations(self, batch: Sequence[Window]) -> Sequence[Sequence[Example]]:
        if self.index is None:
            return [()] * len(batch)
        return self.index.nearest([window.text for window in batch], self.recipe.k)

    async def _ask(self, asks: Sequence[Ask]) -> list[Reading]:
        """Decode as configured; under ``auto``, whatever is not made of the source is asked again under the grammar."""
        constrained = self.recipe.decoding == "constrained"
        readings = await self._decode(asks, constrained)
        if self.recipe.decoding != "auto":
            return readings
        again = [i for i, (ask, reading) in enumerate(zip(asks, readings, strict=True)) if self._doubtful(ask, reading)]
        second = await self._decode([asks[i] for i in again], constrained=True)
        for i, reading in zip(again, second, strict=True):
            readings[i] = _prefer(readings[i], reading)
        return readings

    def _doubtful(self, ask: Ask, reading: Reading) -> bool:
        answered = reading.parsed.status in (Status.OK, Status.MALFORMED, Status.TRUNCATED)
        return answered and not reading.parsed.faithful and len(ask[0].text) <= formats.MAX_GRAMMAR_CHARS

    async def _decode(self, asks: Sequence[Ask], constrained: bool) -> list[Reading]:
        requests = await asyncio.to_thread(lambda: [self._request(ask, constrained) for ask in asks])
        asked = [request for request in requests if request is not None]
        completions = iter(await self.engine.generate(asked))
        answers = [None if request is None else next(completions) for request in requests]
        return await asyncio.to_thread(lambda: [self._reading(a, c) for a, c in zip(asks, answers, strict=True)])

    def _request(self, ask: Ask, constrained: bool) -> Request | None:
        """The request for one prompt; None where the prompt does not fit the model."""
        window, labels, demonstrations = ask
        prompt = self.builder.build(window.text, labels, demonstrations)
        if prompt is None:
            return None
        grammar = None
        if constrained and len(window.text) <= formats.MAX_GRAMMAR_CHARS:
            grammar = self.format.grammar(window.text, labels, self.recipe.task)
        return Request(prompt.token_ids, prompt.max_tokens, self.recipe.adapter, grammar, self.recipe.temperature)

    def _reading(self, ask: Ask, completion: Completion | None) -> Reading:
        window, labels, _ = ask
        if completion is None:
            return Reading(_nothing(Status.TOO_LONG), "the prompt does not fit engine.max_model_len", 0, 0)
        spent = (completion.prompt_tokens, completion.completion_tokens)
        if completion.finish_reason == "error":
            return Reading(_nothing(Status.FAILED), completion.error, *spent)
        cut_off = completion.finish_reason == "length"
        answer = self.format.complete(completion.text) if cut_off else completion.text
        parsed = self.format.parse(answer, window.text, labels, self.recipe.task)
        if cut_off:
            parsed = replace(parsed, status=Status.TRUNCATED, faithful=False)
        return Reading(parsed, _explanation(parsed.status), *spent)


def _open_index(recipe: Recipe) -> retrieval.Index | None:
    """The index; its encoder runs on the CPU, beside the engine, which has the GPU for itself."""
    return retrieval.open_index(recipe.index, recipe.encoder, "cpu") if recipe.index and recipe.k else None


def _nothing(status: Status) -> Parsed:
    return Parsed((), (), status, faithful=False)


def _explanation(status: Status) -> str | None:
    return {
        Status.TRUNCATED: "an answer hit its token limit; entities before the cut are kept",
        Status.MALFORMED: "an answer is not in the format",
    }.get(status)


def _prefer(free: Reading, constrained: Reading) -> Reading:
    """The constrained answer, the tokens of both, and what the free one named that is not in the text.

    Where the second attempt failed outright, the first one stands.
    """
    spent = (free.prompt_tokens + constrained.prompt_tokens, free.completion_tokens + constrained.completion_tokens)
    status = constrained.parsed.status
    if status is not Status.OK and worst((free.parsed.status, status)) is status:
        return Reading(free.parsed, free.error, *spent)
    ungrounded = tuple(dict.fromkeys((*free.parsed.ungrounded, *constrained.parsed.ungrounded)))
    return Reading(replace(constrained.parsed, ungrounded=ungrounded), constrained.error, *spent)


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
