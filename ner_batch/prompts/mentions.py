"""What the formats that list mentions (``json``, ``mrc``) share: lists to spans, and what a list can say.

A list says which strings are entities and in which order they stand, not where. Reading it back
(:func:`.align.ground`) takes, for every type, the first unused occurrence that is not cut out of a word, at
or after the mention before; those inside a longer mention last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ner_batch.data import Entity, Parsed, Status, Ungrounded, distinct
from ner_batch.text.align import ground


def reading_order(entities: Iterable[Entity]) -> list[Entity]:
    """By start, the longer first."""
    return sorted(entities, key=lambda e: (e.start, -e.end, e.type))


def sayable(text: str, entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """The entities that a list of mentions gives back, without score and verification (which no answer carries).

    Nesting and overlap are kept. Lost is an entity whose mention, read in order, lands elsewhere or nowhere: a later
    occurrence of a string whose earlier occurrence is no entity of that type, unless an entity between the two, or a
    longer one around the earlier, tells them apart; a span that starts or ends inside a word; white space at the edges.
    Entities are dropped first to last, one at a time, until the rest comes back. Of the gold entities of the Resume,
    MSRA, GENIA and Weibo test sets 100.0, 99.9, 99.8 and 99.0 % are sayable when all types are in one list.
    """
    kept = reading_order(distinct(replace(e, score=None, verified=None) for e in entities))
    while True:
        back = set(ground([(e.text, e.type) for e in kept], text)[0])
        lost = next((i for i, e in enumerate(kept) if e not in back), None)
        if lost is None:
            return tuple(sorted(kept))
        del kept[lost]


def read(said: Sequence[tuple[str, str]], text: str, labels: Sequence[str]) -> Parsed:
    """Mentions (surface, type), in the order said, as spans; what is no span of the text is in ``ungrounded``."""
    known = [(surface, label) for surface, label in said if label in labels]
    strange = tuple(Ungrounded(surface, label, "unknown type") for surface, label in said if label not in labels)
    entities, lost = ground(known, text)
    ungrounded = (*lost, *strange)
    return Parsed(distinct(entities), ungrounded, Status.OK, not ungrounded)
