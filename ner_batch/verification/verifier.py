"""Self-verification in the same engine and the same flight: one question per entity, one token of answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from ner_batch.data import Completion, Entity
from ner_batch.engine.engine import Engine, Request
from ner_batch.verification import question as verify
from ner_batch.verification.pool import Mention, Pool
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
    doubt about the verification is no evidence against the entity. ``pool`` is what demonstrations are taken from.
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
        answers = self.ask([Mention(texts[i], entity) for i, entity in claims])
        remaining: list[list[Entity]] = [[] for _ in texts]
        completions: list[list[Completion]] = [[] for _ in texts]
        for (i, entity), (completion, p_yes) in zip(claims, answers, strict=True):
            completions[i] += [completion] if completion else []
            verified = None if p_yes is None else p_yes >= (self.config.threshold or 0.0)
            if verified is not False or self.config.rejected == "keep":
                remaining[i].append(replace(entity, score=p_yes, verified=verified))
        return [Verdict(tuple(remaining[i]), tuple(completions[i])) for i in range(len(texts))]

    def ask(self, mentions: Sequence[Mention]) -> list[tuple[Completion | None, float | None]]:
        """The answers to questions about mentions, and P(yes); None where a question does not fit the model."""
        prompts = self.prompts(mentions)
        first_tokens = tuple(chain(*self.tokens))
        requests = [Request(ids, 1, self.adapter, logprobs=first_tokens) for ids in prompts if ids]
        completions = iter(self.engine.generate(requests))
        answers = [next(completions) if ids else None for ids in prompts]
        return [(x, verify.probability(x.logprobs[0], self.tokens) if x and x.logprobs else None) for x in answers]

    def prompts(self, mentions: Sequence[Mention]) -> list[list[int] | None]:
        """The questions' token ids, with the demonstrations most like each; None where one does not fit the model."""
        demonstrations = self.pool.nearest(mentions, self.config.k)
        return [self.questions.prompt(m.text, m.entity, d) for m, d in zip(mentions, demonstrations, strict=True)]
