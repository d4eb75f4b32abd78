"""Rows of gold and predictions: each span checked against its text, then joined by id in bounded memory.

Every source is read once, unit by unit, and kept in one shape as Parquet in a temporary folder (TMPDIR), where DuckDB
joins the files and spills what its memory limit does not hold: 1,000,000 rows in 13 s and 456 MB at a limit of 256 MB.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ner_batch.errors import UserError, first_line
from ner_batch.evaluate.settings import EvaluateConfig
from ner_batch.io import storage
from ner_batch.io.examples import is_spans
from ner_batch.io.listing import read_unit
from ner_batch.io.shards import Unit, texts_of

STATUS = "status"
NO_ROW = "no row"
"""The status of a gold row that no prediction row belongs to, where that counts as missed."""
SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("type", pa.string()), ("score", pa.float32())])
SPANS = pa.list_(SPAN)
SPAN_COLUMNS = ("entities", "gold")
NAMED = 5
"""Rows named in one line of validation errors; the others are counted."""
OFFSETS = "offsets are code points, half-open"


@dataclass(frozen=True, slots=True)
class Source:
    """Gold, or a run's predictions; ``name`` is the config's section and tells sources apart.

    ``columns`` are those that there are of id, text, entities and gold, with the names they have in the files. Gold may
    lie in the rows of a run, which then has both ``entities`` and ``gold``.
    """

    name: str
    units: tuple[Unit, ...]
    columns: Mapping[str, str]
    task: str | None = None
    """Only its entities are read."""
    keep_rejected: bool = False
    """Whether entities that verification rejected are read too."""

    @property
    def rows(self) -> int:
        """Rows in all units."""
        return sum(unit.rows for unit in self.units)

    @property
    def text_bytes(self) -> int:
        """What the text column takes uncompressed."""
        return sum(shard.text_bytes for shard in {unit.shard for unit in self.units})


class ValidationErrors:
    """What is wrong with rows: counted by kind, the first few named."""

    def __init__(self) -> None:
        self._by_kind: dict[tuple[str, str], tuple[int, list[str]]] = {}

    def add(self, problem: str, remedy: str, count: int, names: Iterable[str]) -> None:
        """Note ``count`` rows; ``names`` may be all of them or the first few."""
        if count:
            before, named = self._by_kind.get((problem, remedy), (0, []))
            first = sorted({*named, *islice(names, NAMED)})[:NAMED]
            self._by_kind[problem, remedy] = before + count, first

    def stop_if_any(self) -> None:
        """Raise a UserError with one line for each kind."""
        lines = []
        for (problem, remedy), (count, names) in sorted(self._by_kind.items()):
            more = f" and {count - len(names):,} more" if count > len(names) else ""
            lines.append(f"{problem}: {', '.join(names)}{more}; {remedy}")
        if lines:
            raise UserError("\n".join(lines))


def read(source: Source, unit: Unit, errors: ValidationErrors) -> pa.Table:
    """A unit's rows as ``id``, ``text`` (if there is one), ``status`` and columns of type :data:`SPANS`.

    Rows that are noted in ``errors`` are not to be used.

    Raises:
        UserError: the file cannot be read, is not the file that was listed, or has columns of other types.
    """
    columns_to_read = {*source.columns.values()}
    if "entities" in source.columns and STATUS in unit.shard.columns:
        columns_to_read.add(STATUS)
    with storage.explained(unit.shard.uri):
        table = read_unit(unit, sorted(columns_to_read))
    rows = _UnitRows(source, unit, table, errors)
    columns = {"id": rows.ids}
    if rows.texts is not None:
        columns["text"] = pa.array(rows.texts, pa.string())
    if "entities" in source.columns:
        has_status = STATUS in table.column_names and _is_string(table[STATUS].type)  # another one is not ours
        columns[STATUS] = table[STATUS].cast(pa.string()) if has_status else pa.nulls(len(table), pa.string())
    return pa.table(columns | {ours: rows.spans(ours) for ours in SPAN_COLUMNS if ours in source.columns})


class _UnitRows:
    """The rows of one unit while they are checked: what they are called, their texts and their spans."""

    def __init__(self, source: Source, unit: Unit, table: pa.Table, errors: ValidationErrors) -> None:
        self._source, self._unit, self._table, self._errors = source, unit, table, errors
        self.texts: list[str] | None = None
        if text_column := source.columns.get("text"):  # null, and what is not UTF-8, becomes "": no span fits in there
            self.texts = [text or "" for text in texts_of(table, text_column)[0]]
        if id_column := source.columns.get("id"):
            ids, kind = table[id_column].combine_chunks(), table[id_column].type
            if not (_is_string(kind) or pa.types.is_integer(kind)):
                raise UserError(f"{unit.shard.uri}: column {id_column!r} is {kind}, not strings or whole numbers")
            self.ids = self._cast(id_column, ids, pa.string())
            places = map(self._place, np.flatnonzero(self.ids.is_null()))
            self._note("rows whose id is null", "every row needs an id", places)
        else:
            self.ids = pa.array([f"{unit.shard.name}:{unit.start + row}" for row in range(len(table))], pa.string())

    def spans(self, ours: str) -> pa.Array:
        """A column of spans in our type: those of the task asked for, and without rejected ones unless they are kept.

        Raises:
            UserError: they are of several tasks and none is asked for (pooled scores would mean nothing); a field of
                another type.
        """
        source, column = self._source, self._source.columns[ours]
        lists = self._table[column].combine_chunks()
        if not is_spans(self._table[column]):
            kind = f"{lists.type}, not list<struct<start, end, type, ...>>"
            raise UserError(f"{self._unit.shard.uri}: column {column!r} is {kind}")
        if pa.types.is_null(lists.type) or not len(pc.list_flatten(lists)):  # of any type then
            lists = pa.array(lists.to_pylist(), SPANS)
        remedy = "[] means no entities; null says that nobody has looked"
        self._note(f"column {column!r} is null in rows", remedy, map(self._name, np.flatnonzero(lists.is_null())))
        structs = pc.list_flatten(lists)
        names = {field.name for field in structs.type}
        fields = [*SPAN, pa.field("text", pa.string())]
        if ours == "entities":
            more = (pa.field("task", pa.string()), pa.field("verified", pa.bool_()))
            fields += [field for field in more if field.name in names]
        columns = {"row": pc.list_parent_indices(lists)}
        for field in fields:
            columns[field.name] = pa.nulls(len(structs), field.type)
            if field.name in names:
                values = pc.struct_field(structs, field.name)
                columns[field.name] = self._cast(column, values, field.type, f"spans: field {field.name!r} ")
        spans = pa.record_batch(columns)
        if "task" in columns:
            tasks = sorted(columns["task"].unique().drop_null().to_pylist())
            if source.task is None and len(tasks) > 1:
                listed = f"entities of several tasks ({', '.join(tasks)})"
                raise UserError(f"{self._unit.shard.uri}: {listed}: name one in predictions.task")
            if source.task is not None:
                spans = spans.filter(pc.equal(spans["task"], source.task))
        if "verified" in columns and not source.keep_rejected:  # null: nobody asked, which is no rejection
            spans = spans.filter(pc.fill_null(spans["verified"], True))
        self._check(f"column {column!r}", spans)
        spans = self._trimmed(ours, spans)
        offsets = np.searchsorted(spans["row"], np.arange(len(lists) + 1)).astype(np.int32)
        structs = pa.StructArray.from_arrays([spans[field.name] for field in SPAN], fields=list(SPAN))
        return pa.ListArray.from_arrays(pa.array(offsets), structs)

    def _cast(self, column: str, values: pa.Array, kind: pa.DataType, what: str = "") -> pa.Array:
        """Values as another type; strings are checked to be UTF-8, which Parquet does not promise."""
        original = values.type
        try:
            if pa.types.is_dictionary(original):
                values = values.dictionary_decode()
            if pa.types.is_string(kind) and not pa.types.is_integer(values.type):
                values = values.cast(pa.binary())
            return values.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            problem = f"column {column!r}: {what}is {original}, not {kind}: {first_line(error)}"
            raise UserError(f"{self._unit.shard.uri}: {problem}") from None

    def _check(self, where: str, spans: pa.RecordBatch) -> None:
        """Note spans that lack a field, have impossible scores, or do not fit their text."""
        rows = spans["row"].to_numpy()
        incomplete = pc.or_(pc.or_(spans["start"].is_null(), spans["end"].is_null()), spans["type"].is_null())
        if incomplete.true_count:
            names = map(self._name, rows[incomplete.to_numpy(zero_copy_only=False)])
            self._note(f"{where} has spans without start, end or type", "every span needs the three", names)
            return
        scores = spans["score"].to_numpy(zero_copy_only=False)
        remedy = "a score is a probability; log-probabilities want exp()"
        self._note(f"{where} has scores outside 0 to 1", remedy, map(self._name, rows[(scores < 0) | (scores > 1)]))
        columns = [spans[name].to_pylist() for name in ("row", "start", "end", "type", "text")]
        misfits = []
        for row, start, end, type_, surface in zip(*columns, strict=True):
            text = None if self.texts is None else self.texts[row]
            if not 0 <= start < end:
                problem = ""
            elif text is not None and end > len(text):
                problem = f" in {len(text):,} characters"
            elif text is not None and surface is not None and text[start:end] != surface:
                problem = f" reads {text[start:end]!r}, not {surface!r}"
            else:
                continue
            misfits.append(self._name(row, f" has [{start}, {end}) {type_}{problem}"))
        self._note(f"{where} has spans that do not fit their text", OFFSETS, misfits)

    def _trimmed(self, ours: str, spans: pa.RecordBatch) -> pa.RecordBatch:
        """Gold without the white space at the edges of its spans, as training reads it: no answer can name that."""
        if ours != "gold" or self.texts is None:
            return spans
        rows, starts, ends = (spans[name].to_pylist() for name in ("row", "start", "end"))
        edged = False
        for i, (row, start, end) in enumerate(zip(rows, starts, ends, strict=True)):
            surface = "" if None in (start, end) else self.texts[row][start:end]
            if surface[:1].isspace() or surface[-1:].isspace():
                edged = True
                starts[i] += len(surface) - len(surface.lstrip())
                ends[i] = starts[i] + len(surface.strip())
        if not edged:
            return spans
        columns = dict(zip(spans.schema.names, spans.columns, strict=True))
        return pa.record_batch(columns | {"start": pa.array(starts, pa.int32()), "end": pa.array(ends, pa.int32())})

    def _note(self, problem: str, remedy: str, names: Iterable[str]) -> None:
        rows = list(names)
        self._errors.add(f"{self._source.name}: {problem}", remedy, len(rows), rows)

    def _name(self, row: int, detail: str = "") -> str:
        """A row as messages call it: id, file and number."""
        place = self._place(row)
        return f"{self.ids[row]}{detail} ({place})" if "id" in self._source.columns else f"{place}{detail}"

    def _place(self, row: int) -> str:
        return f"{self._unit.shard.name} row {self._unit.start + row}"


def _is_string(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(test(plain) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


@dataclass(frozen=True, slots=True)
class JoinedRows:
    """Gold with the predictions of one or two runs, in files that last as long as :func:`join` is open.

    ``gold_skipped`` and ``predictions_skipped`` are rows left out for want of a partner. ``types`` are sorted.
    """

    joined: duckdb.DuckDBPyRelation
    id_and_text: duckdb.DuckDBPyRelation
    types: tuple[str, ...]
    gold_skipped: int
    predictions_skipped: int

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """All rows, about ``rows`` at a time and in no order.

        Columns are ``id``, ``gold``, and of run i ``status{i}`` and ``entities{i}``; spans are of type :data:`SPANS`
        and never null.
        """
        reader = self.joined.to_arrow_reader(rows)
        assert reader
        yield from reader

    def texts(self, ids: Collection[str]) -> dict[str, str]:
        """Texts of some rows."""
        if not ids:
            return {}
        constants = [duckdb.ConstantExpression(id_) for id_ in sorted(ids)]
        return dict(self.id_and_text.filter(duckdb.ColumnExpression("id").isin(*constants)).fetchall())


Stored = dict[str, duckdb.DuckDBPyRelation]
"""The rows of every source as :func:`read` gives them, by the source's name."""


