"""Rows of predictions or gold, read from their shards into one shape, each span checked against its text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ner_batch.data import is_spans
from ner_batch.errors import UserError
from ner_batch.evaluate.faults import Faults, fault
from ner_batch.io.shards import Unit, read_unit, texts_of

STATUS = "status"
SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("type", pa.string()), ("score", pa.float32())])
SPANS = pa.list_(SPAN)


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from. ``name`` is the config's section, for messages; ``columns`` maps our names to theirs.

    Ours are ``id`` and ``text`` (either may be missing) and the columns of spans: ``entities``, ``gold`` or both.
    """

    name: str
    units: tuple[Unit, ...]
    columns: dict[str, str]
    task: str | None = None
    """Only its entities are read."""
    rejected: bool = False
    """Whether entities that verification rejected are read too."""

    @property
    def rows(self) -> int:
        """Rows in all of its units."""
        return sum(unit.rows for unit in self.units)

    @property
    def spans(self) -> list[str]:
        """Our names of its columns of spans."""
        return [name for name in ("entities", "gold") if name in self.columns]


def read(source: Source, unit: Unit) -> tuple[pa.Table, Faults]:
    """A unit's rows as ``id``, ``text`` (if there is one), ``status`` and columns of type :data:`SPANS`.

    Where there are faults, the table is not to be used. Without an id column a row is named by shard and number.

    Raises:
        UserError: the file is corrupt, is not the file that was listed, or has columns of other types.
    """
    wanted = list(dict.fromkeys(source.columns.values()))
    if STATUS in unit.shard.columns and "entities" in source.columns:
        wanted = list(dict.fromkeys([*wanted, STATUS]))
    table = read_unit(unit, wanted)
    _check_types(source, unit, table.schema)
    ids, faults = _ids(source, unit, table)
    columns: dict[str, pa.Array] = {"id": ids}
    texts = _texts(source, table)
    if texts is not None:
        columns["text"] = pa.array(texts, pa.string())
    if "entities" in source.columns:
        columns[STATUS] = table[STATUS].cast(pa.string()) if STATUS in wanted else pa.nulls(len(table), pa.string())
    for name in source.spans:
        column = source.columns[name]
        given = _of_task(table[column].combine_chunks(), source.task if name == "entities" else None, unit.shard.uri)
        given = _accepted(given) if name == "entities" and not source.rejected else given
        columns[name], wrong = _spans(f"{source.name}: column {column!r}", given, ids, texts)
        faults += wrong
    return pa.table(columns), faults


def _check_types(source: Source, unit: Unit, schema: pa.Schema) -> None:
    """Ids must be strings or whole numbers, spans a list of structs; texts were checked when files were listed."""
    wanted = {"id": (_is_id, "strings or whole numbers")}
    wanted |= dict.fromkeys(source.spans, (is_spans, "list<struct<start, end, type, ...>>"))
    for ours in source.columns.keys() & wanted.keys():
        column, (fits, expected) = source.columns[ours], wanted[ours]
        if not fits(schema.field(column).type):
            raise UserError(f"{unit.shard.uri}: column {column!r} is {schema.field(column).type}, not {expected}")


def _is_id(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer)
    return any(test(plain) for test in tests)


def _ids(source: Source, unit: Unit, table: pa.Table) -> tuple[pa.Array, Faults]:
    if "id" not in source.columns:
        return pa.array([f"{unit.shard.name}:{unit.start + i}" for i in range(table.num_rows)], pa.string()), Faults()
    ids = table[source.columns["id"]].cast(pa.string()).combine_chunks()
    rows = (f"{unit.shard.name} row {unit.start + i}" for i in np.flatnonzero(ids.is_null()))
    return ids, fault(f"{source.name}: rows whose id is null", "every row needs an id", ids.null_count, rows)


def _texts(source: Source, table: pa.Table) -> list[str] | None:
    """The texts; null, and what is not UTF-8, as "": no span fits in there."""
    if "text" not in source.columns:
        return None
    return [text or "" for text in texts_of(table, source.columns["text"])[0]]


def _of_task(given: pa.Array, task: str | None, uri: str) -> pa.Array:
    """The spans of one task, where they name their task.

    Raises:
        UserError: they are of several tasks and none is asked for: pooled scores would mean nothing.
    """
    if _field(given, "task") is None:
        return given
    tasks = pc.struct_field(given.flatten(), "task")
    there = sorted(name for name in pc.unique(tasks).to_pylist() if name is not None)
    if task is None and len(there) > 1:
        raise UserError(f"{uri}: entities of several tasks ({', '.join(there)}): name one in predictions.task")
    if task is None:
        return given
    return _only(given, pc.fill_null(pc.equal(tasks, task), False))


