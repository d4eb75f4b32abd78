"""Texts for annotation out of an extraction's output: the least certain, those that two runs disagree on, or any.

How uncertain a row is, from 0 to 1: twice the probability that the most doubtful of its entities was decided wrongly,
at most 1. That is ``min(1, 2 (1 - score))`` for an entity that stands, and ``min(1, 2 score)`` for one that
verification rejected, whose score is P(yes); so a probability of a half or less is as uncertain as it gets. 1 too where
the answer itself went wrong (``partial``, ``truncated``, ``malformed``) or named what is not in the text
(``ungrounded``). An entity without a score says nothing. Rows that no model has read (``empty``, ``too_long``,
``failed``) are left out. This is least-confidence sampling (Lewis and Gale 1994), by the worst entity of a text.

How much two runs disagree on a row: the share of their entities (start, end, type) that only one has,
``1 - 2 |A and B| / (|A| + |B|)``; 0 where both have none.

Near-duplicates are not all taken: of the ``10 x count`` rows that rank first, the next one taken is always that with
the greatest product of its rank value and its distance from those already taken, farthest first (Gonzalez 1985); the
distance is 1 - the cosine of TF-IDF vectors of character 1- to 3-grams of its first 4,000 characters. ``random`` takes
rows alone by a hash of seed, file and number, without spread, so that it can be compared with.

Everything is deterministic: ties are broken by that same hash. One pass ranks with numbers alone in memory, and a
second one reads the texts of the candidates.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Literal, get_args

import numpy as np

from ner_batch.data import Entity, Status
from ner_batch.errors import UserError
from ner_batch.exchange.rows import NO_TEXT, REJECTED, UNGROUNDED, Row, Rows

By = Literal["uncertain", "disagreement", "random"]
_UNREAD = frozenset({Status.EMPTY, Status.TOO_LONG, Status.FAILED})
_CANDIDATES = 10  # for each row that is taken; spreading costs count x candidates comparisons
_MOST_CANDIDATES = 20_000
_CHARACTERS = 4_000  # of a text that are compared
_LEAST = 1e-6  # the rank value of rows that are certain, so that these too are spread


@dataclass(frozen=True, slots=True)
class Selection:
    """What to take: ``count`` rows, by what, and for ``disagreement`` the other run on the same rows."""

    by: By
    count: int
    seed: int = 0
    against: Rows | None = None
    spread: bool = True


def make_selection(
    by: str | None,
    statuses: Sequence[str] | None,
    *,
    count: int | None,
    seed: int | None,
    against: Rows | None,
    spread: bool | None,
) -> Selection | None:
    """A selection out of what a person gave, None where nothing. Raises UserError where it does not fit together."""
    if by is None:
        flags = {"--count": count, "--seed": seed, "--against": against, "--spread": spread}
        for flag in (flag for flag, value in flags.items() if value is not None):
            raise UserError(f"{flag}: only with --select: give --select uncertain, disagreement or random")
        return None
    if by not in get_args(By):
        raise UserError(f"--select {by}: known are {', '.join(get_args(By))}")
    if count is None:
        raise UserError("--select needs --count N, the number of texts to take")
    if (by == "disagreement") != (against is not None):
        raise UserError("--select disagreement and --against RUN belong together: give both")
    if by == "random" and spread:
        raise UserError("--spread: a random draw is not spread: leave it out")
    if statuses:
        raise UserError("--status: --select decides itself which rows it takes: leave it out")
    return Selection(by, count, seed or 0, against, by != "random" and spread is not False)  # type: ignore[arg-type]


def select(rows: Rows, selection: Selection, counts: Counter[str]) -> tuple[list[Row], list[str]]:
    """The rows taken, first those that rank first, and a line on how they ranked. ``counts`` gains what was left out.

    Raises:
        UserError: gold, which has nothing uncertain; two runs that are not on the same rows; or rows that are wrong.
    """
    if not rows.is_output:
        raise UserError("--select is for the output of an extraction: there is no column 'status'")
    every = replace(rows, statuses=frozenset(Status), keep_rejected=True)
    scored: Counter[bool] = Counter()
    best = _best(_valued(every, selection, counts), selection, scored)
    numbers = {number: place for place, (_, _, number) in enumerate(best)}
    by_place: dict[int, Row] = {}
    for number, row in enumerate(every.read(Counter())):
        if number in numbers:
            by_place[numbers[number]] = row
    candidates = [by_place[place] for place in range(len(best))]
    values = [value for value, _, _ in best]
    places = (
        _spread(candidates, values, selection.count)
        if selection.spread
        else range(min(selection.count, len(candidates)))
    )
    taken = [candidates[place] for place in places]
    counts[UNGROUNDED] += sum(row.ungrounded for row in taken)
    if not rows.keep_rejected:
        counts[REJECTED] += sum(entity.verified is False for row in taken for entity in row.entities)
        standing = [tuple(entity for entity in row.entities if entity.verified is not False) for row in taken]
        taken = [replace(row, entities=entities) for row, entities in zip(taken, standing, strict=True)]
    lines = []
    if taken and selection.by != "random":
        rank_values = [values[place] for place in places]
        statuses = Counter(str(row.status) for row in taken)
        composition = ", ".join(f"{count:,} {status}" for status, count in sorted(statuses.items()))
        lines.append(f"{selection.by} from {max(rank_values):.2f} down to {min(rank_values):.2f}: {composition}")
    if selection.by == "uncertain" and scored[False]:
        lines.append(
            f"{scored[False]:,} of {scored.total():,} rows have entities without a score, which count as certain"
        )
    if len(taken) < selection.count:
        lines.append(f"only {len(taken):,} rows could be taken, not {selection.count:,}")
    return taken, lines


def _best(
    valued: Iterable[tuple[Row, float | None]], selection: Selection, scored: Counter[bool]
) -> list[tuple[float, int, int]]:
    """Rank value, hash and number of the candidates, first those that rank first.

    ``scored`` counts ranked rows by whether all of their entities have a score.
    """
    candidate_count = selection.count
    if selection.spread:
        candidate_count = max(candidate_count, min(_CANDIDATES * candidate_count, _MOST_CANDIDATES))
    heap: list[tuple[float, int, int]] = []  # the last of those that rank first is its first
    for number, (row, value) in enumerate(valued):
        if value is None:
            continue
        scored[all(entity.score is not None for entity in row.entities)] += 1
        entry = (value, _hash(selection.seed, row.id, number), number)
        if len(heap) < candidate_count:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    return sorted(heap, reverse=True)


def uncertainty(row: Row) -> float:
    """From 0 to 1; see the module."""
    if row.ungrounded or row.status in (Status.PARTIAL, Status.TRUNCATED, Status.MALFORMED):
        return 1.0
    doubts = [
        2 * (entity.score if entity.verified is False else 1 - entity.score)
        for entity in row.entities
        if entity.score is not None
    ]
    return min(1.0, max(doubts, default=0.0))


def disagreement(entities: Sequence[Entity], others: Sequence[Entity]) -> float:
    """From 0 to 1; see the module."""
    ours, theirs = ({(e.start, e.end, e.type) for e in each if e.verified is not False} for each in (entities, others))
    return 1 - 2 * len(ours & theirs) / (len(ours) + len(theirs)) if ours or theirs else 0.0


def _valued(rows: Rows, selection: Selection, counts: Counter[str]) -> Iterator[tuple[Row, float | None]]:
    """Every row with its rank value; None where it is left out, which is counted."""
    other = selection.against
    partners = None if other is None else replace(other, statuses=frozenset(Status), keep_rejected=True).read(Counter())
    reading: Counter[str] = Counter()
    for row, partner in zip_longest(rows.read(reading), partners if partners is not None else ()):
        if row is None or (partners is not None and (partner is None or partner.text != row.text)):
            raise UserError(
                f"--against: the runs differ at the row {'that only it has' if row is None else row.id!r}: both must "
                "have read the same texts, and be complete"
            )
        statuses = {row.status, partner.status if partner else row.status}
        if unread := statuses & _UNREAD:
            counts[f"rows of status {min(map(str, unread))}, which no model has read, left out"] += 1
            yield row, None
        elif selection.by == "random":
            yield row, 0.0
        elif partner is not None:
            yield row, disagreement(row.entities, partner.entities)
        else:
            yield row, uncertainty(row)
    counts[NO_TEXT] += reading[NO_TEXT]


def _hash(seed: int, id_: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{number}\0{id_}".encode()).digest()[:8], "little")


def _spread(rows: Sequence[Row], values: Sequence[float], count: int) -> list[int]:
    """Places of the rows taken, in the order in which they are."""
    if not rows:
        return []
    from ner_batch.retrieval.lexical import NgramTfidf

    vectors = NgramTfidf().fit_transform([row.text[:_CHARACTERS] for row in rows])
    gains = np.maximum(np.asarray(values, np.float64), _LEAST)
    distance = np.ones(len(rows))
    places: list[int] = []
    for _ in range(min(count, len(rows))):
        product = gains * distance
        product[places] = -1.0
        place = int(product.argmax())  # the first of equal ones, which ranks before the others
        places.append(place)
        cosines = (vectors @ vectors[place].T).toarray().ravel()
        distance = np.minimum(distance, np.clip(1.0 - cosines, 0.0, 1.0))
    return places
