"""Scores of what answers name, from the model's own probabilities; an answer under a grammar is read again for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ner_batch.adapter import Calibration
from ner_batch.data import AnswerSpan, Completion
from ner_batch.engine.engine import Engine, Request
from ner_batch.extract import confidence
from ner_batch.extract.reading import Reading
from ner_batch.prompts.chat import ChatTokenizer


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked, and what came."""

    request: Request
    completion: Completion


@dataclass(frozen=True, slots=True)
class Named:
    """An answer, where it names its mentions, and what was read from it."""

    answer: Answer
    said: Sequence[AnswerSpan]
    reading: Reading


class Scorer:
    """Fills ``score``.

    A free answer brings its log-probabilities along. One decoded under a grammar has only masked ones, so prompt and
    answer are read once more without it: one prefill, past the prefix cache, and one token thrown away. Both count. An
    answer that cannot be read again (it fills the model to the last token, say) leaves its entities without scores.
    """

    def __init__(self, engine: Engine, chat: ChatTokenizer, calibration: Calibration | None) -> None:
        self.engine, self.chat, self.calibration = engine, chat, calibration

    async def score(self, named: Sequence[Named]) -> list[Reading]:
        """The readings with scores."""
        masked = [i for i, one in enumerate(named) if one.answer.request.grammar]
        read = await self.engine.generate([_again(named[i].answer) for i in masked])
        again = dict(zip(masked, read, strict=True))
        return await asyncio.to_thread(lambda: [self._scored(one, again.get(i)) for i, one in enumerate(named)])

    def _scored(self, named: Named, again: Completion | None) -> Reading:
        request, completion = named.answer.request, named.answer.completion
        if again:
            completion = confidence.reread(completion, again)
        pieces = self.chat.pieces(request.token_ids, completion.token_ids)
        entities = confidence.scored(named.reading.parsed.entities, named.said, completion, pieces)
        if self.calibration:
            entities = confidence.calibrated(entities, self.calibration.slope, self.calibration.offset)
        made = replace(named.reading, parsed=replace(named.reading.parsed, entities=entities))
        return made if again is None or again.finish_reason == "error" else _paid(made, again)


def _again(answer: Answer) -> Request:
    """Prompt and answer as a prompt, with the adapter and without the grammar."""
    tokens = [*answer.request.token_ids, *answer.completion.token_ids]
    return Request(tokens, 1, answer.request.adapter, prompt_logprobs=True)


def _paid(reading: Reading, again: Completion) -> Reading:
    return replace(
        reading,
        prompt_tokens=reading.prompt_tokens + again.prompt_tokens,
        completion_tokens=reading.completion_tokens + again.completion_tokens,
    )