def _accepted(given: pa.Array) -> pa.Array:
    """The spans without those that a verification question rejected; one that was not asked about is accepted."""
    kind = _field(given, "verified")
    if kind is None or not pa.types.is_boolean(kind):
        return given
    return _only(given, pc.fill_null(pc.struct_field(given.flatten(), "verified"), True))


def _field(given: pa.Array, name: str) -> pa.DataType | None:
    """The type of a field of the spans, if they have it."""
    kind = getattr(given.type, "value_type", pa.null())
    return {field.name: field.type for field in kind}.get(name) if pa.types.is_struct(kind) else None


def _only(given: pa.Array, keep: pa.Array) -> pa.Array:
    """Lists with some of their values."""
    lengths = pc.fill_null(pc.list_value_length(given), 0).to_numpy()
    rows = np.repeat(np.arange(len(given)), lengths)[keep.to_numpy(zero_copy_only=False)]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(given)))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), given.flatten().filter(keep), mask=given.is_null())


def _spans(what: str, given: pa.Array, ids: pa.Array, texts: Sequence[str] | None) -> tuple[pa.Array, Faults]:
    """A column of spans in our type, and what is wrong with it."""
    if pa.types.is_null(given.type) or pa.types.is_null(given.type.value_type):
        given = given.cast(SPANS)
    lengths = pc.fill_null(pc.list_value_length(given), 0).to_numpy().astype(np.int32)
    parts = _fields(given.flatten())
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    spans = pa.ListArray.from_arrays(
        offsets, pa.StructArray.from_arrays([parts[f.name] for f in SPAN], fields=list(SPAN))
    )
    null = given.is_null().to_numpy(zero_copy_only=False)
    faults = fault(
        f"{what} is null in rows",
        "[] means no entities; null says that nobody has looked",
        int(null.sum()),
        (ids[i] for i in np.flatnonzero(null)),
    )
    return spans, faults + _wrong(what, parts, np.repeat(np.arange(len(given)), lengths), ids, texts)


def _fields(values: pa.StructArray) -> dict[str, pa.Array]:
    """The fields of all spans; ``text`` and ``score`` are null where there are none."""
    names = {field.name for field in values.type}
    types = {field.name: field.type for field in SPAN} | {"text": pa.string()}
    return {
        name: _cast(name, pc.struct_field(values, name), kind) if name in names else pa.nulls(len(values), kind)
        for name, kind in types.items()
    }


def _cast(name: str, values: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return values.cast(kind)
    except pa.ArrowInvalid as error:
        raise UserError(f"spans: field {name!r} is {values.type}, not {kind}: {str(error).splitlines()[0]}") from None


def _wrong(
    what: str, parts: dict[str, pa.Array], rows: np.ndarray, ids: pa.Array, texts: Sequence[str] | None
) -> Faults:
    """Spans without start, end or type, outside of their text, or with other words than it has there."""
    if any(parts[name].null_count for name in ("start", "end", "type")):
        bare = np.logical_or.reduce(
            [parts[n].is_null().to_numpy(zero_copy_only=False) for n in ("start", "end", "type")]
        )
        names = (ids[rows[i]] for i in np.flatnonzero(bare))
        return fault(
            f"{what} has spans without start, end or type", "every span needs the three", int(bare.sum()), names
        )
    scores = parts["score"].to_numpy(zero_copy_only=False)
    strange = np.flatnonzero((scores < 0) | (scores > 1))
    if len(strange):
        remedy = "a score is a probability; log-probabilities want exp()"
        return fault(f"{what} has scores outside 0 to 1", remedy, len(strange), (ids[rows[i]] for i in strange))
    bad = list(_misfits(parts, rows, ids, texts))
    return fault(f"{what} has spans that do not fit their text", "offsets are code points, half-open", len(bad), bad)


def _misfits(parts: dict[str, pa.Array], rows: np.ndarray, ids: pa.Array, texts: Sequence[str] | None) -> Iterator[str]:
    fields = (parts[name].to_pylist() for name in ("start", "end", "type", "text"))
    for row, start, end, type_, surface in zip(rows.tolist(), *fields, strict=True):
        text = None if texts is None else texts[row]
        if not 0 <= start < end or (text is not None and end > len(text)):
            size = "" if text is None else f" in {len(text):,} characters"
            yield f"{ids[row]} has [{start}, {end}) {type_}{size}"
        elif text is not None and surface is not None and text[start:end] != surface:
            yield f"{ids[row]} has [{start}, {end}) {type_} reads {text[start:end]!r}, not {surface!r}"
