"""The frozen values every module speaks, and the Arrow schemas they are stored in.

Offsets are Unicode code points of the untouched text, zero-based and half-open: ``text[start:end] == entity.text``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, TypedDict

import pyarrow as pa

OFFSET_UNIT = "codepoint"


class Message(TypedDict):
    """One chat turn, in the form chat templates understand. ``role`` is system, user or assistant."""

    role: str
    content: str


class Status(StrEnum):
    """What became of a row; from best to worst."""

    OK = "ok"
    EMPTY = "empty"  # null, empty or white-space text: nothing was asked
    PARTIAL = "partial"  # some windows or answers went wrong, others did not; `error` says how many of how many
    TRUNCATED = "truncated"  # the answer hit its token limit; entities before the cut are kept
    MALFORMED = "malformed"  # the answer is not in the format
    TOO_LONG = "too_long"  # the prompt does not fit the model; nothing was asked
    FAILED = "failed"  # the engine could not answer; `error` says why


ANSWERED = (Status.OK, Status.EMPTY)
"""Statuses of rows that have all there is to say; the others are no full answer."""


def worst(statuses: Iterable[Status]) -> Status:
    """The most severe of some statuses; ``ok`` for none."""
    return max(statuses, key=list(Status).index, default=Status.OK)


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """A typed span of a text. ``score`` is a probability or None where it was not computed; ``verified`` likewise."""

    start: int
    end: int
    type: str
    text: str
    score: float | None = None
    verified: bool | None = None
    task: str | None = None  # in a run of several

    def __repr__(self) -> str:
        return _repr(self, "start", "end", "type", "text")

    def shifted(self, offset: int) -> Entity:
        """The same entity in a text that begins ``offset`` code points earlier."""
        return replace(self, start=self.start + offset, end=self.end + offset)


@dataclass(frozen=True, slots=True)
class Ungrounded:
    """Something the model named that could not be placed in the text, and why."""

    text: str
    type: str
    reason: str
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A gold-annotated text: it trains, it is retrieved as a demonstration, and it is scored against."""

    id: str
    text: str
    entities: tuple[Entity, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """What the engine returned for one prompt; log-probabilities where they were asked for."""

    text: str
    finish_reason: str  # vLLM's ("stop", "length"), or "error" with the cause in `error`
    prompt_tokens: int
    completion_tokens: int
    error: str | None = None
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[Mapping[int, float], ...] = ()  # per token of the answer, by token id
    prompt_logprobs: tuple[float | None, ...] = ()  # of each of the prompt's own tokens; None for the first


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """A mention as an answer words it, and where in the answer its naming stands: code points, half-open."""

    text: str
    type: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Parsed:
    """An answer, read."""

    entities: tuple[Entity, ...]
    ungrounded: tuple[Ungrounded, ...]
    status: Status
    faithful: bool  # the answer is made of the source alone; where it is not, `auto` decoding asks again


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's outcome: exactly the columns the job adds."""

    entities: tuple[Entity, ...] = ()
    ungrounded: tuple[Ungrounded, ...] = ()
    status: Status = Status.OK
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __repr__(self) -> str:
        return _repr(self, "entities", "status")


def _repr(value: Entity | Prediction, *always: str) -> str:
    """As a dataclass shows itself, without the fields, but for some, that have their defaults."""
    telling = [field for field in fields(value) if field.name in always or getattr(value, field.name) != field.default]
    words = [(f.name, getattr(value, f.name)) for f in telling]
    parts = [f"{name}={str(v)!r}" if isinstance(v, Status) else f"{name}={v!r}" for name, v in words]
    return f"{type(value).__name__}({', '.join(parts)})"


def outermost(entities: Iterable[Entity]) -> list[Entity]:
    """Those that a line of text can show, in order: of some that overlap the first, of nested ones the outer one."""
    disjoint: list[Entity] = []
    for entity in sorted(entities, key=lambda entity: (entity.start, -entity.end)):
        if not disjoint or entity.start >= disjoint[-1].end:
            disjoint.append(entity)
    return disjoint


def highlight(text: str, entities: Iterable[Entity]) -> str:
    """The text with its entities marked, as in ``carriers of [cystic fibrosis|Disease]``.

    For people to read: of entities that overlap one is shown, and brackets of the text itself stay as they are.

    Args:
        text: the text that was read, untouched.
        entities: of a prediction or of gold, in any order.

    Returns:
        The text with ``[surface|type]`` in the place of each entity.

    Example:
        >>> from ner_batch import Entity, highlight
        >>> highlight("Countess Ada Lovelace", [Entity(9, 21, "PERSON", "Ada Lovelace")])
        'Countess [Ada Lovelace|PERSON]'
    """
    parts, done = [], 0
    for entity in outermost(entities):
        parts += [text[done : entity.start], f"[{text[entity.start : entity.end]}|{entity.type}]"]
        done = entity.end
    return "".join([*parts, text[done:]])


def clean(text: str) -> str:
    """``text`` with lone surrogates replaced by U+FFFD: one code point for one, so offsets stay."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def distinct(entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """Sorted by (start, end, type, task); the same span and type twice is one (the higher score stays)."""
    best: dict[tuple[int, int, str, str], Entity] = {}
    for entity in sorted(entities, key=lambda entity: -(entity.score or 0.0)):
        best.setdefault((entity.start, entity.end, entity.type, entity.task or ""), entity)
    return tuple(best[key] for key in sorted(best))


GOLD_ENTITY = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("type", pa.string()), ("text", pa.string())])
ENTITY = pa.struct([*GOLD_ENTITY, ("score", pa.float32()), ("verified", pa.bool_())])
UNGROUNDED = pa.struct([("text", pa.string()), ("type", pa.string()), ("reason", pa.string())])
EXAMPLES = pa.schema([("id", pa.string()), ("text", pa.string()), ("entities", pa.list_(GOLD_ENTITY))])


def predictions_schema(tagged: bool = False) -> pa.Schema:
    """The columns a job adds. ``tagged``: entities and ungrounded mentions name their task, for a run of several."""
    tag = [pa.field("task", pa.string())] if tagged else []
    return pa.schema(
        [
            pa.field("entities", pa.list_(pa.struct([*ENTITY, *tag])), nullable=False),
            pa.field("ungrounded", pa.list_(pa.struct([*UNGROUNDED, *tag])), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            pa.field("error", pa.string()),
            pa.field("prompt_tokens", pa.int32(), nullable=False),
            pa.field("completion_tokens", pa.int32(), nullable=False),
        ]
    )


PREDICTIONS = predictions_schema()


def predictions_table(predictions: Sequence[Prediction], tagged: bool = False) -> pa.Table:
    """Predictions as an Arrow table with the columns that a job writes, one row each, in order.

    Args:
        predictions: of any texts.
        tagged: whether entities name their task, where several tasks read.

    Example:
        >>> from ner_batch import Entity, Prediction, Status, predictions_table
        >>> table = predictions_table([Prediction((Entity(0, 3, "PERSON", "Ada"),)), Prediction(status=Status.EMPTY)])
        >>> table["status"].to_pylist()
        ['ok', 'empty']
    """
    rows = [
        _values(p) | {"entities": list(map(_values, p.entities)), "ungrounded": list(map(_values, p.ungrounded))}
        for p in predictions
    ]
    return pa.Table.from_pylist(rows, schema=predictions_schema(tagged))


def _values(value: Prediction | Entity | Ungrounded) -> dict[str, Any]:
    """The fields by name. `dataclasses.asdict` would take 0.08 ms for a row of ten entities, this takes 0.01."""
    return {name: getattr(value, name) for name in value.__slots__}


def predictions_of(table: pa.Table) -> list[Prediction]:
    """The predictions in a table that has the columns of :data:`PREDICTIONS`, in order."""
    predictions = []
    for row in table.select(PREDICTIONS.names).to_pylist():
        row["entities"] = tuple(Entity(**entity) for entity in row["entities"])
        row["ungrounded"] = tuple(Ungrounded(**mention) for mention in row["ungrounded"])
        row["status"] = Status(row["status"])
        predictions.append(Prediction(**row))
    return predictions
