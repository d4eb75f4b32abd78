"""What one prompt about one window gave, and how several readings of the same window become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ner_batch.data import Completion, Entity, Parsed, Status, distinct, worst


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer, read, and what it cost in tokens; ``error`` says in one line why it is not ok."""

    parsed: Parsed
    error: str | None
    prompt_tokens: int
    completion_tokens: int

    def with_entities(self, entities: Sequence[Entity]) -> Reading:
        """The same reading with other entities (scored or verified ones)."""
        return replace(self, parsed=replace(self.parsed, entities=tuple(entities)))

    def tagged(self, task: str) -> Reading:
        """The same reading with the task's name in entities, ungrounded mentions and the error."""
        entities = tuple(replace(entity, task=task) for entity in self.parsed.entities)
        ungrounded = tuple(replace(mention, task=task) for mention in self.parsed.ungrounded)
        parsed = replace(self.parsed, entities=entities, ungrounded=ungrounded)
        return replace(self, parsed=parsed, error=self.error and f"{task}: {self.error}")

    def plus(self, *costs: Completion | Reading) -> Reading:
        """The same reading, charged with the tokens of further prompts."""
        return replace(
            self,
            prompt_tokens=self.prompt_tokens + sum(cost.prompt_tokens for cost in costs),
            completion_tokens=self.completion_tokens + sum(cost.completion_tokens for cost in costs),
        )


def repaired(free: Reading, constrained: Reading) -> Reading:
    """The constrained answer, the tokens of both, and what the free one named that is not in the text.

    Where the second attempt failed outright, the first one stands.
    """
    status = constrained.parsed.status
    if status is not Status.OK and worst((free.parsed.status, status)) is status:
        return free.plus(constrained)
    ungrounded = tuple(dict.fromkeys((*free.parsed.ungrounded, *constrained.parsed.ungrounded)))
    return replace(constrained, parsed=replace(constrained.parsed, ungrounded=ungrounded)).plus(free)


def vote(passes: Sequence[Reading], min_share: float) -> Reading:
    """One reading out of several of the same prompt: self-consistency.

    After Wang et al. (2023, "Self-consistency improves chain of thought reasoning"), with votes on single entities, as
    in ReverseNER (2024). An entity stays if at least the share ``min_share`` of the passes that were answered in full
    name it; this share is its score. Without any full answer the best of the readings stands. Tokens of all passes are
    counted (the prompts are the same, so all passes but the first find them in the prefix cache), and what any of them
    named that is not in the text is ungrounded.
    """
    answered = [reading for reading in passes if reading.parsed.status is Status.OK]
    if not answered:
        best = min(passes, key=lambda reading: list(Status).index(reading.parsed.status))
        return best.plus(*(reading for reading in passes if reading is not best))
    votes = Counter(
        entity
        for reading in answered
        for entity in {replace(entity, score=None, verified=None) for entity in reading.parsed.entities}
    )
    shares = {entity: count / len(answered) for entity, count in votes.items()}
    elected = distinct(replace(entity, score=share) for entity, share in shares.items() if share >= min_share)
    ungrounded = tuple(dict.fromkeys(mention for reading in passes for mention in reading.parsed.ungrounded))
    parsed = replace(answered[0].parsed, entities=elected, ungrounded=ungrounded)
    first = replace(answered[0], parsed=parsed)
    return first.plus(*(reading for reading in passes if reading is not answered[0]))
