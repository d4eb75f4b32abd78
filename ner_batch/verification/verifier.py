"""Self-verification in the same engine and the same flight: one question per entity, one token of answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ner_batch.config import VerifyConfig
from ner_batch.data import Completion, Entity
from ner_batch.engine.engine import Engine, Request
from ner_batch.verification import question as verify
from ner_batch.verification.pool import MentionQuery, Pool
from ner_batch.verification.question import Questions


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is left of one text's entities, and what asking cost."""

    entities: tuple[Entity, ...]
    prompt_tokens: int
    completion_tokens: int


class Verifier:
    """Asks about entities.

    One whose question does not fit the model, or was not answered, stays, with nothing in ``score`` and ``verified``:
    doubt about the verification is no evidence against the entity.

    Args:
        pool: what demonstrations are taken from; empty where ``config.k`` is 0.
    """

    def __init__(
        self, config: VerifyConfig, adapter: str | None, engine: Engine, questions: Questions, pool: Pool
    ) -> None:
        self.config, self.adapter, self.pool = config, adapter, pool
        self.engine, self.questions = engine, questions
        self.tokens = questions.tokens()

    async def judge(self, texts: Sequence[str], found: Sequence[Sequence[Entity]]) -> list[Verdict]:
        """One verdict per text, about its entities."""
        asked = [(i, entity) for i, entities in enumerate(found) for entity in entities]
        requests = await asyncio.to_thread(self._requests, [MentionQuery(texts[i], entity) for i, entity in asked])
        completions = iter(await self.engine.generate([r for r in requests if r]))
        answers = [next(completions) if request else None for request in requests]
        kept: list[list[Entity]] = [[] for _ in texts]
        spent = [(0, 0)] * len(texts)
        for (i, entity), completion in zip(asked, answers, strict=True):
            judged = self._judged(entity, completion)
            kept[i] += [judged] if judged else []
            spent[i] = _added(spent[i], completion)
        return [Verdict(tuple(entities), *cost) for entities, cost in zip(kept, spent, strict=True)]

    def _requests(self, queries: Sequence[MentionQuery]) -> list[Request | None]:
        demonstrations = self.pool.nearest(queries, self.config.k)
        prompts = [
            self.questions.prompt(query.text, query.entity, examples)
            for query, examples in zip(queries, demonstrations, strict=True)
        ]
        return [Request(ids, 1, self.adapter, logprobs=self.tokens) if ids else None for ids in prompts]

    def _judged(self, entity: Entity, completion: Completion | None) -> Entity | None:
        """The entity with its score; None where it is dropped."""
        p_yes = verify.read(completion, self.tokens) if completion else None
        if p_yes is None:
            return replace(entity, score=None)
        verified = p_yes >= (self.config.threshold or 0.0)
        return replace(entity, score=p_yes, verified=verified) if verified or self.config.rejected == "keep" else None


def _added(spent: tuple[int, int], completion: Completion | None) -> tuple[int, int]:
    if completion is None:
        return spent
    return spent[0] + completion.prompt_tokens, spent[1] + completion.completion_tokens
