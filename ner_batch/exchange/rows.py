"""Rows to export: of gold, or of an extraction's output, read unit by unit and checked against their texts."""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ner_batch.data import Entity, Status
from ner_batch.errors import UserError
from ner_batch.io import storage, tables
from ner_batch.io.examples import fitted_entity, is_spans
from ner_batch.io.listing import list_shards, read_unit
from ner_batch.io.shards import Unit, plan_units, texts_of
from ner_batch.jobs.record import check_task, is_unfinished, named_columns, read_manifest, task_types

ALL = "all"
REJECTED = "entities that verification rejected, left out"
NO_TEXT = "rows without text, left out"
UNGROUNDED = "mentions that are not in their text (ungrounded), left out"

_UNIT_ROWS, _UNIT_BYTES = 5_000, 16 * 2**20  # read at a time


@dataclass(frozen=True, slots=True)
class Row:
    """One text with its entities, sorted and fitting it.

    ``status`` is None in gold. ``ungrounded`` is how many mentions the model named that are not in the text.
    """

    id: str
    text: str
    entities: tuple[Entity, ...]
    status: Status | None = None
    ungrounded: int = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """What is exported, before it is read. ``report`` are lines on what is passed over."""

    units: tuple[Unit, ...]
    is_output: bool
    """Whether these are an extraction's, with a status; else gold."""
    text_column: str = "text"
    id_column: str | None = None
    task: str | None = None
    """Of a run of several tasks: the one whose entities are taken."""
    statuses: frozenset[str] = frozenset({Status.OK})
    """Rows of other ones are left out; gold has none."""
    task_types: tuple[str, ...] = ()
    """Those the run looked for, in the task's order; of gold nothing says which they are."""
    tasks_may_mix: bool = False
    """Whether entities of several tasks may stand side by side, as where each names its task."""
    keep_rejected: bool = False
    report: tuple[str, ...] = field(default=())

    def read(self, counts: Counter[str]) -> Iterator[Row]:
        """The rows in order, files by name; ``counts`` gains what is left out, by its words.

        Raises:
            UserError: a row that is wrong, named by file and number; or entities of several tasks of which none is
                chosen.
        """
        for unit in self.units:
            for number, values in self._values(unit):
                row = self._row(f"{unit.shard.uri} row {number}", values, f"{_stem(unit.shard.name)}-{number}", counts)
                if row is not None:
                    yield row

    def types(self) -> set[str]:
        """The types of all entities; reads everything once."""
        return {entity.type for row in self.read(Counter()) for entity in row.entities}

    def _values(self, unit: Unit) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows of a unit as plain values, by their number in the file."""
        names = {"entities", self.text_column, *([self.id_column] if self.id_column else [])}
        names |= {"status", "ungrounded"} & set(unit.shard.columns) if self.is_output else set()
        with storage.explained(unit.shard.uri):
            table = read_unit(unit, sorted(names))
        if not is_spans(table["entities"]):
            kind = table["entities"].type
            raise UserError(f"{unit.shard.uri}: column 'entities' is {kind}, not a list of {{start, end, type}}")
        texts, wrong = texts_of(table, self.text_column)
        with tables.parsed(unit.shard.uri):
            rows = table.drop_columns([self.text_column]).to_pylist()
        for number, (row, text) in enumerate(zip(rows, texts, strict=True), unit.start):
            if number - unit.start in wrong:
                raise UserError(f"{unit.shard.uri} row {number}: {wrong[number - unit.start]}")
            own = row[self.id_column] if self.id_column else None
            yield number, {**row, "text": text, "id": own}

    def _row(self, place: str, values: Mapping[str, Any], number: str, counts: Counter[str]) -> Row | None:
        """A row, checked; None where it is left out."""
        status = None
        if self.is_output:
            if values["status"] not in [*Status]:
                raise UserError(f"{place}: status {values['status']!r} is none of ner_batch's: is this its output?")
            status = Status(values["status"])
            if status not in self.statuses:
                remedy = (
                    f" (--status ok --status {status} takes both)"
                    if status in (Status.PARTIAL, Status.TRUNCATED)
                    else ""
                )
                counts[f"rows of status {status}, left out{remedy}"] += 1
                return None
        if values["text"] is None or values["entities"] is None:
            if status is None:
                null = "text" if values["text"] is None else "entities"
                raise UserError(f"{place}: {null} is null: leave out rows that nobody has read")
            counts[NO_TEXT] += 1
            return None
        entities = []
        for span in values["entities"]:
            entity = _entity(span, values["text"], place)
            if self.task is not None and entity.task not in (None, self.task):  # of a single task none is named
                counts[f"entities of other tasks than {self.task}, left out"] += 1
            elif entity.verified is False and not self.keep_rejected:
                counts[REJECTED] += 1
            else:
                entities.append(entity)
        tasks = {entity.task for entity in entities}
        if len(tasks) > 1 and not self.tasks_may_mix:
            raise UserError(
                f"{place}: entities of several tasks ({', '.join(sorted(map(str, tasks)))}): name one (--task)"
            )
        ungrounded = len(values.get("ungrounded") or ())
        counts[UNGROUNDED] += ungrounded
        id_ = _id(values["id"], number, place)
        return Row(id_, values["text"], tuple(sorted(entities, key=_place)), status, ungrounded)


def open_rows(
    uri: str,
    *,
    text_column: str | None = None,
    id_column: str | None = None,
    task: str | None = None,
    statuses: Sequence[str] = (),
) -> Rows:
    """List what is exported: gold, or an extraction's output, which has a column ``status``.

    ``text_column`` None: as the run's manifest says, ``text`` without one. ``id_column`` None: as the manifest says,
    else ``id``, where every file has it; else the file's name and the row's number. ``statuses`` none: ``ok`` alone;
    ``all`` takes every row.

    Raises:
        UserError: unreadable files, a missing column, an unknown status or task, or no rows.
    """
    manifest = read_manifest(uri)
    check_task(manifest, task, "--task")
    texts, ids = named_columns(manifest)
    text_column, id_column = text_column or texts, id_column or ids
    listing = list_shards(storage.absolute(uri), text_column)
    problems = [f"{file.uri}: not a readable file ({file.reason})" for file in listing.corrupt]
    shards = listing.shards
    if id_column is None and all("id" in shard.columns for shard in shards):
        id_column = "id"
    without_status = [shard.uri for shard in shards if "status" not in shard.columns]
    is_output = not without_status
    if 0 < len(without_status) < len(shards):  # as gold, rows that no model has read would count as read
        problems.append(f"{without_status[0]}: no column 'status', which others have: export gold and output apart")
    for shard in shards:
        missing = {"entities", *([id_column] if id_column else [])} - set(shard.columns)
        problems += [f"{shard.uri}: no column {name!r} among {', '.join(shard.columns)}" for name in sorted(missing)]
    if id_column == text_column:
        problems.append(f"--id-column {id_column}: that is the column of the texts: name another")
    if statuses and not is_output:
        problems.append(f"{uri}: no column 'status': --status is for the output of an extraction")
    names = [*Status, ALL]
    problems += [f"--status {status}: known are {', '.join(names)}" for status in statuses if status not in names]
    if not problems and not sum(shard.rows for shard in shards):
        problems.append(f"{uri}: has no rows")
    if problems:
        raise UserError("\n".join(problems))
    report = [f"{uri}: {listing.about_passed_over}"] if listing.about_passed_over else []
    if is_output and is_unfinished(uri):
        report.append(f"{uri}: its manifest says that the run is not complete")
    taken = frozenset(Status if ALL in statuses else statuses or {Status.OK})
    units = plan_units(shards, _UNIT_ROWS, _UNIT_BYTES)
    return Rows(
        units,
        is_output,
        text_column,
        id_column,
        task,
        taken,
        task_types=task_types(manifest, task),
        report=tuple(report),
    )


def count_scores(row: Row, counts: Counter[str]) -> None:
    """Count the scores of a row that a kind of file has no place for."""
    counts["scores of entities, left out"] += sum(entity.score is not None for entity in row.entities)


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _place(entity: Entity) -> tuple[int, int, str, str]:
    return entity.start, entity.end, entity.type, entity.task or ""


def _id(own: object, number: str, place: str) -> str:
    """A row's own id, or its file and number where it has none."""
    if not isinstance(own, str | int | None):
        raise UserError(f"{place}: id is {type(own).__name__}, not a string or a whole number: name another column")
    return number if own is None else str(own)


def _entity(span: Mapping[str, Any] | None, text: str, place: str) -> Entity:
    """An entity that fits its text, as gold's must, with its score, verdict and task."""
    entity = fitted_entity(span, text, place)
    if not entity.type or not entity.type.isprintable():
        raise UserError(f"{place}: type {entity.type!r} is empty or cannot be printed: correct it")
    assert span
    score = span.get("score")
    if score is not None and not (isinstance(score, float) and math.isfinite(score) and 0 <= score <= 1):
        where = f"{place}: entity [{entity.start}, {entity.end}) {entity.type}"
        raise UserError(f"{where} has the score {score!r}, which is no probability")
    return replace(entity, score=score, verified=span.get("verified"), task=span.get("task"))