@contextmanager
def join(sources: Sequence[Source], config: EvaluateConfig, progress: Callable[[int], None]) -> Iterator[JoinedRows]:
    """Read sources and join them by id: first gold, then one or two runs. Gold may be the first run itself.

    ``progress`` is called with the number of rows read, unit by unit.

    Raises:
        UserError: what is wrong with rows, one line for each kind: first all that reading finds, then ids that are
            repeated or have no partner, and texts that differ. Or memory or disk does not suffice.
    """
    with TemporaryDirectory(prefix="ner_batch-evaluate-") as folder, _resources_explained(folder):
        options: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{config.job.memory_bytes}B",
            "temp_directory": str(Path(folder) / "spilled"),
            "threads": min(4, os.cpu_count() or 1),  # each thread wants memory of its own
            "preserve_insertion_order": False,  # counts do not depend on it, and order costs memory
            "autoinstall_known_extensions": False,
        }
        with duckdb.connect(config=options) as database:
            errors = ValidationErrors()
            stored: Stored = {}
            distinct = {source.name: source for source in sources}  # gold in a run's own rows is read once
            for source in distinct.values():
                files: list[str] = []
                for unit in source.units:
                    files.append(f"{folder}/{len(stored)}-{len(files)}.parquet")
                    pq.write_table(read(source, unit, errors), files[-1])
                    progress(unit.rows)
                stored[source.name] = database.read_parquet(files)
            errors.stop_if_any()
            predictions_skipped = _check_ids(stored, sources[0].name, config, errors)
            with_text = next(source for source in sources if "text" in source.columns)
            _check_texts(stored, with_text, [source for source in distinct.values() if source is not with_text], errors)
            errors.stop_if_any()
            runs = [stored[source.name] for source in sources[1:]]
            skip = config.without_prediction == "skip"
            joined, gold_skipped = _side_by_side(stored[sources[0].name], runs, skip=skip)
            spans = " || ".join(["gold", *(f"entities{i}" for i in range(len(runs)))])
            names = joined.project(f"unnest(list_transform({spans}, lambda span: span.type)) AS type").distinct()
            types = tuple(sorted(name for (name,) in names.fetchall()))
            texts = stored[with_text.name].project("id, text")
            yield JoinedRows(joined, texts, types, gold_skipped, predictions_skipped)


