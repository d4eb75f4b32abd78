"""Self-verification in the same engine and the same flight: one question per entity, one token of answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ner_batch.data import Completion, Entity
from ner_batch.engine.engine import Engine, Request
from ner_batch.verification import question as verify
from ner_batch.verification.pool import MentionQuery, Pool
from ner_batch.verification.question import Questions
from ner_batch.verification.settings import VerifyConfig


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is left of one text's entities, and the answers that decided it."""

    entities: tuple[Entity, ...]
    completions: tuple[Completion, ...]


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

    def judge(self, texts: Sequence[str], entities: Sequence[Sequence[Entity]]) -> list[Verdict]:
        """One verdict per text, about its entities."""
        claims = [(i, entity) for i, of_text in enumerate(entities) for entity in of_text]
        requests = self._requests([MentionQuery(texts[i], entity) for i, entity in claims])
        completions = iter(self.engine.generate([request for request in requests if request]))
        remaining: list[list[Entity]] = [[] for _ in texts]
        answers: list[list[Completion]] = [[] for _ in texts]
        for (i, entity), request in zip(claims, requests, strict=True):
            completion = next(completions) if request else None
            answers[i] += [completion] if completion else []
            judged = self._judged(entity, completion)
            remaining[i] += [judged] if judged else []
        return [Verdict(tuple(remaining[i]), tuple(answers[i])) for i in range(len(texts))]

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
