"""Rows of the sample as values for the page's script: texts folded where they are long, spans with kinds of error."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ner_batch.data import Entity, Prediction, clean
from ner_batch.evaluate.match import OUTCOMES, Span, align, outcome
from ner_batch.report.output import SampleRow

HEAD, CONTEXT = 400, 160
"""Code points shown of a long text: at its beginning, and on both sides of an entity."""
PAGE_CHARACTERS = 24_000_000
MOST_CHARACTERS = 20_000
"""A text that is longer is folded; a shorter one too where all rows together would be longer than a page's."""
MOST_SPANS = 1000
"""Entities of a row on the page; they are the first ones."""
MOST_MENTIONS = 200
WORDS = 300
"""Code points of an ungrounded mention, of an id and of an error."""


@dataclass(slots=True)
class Names:
    """Strings that occur often, by number: rows name types, tasks and statuses by their place here."""

    values: list[str] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def place(self, name: str) -> int:
        """The number of a name; a new one has the next."""
        if name not in self._places:
            self._places[name] = len(self.values)
            self.values.append(name)
        return self._places[name]


class PageRows:
    """Rows for the page's script, and the names that they use. ``count`` rows will come: it decides what is long."""

    def __init__(self, count: int, types: Iterable[str]) -> None:
        self.types, self.tasks, self.statuses = Names(), Names(), Names()
        for type_ in types:
            self.types.place(type_)
        self._limit = min(MOST_CHARACTERS, max(4 * HEAD, PAGE_CHARACTERS // max(1, count)))

    def values(
        self,
        row: SampleRow,
        gold: tuple[Sequence[Span], Sequence[Span]] | None,
        other: Prediction | None,
        *,
        compared: bool,
    ) -> dict[str, Any]:
        """A row. ``gold`` has gold and predicted spans as they were scored; ``other`` is the other run's prediction.

        With gold, spans have a kind of error of it; else, where runs are ``compared``, as if the other run were gold.
        """
        own = row.prediction
        kinds: Kinds = ({}, {})
        if gold:
            kinds = kinds_of(*gold)
        elif compared and other:
            kinds = kinds_of(_spans(other.entities), _spans(own.entities))
        spans = [span[:2] for span in _spans(own.entities)]
        spans += [span[:2] for span in gold[0]] if gold else []
        spans += [span[:2] for span in _spans(other.entities)] if other else []
        text = clean(row.text or "")
        parts = [] if row.text is None else fold(text, spans, self._limit)
        values: dict[str, Any] = {
            "unit": f"{row.unit}:{row.place[1]}",
            "status": self.statuses.place(own.status),
            "tokens": [own.prompt_tokens, own.completion_tokens],
            "length": len(text),
            "text": [[start, text[start:end]] for start, end in parts] if row.text is not None else None,
            "own": self._entities(own.entities, parts, kinds[1]),
        }
        if row.id is not None:
            values["id"] = _short(row.id)
        if own.error:
            values["error"] = _short(own.error)
        if own.ungrounded:
            values["ungrounded"] = [
                [_short(m.text), self.types.place(m.type), _short(m.reason), self._task(m.task)]
                for m in own.ungrounded[:MOST_MENTIONS]
            ]
        if gold:
            surfaces = (Entity(start, end, type_, "") for start, end, type_ in gold[0])
            values["gold"] = self._entities(surfaces, parts, kinds[0])
        if other:
            of_other = kinds[0] if compared and not gold else {}
            values["other"] = self._entities(other.entities, parts, of_other)
            values["other_status"] = self.statuses.place(other.status)
            values["differs"] = set(_spans(other.entities)) != set(_spans(own.entities))
        entity_counts = {"own": len(own.entities), "gold": len(gold[0]) if gold else 0}
        left_out = {side: count - len(values.get(side, ())) for side, count in entity_counts.items()}
        return values | {"left_out": left_out["own"] + left_out["gold"]}

    def _entities(
        self, entities: Iterable[Entity], parts: Sequence[tuple[int, int]], kinds: Mapping[Span, int]
    ) -> list[list[Any]]:
        """[start, end, type, score, verified, task, kind] of those that lie in what is shown of the text."""
        values: list[list[Any]] = []
        for e in entities:
            if len(values) == MOST_SPANS:
                break
            if any(start < e.end and e.start < end for start, end in parts) or not parts:
                score = None if e.score is None or math.isnan(e.score) else round(e.score, 4)
                kind = kinds.get((e.start, e.end, e.type))
                values.append([e.start, e.end, self.types.place(e.type), score, e.verified, self._task(e.task), kind])
        return values

    def _task(self, task: str | None) -> int | None:
        return None if task is None else self.tasks.place(task)


Kinds = tuple[dict[Span, int], dict[Span, int]]
"""Of gold and of predicted spans: the number of their outcome in :data:`ner_batch.evaluate.match.OUTCOMES`."""


def kinds_of(gold: Collection[Span], predicted: Collection[Span]) -> Kinds:
    """What each span is, as the evaluation pairs them."""
    of_gold: dict[Span, int] = {}
    of_predicted: dict[Span, int] = {}
    for pair in align(gold, predicted):
        kind = OUTCOMES.index(outcome(pair))
        for side, span in zip((of_gold, of_predicted), pair, strict=True):
            if span:
                side[span] = kind
    return of_gold, of_predicted


def fold(text: str, spans: Iterable[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """The parts of a text to show, in order: all of it up to ``limit`` code points, else its head and around spans.

    Of a span that is itself long both ends are shown. No more than the limit is shown, which the first spans get.
    """
    if len(text) <= limit:
        return [(0, len(text))]
    contexts = [(0, HEAD)]
    for start, end in spans:
        ends = [(start, end)] if end - start <= 2 * CONTEXT else [(start, start + 1), (end - 1, end)]
        contexts += [(max(0, first - CONTEXT), min(len(text), last + CONTEXT)) for first, last in ends]
    joined: list[tuple[int, int]] = []
    for start, end in sorted(contexts):
        if joined and start <= joined[-1][1] + CONTEXT:  # a fold of less than that saves nothing
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    parts, left = [], limit
    for start, end in joined:
        if left <= 0:
            break
        parts.append((start, min(end, start + left)))
        left -= end - start
    return parts


def _spans(entities: Iterable[Entity]) -> list[Span]:
    return [(entity.start, entity.end, entity.type) for entity in entities]


def _short(words: str) -> str:
    return words if len(words) <= WORDS else f"{words[:WORDS]}…"
