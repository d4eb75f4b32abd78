"""Self-verification in the same engine and the same flight: one question per entity, one token of answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ner_batch.config import VerifyConfig
from ner_batch.data import Completion, Entity
from ner_batch.engine.engine import Engine, Request
from ner_batch.verification import question as verify
from ner_batch.verification.pool import Asked, Pool
from ner_batch.verification.question import Questions


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
        requests = self._requests([Asked(texts[i], entity) for i, entity in claims])
        completions = iter(self.engine.generate([request for request in requests if request]))
        kept: list[list[Entity]] = [[] for _ in texts]
        answers: list[list[Completion]] = [[] for _ in texts]
        for (i, entity), request in zip(claims, requests, strict=True):
            completion = next(completions) if request else None
            answers[i] += [completion] if completion else []
            judged = self._judged(entity, completion)
            kept[i] += [judged] if judged else []
        return [Verdict(tuple(kept[i]), tuple(answers[i])) for i in range(len(texts))]

    def _requests(self, asked: Sequence[Asked]) -> list[Request | None]:
        near = self.pool.nearest(asked, self.config.k)
        prompts = [self.questions.prompt(one.text, one.entity, shown) for one, shown in zip(asked, near, strict=True)]
        return [Request(ids, 1, self.adapter, logprobs=self.tokens) if ids else None for ids in prompts]

    def _judged(self, entity: Entity, completion: Completion | None) -> Entity | None:
        """The entity with its score; None where it is dropped."""
        likely = verify.read(completion, self.tokens) if completion else None
        if likely is None:
            return replace(entity, score=None)
        verified = likely >= (self.config.threshold or 0.0)
        return replace(entity, score=likely, verified=verified) if verified or self.config.rejected == "keep" else None