def _side_by_side(
    gold: duckdb.DuckDBPyRelation, runs: Sequence[duckdb.DuckDBPyRelation], *, skip: bool
) -> tuple[duckdb.DuckDBPyRelation, int]:
    """Gold with the predictions of all runs, as :meth:`JoinedRows.batches` gives it; how many gold rows are skipped."""
    joined, columns, skipped = gold.project("id, gold").set_alias("gold"), ["id", "gold"], 0
    for i, run in enumerate(runs):
        own = run.project(f"id AS id{i}, status AS status{i}, entities AS entities{i}")
        joined = joined.join(own.set_alias(f"run{i}"), f"id = id{i}", how="left")
        columns.append(f"CASE WHEN id{i} IS NULL THEN '{NO_ROW}' ELSE status{i} END AS status{i}")
        columns.append(f"coalesce(entities{i}, []) AS entities{i}")
    if skip:
        complete = " AND ".join(f"id{i} IS NOT NULL" for i in range(len(runs)))
        skipped, _ = _count_ids(joined.filter(f"NOT ({complete})"))
        joined = joined.filter(complete)
    return joined.project(", ".join(columns)), skipped


def _check_ids(stored: Stored, gold: str, config: EvaluateConfig, errors: ValidationErrors) -> int:
    """Note ids that are repeated or, where that is refused, without a partner; how many predictions have no gold."""
    predictions_skipped = 0
    gold_ids = stored[gold].project("id")
    for name, rows in stored.items():
        duplicate_ids = _count_ids(rows.aggregate("id, count(*) AS times", "id").filter("times > 1"))
        errors.add(f"{name}: ids that more than one row has", "ids must be unique", *duplicate_ids)
        if name == gold:
            continue
        ids = rows.project("id")
        if config.without_prediction == "refuse":
            remedy = "finish the run, or set without_prediction=miss or skip"
            errors.add(f"{name}: no row for gold's ids", remedy, *_count_ids(gold_ids.join(ids, "id", how="anti")))
        without_gold = _count_ids(ids.join(gold_ids, "id", how="anti"))
        predictions_skipped += without_gold[0]
        if config.without_gold == "refuse":
            remedy = "give the gold of all rows, or set without_gold=skip"
            errors.add(f"{name}: ids that {gold} does not have", remedy, *without_gold)
    return predictions_skipped


