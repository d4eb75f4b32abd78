"""Claims about gold: entities that a text has, and ones that it does not have but nearly might.

They train verification and demonstrate it (:mod:`ner_batch.verification.pool`).
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from ner_batch.data import Entity, Example
from ner_batch.text.boundaries import word_chunks


@dataclass(frozen=True, slots=True)
class Claim:
    """Something said about a text, and whether it is so: a demonstration of the question, or a sample of it."""

    text: str
    entity: Entity
    true: bool


def claims(example: Example, names: Sequence[str], count: int, seed: str) -> list[Claim]:
    """``count`` claims about an example, true and false in turn as far as there are true ones. Deterministic.

    A coin decides which comes first, so that a single claim is as often false as true. The false ones are near the
    truth: an entity with an edge moved by a word or two, an entity under another type, and, where nothing else can be
    made, some other run of words.
    """
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    true = rng.sample(example.entities, len(example.entities))
    wanted = rng.random() < 0.5
    made: list[Claim] = []
    while len(made) < count:
        false = None if wanted and true else corrupted(example, names, rng)
        if false is None and not true:
            break
        made.append(Claim(example.text, false or true.pop(), false is None))
        wanted = not wanted
    return made


def corrupted(example: Example, names: Sequence[str], rng: random.Random) -> Entity | None:
    """An entity that the example does not have: a moved edge, another type, or other words; None if there is none."""
    gold = {(e.text, e.type) for e in example.entities}
    kinds = [_moved, _retyped] if example.entities else []
    for make in [*rng.sample(kinds, len(kinds)), _other_words]:
        possible = [e for e in make(example, names, rng) if e.text.strip() and (e.text, e.type) not in gold]
        if possible:
            return rng.choice(possible)
    return None


def _moved(example: Example, _names: Sequence[str], rng: random.Random) -> Iterable[Entity]:
    return moved(example.text, rng.choice(example.entities), word_edges(example.text))


def moved(text: str, entity: Entity, edges: Sequence[int]) -> Iterator[Entity]:
    """The entity with one of its edges a word or two further in or out; ``edges`` are the text's word edges."""
    for start in _near(edges, entity.start):
        yield from _spans(text, [(start, entity.end)], entity.type)
    for end in _near(edges, entity.end):
        yield from _spans(text, [(entity.start, end)], entity.type)


def _retyped(example: Example, names: Sequence[str], rng: random.Random) -> Iterable[Entity]:
    entity = rng.choice(example.entities)
    return [replace(entity, type=label) for label in names if label != entity.type]


def _other_words(example: Example, names: Sequence[str], rng: random.Random) -> Iterable[Entity]:
    """Runs of one to four words anywhere, each under a label drawn at random."""
    edges = word_edges(example.text)
    for _ in range(8):
        first = rng.randrange(max(1, len(edges) - 1))
        last = min(first + rng.randint(1, 4), len(edges) - 1)
        yield from _spans(example.text, [(edges[first], edges[last])], rng.choice(names))


def _spans(text: str, spans: Iterable[tuple[int, int]], label: str) -> Iterable[Entity]:
    """Entities of a type, without white space at their edges; empty ones are left out."""
    for start, end in spans:
        surface = text[start:end].strip()
        if surface:
            at = text.index(surface, start)
            yield Entity(at, at + len(surface), label, surface)


def word_edges(text: str) -> list[int]:
    """Where words begin and end, in code points."""
    return list(accumulate(map(len, word_chunks(text)), initial=0))


def _near(edges: Sequence[int], place: int) -> Sequence[int]:
    """The two edges before and after a place."""
    before, after = bisect_left(edges, place), bisect_right(edges, place)
    return (*edges[max(0, before - 2) : before], *edges[after : after + 2])
