"""Examples of the verification question, made of gold: entities that a text has, and hard negatives."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from ner_batch.data import Entity, Example
from ner_batch.text.boundaries import word_chunks


@dataclass(frozen=True, slots=True)
class VerificationExample:
    """An entity claimed of a text, and whether the gold has it."""

    text: str
    entity: Entity
    is_true: bool


def verification_examples(example: Example, names: Sequence[str], count: int, seed: str) -> list[VerificationExample]:
    """Up to ``count`` questions about a gold example, true and false in turn as far as there are true ones.

    Deterministic. A coin decides which comes first, so that a single one is as often false as true. There are fewer
    than ``count`` where neither kind is left. ``names`` are the task's types; another ``seed`` gives other questions.
    """
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    positives = rng.sample(example.entities, len(example.entities))
    positive_next = rng.random() < 0.5
    examples: list[VerificationExample] = []
    while len(examples) < count:
        negative = None if positive_next and positives else hard_negative(example, names, rng)
        if negative is not None:
            examples.append(VerificationExample(example.text, negative, is_true=False))
        elif positives:
            examples.append(VerificationExample(example.text, positives.pop(), is_true=True))
        else:
            break
        positive_next = not positive_next
    return examples


def hard_negative(example: Example, names: Sequence[str], rng: random.Random) -> Entity | None:
    """An entity that the example does not have but nearly might; None if there is none.

    Its edge is moved by a word or two, or its type is another; where neither can be made, it is any run of words.
    """
    gold, edges = {(e.text, e.type) for e in example.entities}, word_edges(example.text)
    kinds = rng.sample(["edge", "type"], 2) if example.entities else []
    for kind in [*kinds, "words"]:
        if kind == "words":
            candidates = _random_words(example.text, edges, names, rng)
        else:
            entity = rng.choice(example.entities)
            others = (replace(entity, type=name) for name in names if name != entity.type)
            candidates = shift_boundary(example.text, entity, edges) if kind == "edge" else others
        negatives = [e for e in candidates if e.text.strip() and (e.text, e.type) not in gold]
        if negatives:
            return rng.choice(negatives)
    return None


def shift_boundary(text: str, entity: Entity, edges: Sequence[int]) -> Iterator[Entity]:
    """The entity with one of its edges a word or two further in or out; ``edges`` are the text's word edges."""
    starts = [(start, entity.end) for start in _adjacent_edges(edges, entity.start)]
    ends = [(entity.start, end) for end in _adjacent_edges(edges, entity.end)]
    return _spans(text, starts + ends, entity.type)


def _random_words(text: str, edges: Sequence[int], names: Sequence[str], rng: random.Random) -> Iterator[Entity]:
    """Runs of one to four words anywhere, each under a label drawn at random."""
    for _ in range(8):
        first = rng.randrange(max(1, len(edges) - 1))
        last = min(first + rng.randint(1, 4), len(edges) - 1)
        yield from _spans(text, [(edges[first], edges[last])], rng.choice(names))


def _spans(text: str, spans: Iterable[tuple[int, int]], label: str) -> Iterator[Entity]:
    """Entities of a type, without white space at their edges; empty ones are left out."""
    for start, end in spans:
        surface = text[start:end].strip()
        if surface:
            at = text.index(surface, start)
            yield Entity(at, at + len(surface), label, surface)


def word_edges(text: str) -> list[int]:
    """Where words begin and end, in code points."""
    return list(accumulate(map(len, word_chunks(text)), initial=0))


def _adjacent_edges(edges: Sequence[int], place: int) -> Sequence[int]:
    """The two edges before and after a place."""
    before, after = bisect_left(edges, place), bisect_right(edges, place)
    return (*edges[max(0, before - 2) : before], *edges[after : after + 2])