def _check_texts(stored: Stored, with_text: Source, others: Iterable[Source], errors: ValidationErrors) -> None:
    """Note rows of other sources whose text is another one, or whose spans end behind it where they have no text."""
    texts = stored[with_text.name].project("id, hash(text) AS text_hash, length(text) AS text_length")
    for source in others:
        rows = stored[source.name]
        if "text" in source.columns:
            pairs = rows.project("id, hash(text) AS own_hash").join(texts, "id")
            problem = f"{source.name}: other text than {with_text.name} has under the same id"
            remedy = "both must be made from one text, character for character"
            errors.add(problem, remedy, *_count_ids(pairs.filter("own_hash <> text_hash")))
            continue
        for ours in source.columns.keys() & set(SPAN_COLUMNS):
            last_end = f'list_max(list_transform({ours}, lambda span: span."end"))'
            pairs = rows.project(f"id, {last_end} AS last_end").join(texts, "id")
            problem = f"{source.name}: column {source.columns[ours]!r} has spans that end behind their text"
            errors.add(problem, OFFSETS, *_count_ids(pairs.filter("last_end > text_length")))


def _count_ids(rows: duckdb.DuckDBPyRelation) -> tuple[int, list[str]]:
    """How many different ids there are, and the first few."""
    ((count, first),) = rows.aggregate(f"count(DISTINCT id), min(DISTINCT id, {NAMED})").fetchall()
    return count, first or []


@contextmanager
def _resources_explained(folder: str) -> Iterator[None]:
    """Turn what DuckDB and the system say of too little memory or disk into what a user can do about it."""
    where = f"temporary files of the join lie in {Path(folder).parent}; TMPDIR names another place"
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise UserError(f"job.memory_bytes: too little for the join ({first_line(error)}); {where}") from error
    except (duckdb.IOException, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOSPC:
            raise
        raise UserError(f"the join's files cannot be written or read ({first_line(error)}); {where}") from error
