"""One task's reader: windows to prompts, answers to grounded spans. An extractor has one per task, on one engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from ner_batch import retrieval
from ner_batch.config import VerifyConfig, VotesConfig
from ner_batch.data import Example, Parsed, Status, worst
from ner_batch.engine.engine import Engine, Request
from ner_batch.extract.reading import Reading
from ner_batch.extract.recipe import TaskRecipe
from ner_batch.extract.scorer import Answer, Named, Scorer
from ner_batch.extract.votes import vote
from ner_batch.io import copies
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import ChatTokenizer
from ner_batch.text.windows import Window
from ner_batch.verification.pool import Pool
from ner_batch.verification.question import Questions
from ner_batch.verification.verifier import Verifier

Ask = tuple[Window, tuple[str, ...], Sequence[Example]]
"""One prompt to come: a window, the labels asked for, the demonstrations shown."""

Asked = tuple[Ask, Answer | None]
"""What came of it; None where the prompt does not fit the model."""


class Reader:
    """Reads windows for one task: its adapter, format and demonstrations.

    Args:
        engine: shared with the other tasks' readers.
        max_model_len: tokens the model can hold, prompt and answer together.
    """

    def __init__(self, recipe: TaskRecipe, engine: Engine, chat: ChatTokenizer, max_model_len: int) -> None:
        self.recipe = recipe
        self.engine = engine
        self.adapter = recipe.adapter and copies.fetched(recipe.adapter)
        self.format = formats.get(recipe.format)
        self.groups = self.format.groups(recipe.task)
        self.builder = PromptBuilder(self.format, recipe.task, chat, max_model_len)
        self.index = _open_index(recipe)
        self.scorer = Scorer(engine, chat, recipe.calibration) if recipe.scored else None
        self.verifier = self._verifier(recipe.verify, Questions(recipe.task, chat, max_model_len))

    def _verifier(self, config: VerifyConfig | None, questions: Questions) -> Verifier | None:
        if config is None:
            return None
        pool = Pool(self.index.examples if self.index and config.k else ())
        return Verifier(config, self.adapter, self.engine, questions, pool)

    async def read(self, batch: Sequence[Window]) -> list[list[Reading]]:
        """The readings of some windows, in order, one per label group each."""
        near = await asyncio.to_thread(self._nearest, batch)
        groups = self.groups
        asks = [(w, labels, shots) for w, shots in zip(batch, near, strict=True) for labels in groups]
        readings = await (self._voted(asks, self.recipe.votes) if self.recipe.votes else self._ask(asks))
        if self.verifier:
            readings = await self._verified(self.verifier, [w.text for w, _, _ in asks], readings)
        return [readings[i : i + len(groups)] for i in range(0, len(readings), len(groups))]

    def _nearest(self, batch: Sequence[Window]) -> Sequence[Sequence[Example]]:
        """The examples nearest to each window, nearest last."""
        if self.index is None:
            return [()] * len(batch)
        return self.index.nearest([window.text for window in batch], self.recipe.k)

    async def _verified(self, verifier: Verifier, texts: Sequence[str], readings: Sequence[Reading]) -> list[Reading]:
        """The readings with every entity asked about."""
        found = [reading.parsed.entities for reading in readings]
        verdicts = await verifier.judge(texts, found)
        return [
            replace(
                reading,
                parsed=replace(reading.parsed, entities=verdict.entities),
                prompt_tokens=reading.prompt_tokens + verdict.prompt_tokens,
                completion_tokens=reading.completion_tokens + verdict.completion_tokens,
            )
            for reading, verdict in zip(readings, verdicts, strict=True)
        ]

    async def _voted(self, asks: Sequence[Ask], votes: VotesConfig) -> list[Reading]:
        """Every prompt asked several times, and what enough of the answers name."""
        passes = await asyncio.gather(*(self._ask(asks) for _ in range(votes.passes)))
        return [vote(readings, votes.least) for readings in zip(*passes, strict=True)]

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
        answers = [None if request is None else Answer(request, next(completions)) for request in requests]
        pairs: list[Asked] = list(zip(asks, answers, strict=True))
        readings = await asyncio.to_thread(lambda: [self._reading(*pair) for pair in pairs])
        return await self._scored(self.scorer, pairs, readings) if self.scorer else readings

    async def _scored(self, scorer: Scorer, pairs: Sequence[Asked], readings: Sequence[Reading]) -> list[Reading]:
        """The readings with scores, where something was found."""
        named = await asyncio.to_thread(self._named, pairs, readings)
        scored = dict(zip(named, await scorer.score(list(named.values())), strict=True))
        return [scored.get(i, reading) for i, reading in enumerate(readings)]

    def _named(self, pairs: Sequence[Asked], readings: Sequence[Reading]) -> dict[int, Named]:
        """Which answers name entities, and where."""
        task = self.recipe.task
        return {
            i: Named(
                answer, self.format.locate_mentions(answer.completion.text, window.text, labels, task), readings[i]
            )
            for i, ((window, labels, _), answer) in enumerate(pairs)
            if answer and readings[i].parsed.entities
        }

    def _request(self, ask: Ask, constrained: bool) -> Request | None:
        """The request for one prompt; None where the prompt does not fit the model."""
        window, labels, demonstrations = ask
        prompt = self.builder.build(window.text, labels, demonstrations)
        if prompt is None:
            return None
        grammar = None
        if constrained and len(window.text) <= formats.MAX_GRAMMAR_CHARS:
            grammar = self.format.grammar(window.text, labels, self.recipe.task)
        logprobs = () if self.scorer and not grammar else None  # under a grammar they are of no use, see confidence
        temperature = self.recipe.votes.temperature if self.recipe.votes else self.recipe.temperature
        return Request(prompt.token_ids, prompt.max_tokens, self.adapter, grammar, temperature, logprobs)

    def _reading(self, ask: Ask, answer: Answer | None) -> Reading:
        window, labels, _ = ask
        if answer is None:
            return Reading(_nothing(Status.TOO_LONG), "the prompt does not fit engine.max_model_len", 0, 0)
        completion = answer.completion
        spent = (completion.prompt_tokens, completion.completion_tokens)
        if completion.finish_reason == "error":
            return Reading(_nothing(Status.FAILED), completion.error, *spent)
        cut_off = completion.finish_reason == "length"
        text = self.format.complete(completion.text) if cut_off else completion.text
        parsed = self.format.parse(text, window.text, labels, self.recipe.task)
        if cut_off:
            parsed = replace(parsed, status=Status.TRUNCATED, faithful=False)
        return Reading(parsed, _explanation(parsed.status), *spent)


def _open_index(recipe: TaskRecipe) -> retrieval.Index | None:
    """The index; its encoder runs on the CPU, beside the engine, which has the GPU for itself."""
    wanted = recipe.k or (recipe.verify and recipe.verify.k)
    return retrieval.open_index(recipe.index, recipe.encoder, "cpu") if recipe.index and wanted else None


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
