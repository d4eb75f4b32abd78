"""Scores of what answers name, from the model's own probabilities; an answer under a grammar is read again for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
class ScoreQuery:
    """An answer, where in it its mentions are named, and what was read from it."""

    answer: Answer
    spans: Sequence[AnswerSpan]
    reading: Reading


class Scorer:
    """Fills ``score``.

    A free answer brings its log-probabilities along. One decoded under a grammar has only masked ones, so prompt and
    answer are read once more without it: one prefill, past the prefix cache, and one token thrown away. Both count. An
    answer that cannot be read again (it fills the model to the last token, say) leaves its entities without scores.
    """

    def __init__(self, engine: Engine, chat: ChatTokenizer, calibration: Calibration | None) -> None:
        self.engine, self.chat, self.calibration = engine, chat, calibration

    def score(self, queries: Sequence[ScoreQuery]) -> list[Reading]:
        """The readings with scores, in order."""
        masked = [i for i, query in enumerate(queries) if query.answer.request.grammar]
        rereadings = self.engine.generate([_reread_request(queries[i].answer) for i in masked])
        reread = dict(zip(masked, rereadings, strict=True))
        return [self._scored(query, reread.get(i)) for i, query in enumerate(queries)]

    def _scored(self, query: ScoreQuery, rereading: Completion | None) -> Reading:
        request, completion = query.answer.request, query.answer.completion
        if rereading:
            completion = confidence.reread(completion, rereading)
        pieces = self.chat.pieces(request.token_ids, completion.token_ids)
        entities = confidence.scored(query.reading.parsed.entities, query.spans, completion, pieces)
        if self.calibration:
            entities = confidence.calibrated(entities, self.calibration.slope, self.calibration.offset)
        reading = query.reading.with_entities(entities)
        return reading if rereading is None or rereading.finish_reason == "error" else reading.plus(rereading)


def _reread_request(answer: Answer) -> Request:
    """Prompt and answer as a prompt, with the adapter and without the grammar."""
    tokens = [*answer.request.token_ids, *answer.completion.token_ids]
    return Request(tokens, 1, answer.request.adapter, prompt_logprobs=True)
