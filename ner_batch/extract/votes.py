"""Self-consistency: the same prompts answered several times, and the share of answers that name an entity.

After Wang et al. (2023, "Self-consistency improves chain of thought reasoning"), with votes on single entities, as in
ReverseNER (2024). The prompts are the same, so all passes but the first find them in the prefix cache: what a pass
costs is its answer's tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ner_batch.data import Entity, Status, distinct
from ner_batch.extract.reading import Reading


def vote(passes: Sequence[Reading], least: float) -> Reading:
    """One reading out of several of the same prompt.

    An entity stays if at least the share ``least`` of the passes that were answered in full name it; this share is its
    score. Without any full answer the best of the readings stands. Tokens of all passes are counted, and what any of
    them named that is not in the text is ungrounded.
    """
    answered = [reading for reading in passes if reading.parsed.status is Status.OK]
    spent = (sum(r.prompt_tokens for r in passes), sum(r.completion_tokens for r in passes))
    if not answered:
        return replace(min(passes, key=_severity), prompt_tokens=spent[0], completion_tokens=spent[1])
    votes = Counter(e for r in answered for e in {_plain(e) for e in r.parsed.entities})
    shares = [(entity, count / len(answered)) for entity, count in votes.items()]
    kept = distinct(replace(entity, score=share) for entity, share in shares if share >= least)
    ungrounded = tuple(dict.fromkeys(u for r in passes for u in r.parsed.ungrounded))
    parsed = replace(answered[0].parsed, entities=kept, ungrounded=ungrounded)
    return Reading(parsed, answered[0].error, *spent)


def _severity(reading: Reading) -> int:
    return list(Status).index(reading.parsed.status)


def _plain(entity: Entity) -> Entity:
    return replace(entity, score=None, verified=None)
