"""Work units as Ray Data knows them: a Datasource that reads one block per unit, a Datasink that writes one file each.

A block IS a unit: ``ReadTask`` per unit, ``override_num_blocks`` = units, ``target_max_block_size=None`` and
``batch_size=None``, or Ray Data splits and joins blocks by size. The unit's name and row count travel in the schema's
metadata. Ray 2.60 starts no write for an empty block, so the driver writes the files of units without rows; and a read
that raises ends the job, so a unit that cannot be read becomes a block of one row with the reason in its metadata.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasink, ReadTask, WriteResult

from ner_batch.data import OFFSET_UNIT, PREDICTIONS, Prediction, Status, predictions_of, predictions_table
from ner_batch.errors import JobError, UserError
from ner_batch.extraction.settings import InputConfig, OutputConfig
from ner_batch.extraction.tracker import Tracker
from ner_batch.io import outage, storage, tables
from ner_batch.io.listing import read_unit
from ner_batch.io.shards import UNREADABLE, Unit

T = TypeVar("T")

METADATA_KEY = "ner_batch"  # where an output file's metadata tells of its unit and its run
_UNIT = b"ner_batch.unit"
# By these Spark 3 knows in which calendar old dates are; without them it refuses days before 1582, times before 1900.
_CALENDAR = frozenset({b"org.apache.spark.version", b"org.apache.spark.timeZone", b"org.apache.spark.legacyDateTime"})
# Columns that only travel from read to write. An input column of such a name is refused by the plan.
_TEXT = "_ner_batch_text"
_EARLIER = "_ner_batch_earlier"
NAMED_REASONS = 3
"""Errors of rows that a unit's report counts, and a run names at its end; all stand in the column `error`."""
NAMED_IDS = 3  # rows that are named with the reason of their error
# In a row's error, before each reason: of how many windows, or which row of its file.
DETAILS = re.compile(r"\b[\d,]+ of [\d,]+ (?:windows|answers): |^row \d+: ")
RESERVED = (_TEXT, _EARLIER, UNREADABLE)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where units go and what of the input goes with them.

    ``about``: fingerprint, model, adapter, task, format, for the files' metadata. ``tagged``: entities name their task.
    ``wait_seconds``: how long storage is waited for, here and where units come from. ``nested_text``: the text is a
    field of a column.
    """

    source: InputConfig
    target: OutputConfig
    about: Mapping[str, str] = field(default_factory=dict)
    tagged: bool = False
    wait_seconds: float = 0.0
    nested_text: bool = False

    def uri(self, unit_name: str) -> str:
        """The output file of a unit."""
        return storage.join(self.target.path, unit_name)

    @property
    def text_in_blocks(self) -> str:
        """The text column's name between read and write."""
        name = self.source.text_column
        is_output = name in self.output_columns([name]) and not self.nested_text
        return self.source.rename.get(name, name) if is_output else _TEXT

    def output_columns(self, columns: Sequence[str]) -> list[str]:
        """Which of a file's columns go into the output, in their order there."""
        names = columns if self.target.keep is None else self.target.keep
        return [name for name in names if name not in self.target.drop_input_columns]


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What became of a unit. ``error`` is set where it could not be read or written; then there is no file.

    ``reasons`` counts the errors of its rows, the most frequent three; ``ids`` name the first rows of each, where the
    input has a column for that.
    """

    name: str
    rows: int
    tokens: int
    statuses: Mapping[str, int]
    error: str | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    ids: Mapping[str, Sequence[str]] = field(default_factory=dict)


class ShardUnits(Datasource):  # type: ignore[misc]  # Ray is untyped here
    """Reads work units from their shards, each as one block, with the columns that the output keeps.

    ``retried``: by the names of units that have an output file, the statuses of the rows that are to be done again.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        destination: Destination,
        tracker: Tracker,
        retried: Mapping[str, frozenset[Status]] | None = None,
    ) -> None:
        super().__init__()
        self.units, self.destination, self.tracker, self.retried = units, destination, tracker, retried or {}

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:  # noqa: ARG002 - Ray's signature
        """One task per unit, however many Ray asks for (it also asks for one, to see a schema)."""
        return [
            ReadTask(
                partial(read_blocks, unit, self.destination, self.tracker, self.retried.get(unit.name, frozenset())),
                BlockMetadata(num_rows=unit.rows, size_bytes=None, input_files=None, exec_stats=None),
            )
            for unit in self.units
        ]

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown, so that Ray does not size blocks by it."""
        return None


def read_blocks(
    unit: Unit, destination: Destination, tracker: Tracker, retried: frozenset[Status] = frozenset()
) -> list[pa.Table]:
    """The unit as one block; where it cannot be read, a block that says why.

    With statuses, the block brings the predictions of the unit's output file, but those of rows of such a status.

    Raises:
        JobError: storage has failed for too long.
    """
    wait_out = partial(_wait_out, destination, tracker, f"read {unit.name}")
    # What is predicted and not written is lost where the run ends, so there is no more of it than what is in flight.
    while destination.wait_seconds and tracker.writes_wait() and tracker.progress().fatal is None:
        time.sleep(1)
    about: dict[str, Any] = {"name": unit.name, "rows": unit.rows}
    calendar: dict[bytes, bytes] = {}
    try:
        columns = destination.output_columns(unit.shard.columns)
        names = [destination.source.rename.get(name, name) for name in columns]
        if destination.text_in_blocks == _TEXT:
            columns, names = [*columns, destination.source.text_column], [*names, _TEXT]
        table = wait_out(lambda: read_unit(unit, columns), one_file=unit.shard.uri)
        calendar = {key: value for key, value in (table.schema.metadata or {}).items() if key in _CALENDAR}
        table = table.rename_columns([*names, *table.column_names[len(names) :]])
        if retried:
            file = destination.uri(unit.name)
            earlier = wait_out(lambda: tables.read_table(file), one_file=file).select(PREDICTIONS.names)
            again = pc.is_in(earlier["status"], pa.array(sorted(retried)))
            unchanged = pc.if_else(again, None, pa.chunked_array(earlier.to_struct_array()))
            table = table.append_column(_EARLIER, unchanged)
    except (UserError, OSError) as error:
        about["error"] = str(error)
        table = pa.table({"error": [str(error)]})
    return [table.replace_schema_metadata({_UNIT: json.dumps(about).encode(), **calendar})]


def _wait_out(
    destination: Destination,
    tracker: Tracker,
    task: str,
    action: Callable[[], T],
    *,
    writing: bool = False,
    one_file: str | None = None,
) -> T:
    """:func:`ner_batch.io.outage.wait_out`; the run is told where it waits for storage, and why it ends."""
    try:
        return outage.wait_out(
            action,
            destination.wait_seconds,
            lambda cause: tracker.storage_waits(task, cause),
            writing=writing,
            one_file=one_file,
        )
    except JobError as error:
        tracker.storage_lost(str(error))
        raise


def unit_of(block: pa.Table) -> dict[str, Any]:
    """Name and rows of a block's unit, and ``error`` where it could not be read; {} for a table that is no unit."""
    unit: dict[str, Any] = json.loads((block.schema.metadata or {}).get(_UNIT, "{}"))
    return unit


def earlier_predictions(block: pa.Table) -> list[Prediction | None] | None:
    """What an earlier run predicted, None for the rows to do again; None where there was none."""
    if _EARLIER not in block.column_names:
        return None
    column = block.column(_EARLIER)
    unchanged = iter(predictions_of(pa.Table.from_struct_array(column.drop_null())))
    return [next(unchanged) if valid else None for valid in column.is_valid().to_pylist()]


def clashing(names: Iterable[str]) -> list[str]:
    """Columns that would meet one of those a job adds. DuckDB, Spark and Hive do not tell `Status` from `status`."""
    return [name for name in names if name.casefold() in PREDICTIONS.names]


def check_names(names: Iterable[str]) -> None:
    """Raises UserError where a table of one's own has columns that would meet ours."""
    if clashes := clashing(names):
        renamed = ", ".join(f'"{name}": "my_{name}"' for name in clashes)
        raise UserError(
            f"column {', '.join(map(repr, clashes))}: predictions come in columns of these names: "
            f"dataset.rename_columns({{{renamed}}}) or drop_columns first"
        )


def with_predictions(table: pa.Table, predictions: Sequence[Prediction], tagged: bool = False) -> pa.Table:
    """The table with the columns of :func:`ner_batch.data.predictions_schema` appended, whatever the rows hold.

    Raises:
        UserError: it has a column of such a name.
    """
    check_names(table.column_names)
    added = predictions_table(predictions, tagged)
    for added_field, column in zip(added.schema, added.columns, strict=True):
        table = table.append_column(added_field, column)
    return table


class UnitFiles(Datasink):  # type: ignore[misc]
    """Writes every unit to a Parquet file of its own, whole or not at all.

    While the disk is full or the bucket out of reach, the write waits: a unit that is read is not thrown away. A file
    that cannot be written for another reason is a report with the reason, and the next run's work. ``reported`` names
    the units that came to an end so far, and ``errors`` are the reports of those that have no file.
    """

    def __init__(self, destination: Destination, tracker: Tracker) -> None:
        self.destination, self.tracker = destination, tracker
        self.reported: set[str] = set()
        self.errors: list[UnitReport] = []

    def write(self, blocks: Iterable[pa.Table], ctx: Any) -> list[UnitReport]:  # noqa: ARG002 - Ray's signature
        """Called by a write task, usually with one block."""
        return [self.write_unit(block) for block in blocks]

    def write_unit(self, block: pa.Table) -> UnitReport:
        """Write one unit's file; its report."""
        unit = unit_of(block)
        report = UnitReport(unit["name"], unit["rows"], 0, {}, unit.get("error"))
        if report.error is None:
            assert block.num_rows == unit["rows"], f"{unit['name']}: {block.num_rows} of {unit['rows']} rows arrived"
            tokens = pc.sum(block["prompt_tokens"]).as_py() or 0, pc.sum(block["completion_tokens"]).as_py() or 0
            statuses = {count["values"]: count["counts"] for count in block["status"].value_counts().to_pylist()}
            errors = {
                row: DETAILS.sub("", error) for row, error in enumerate(block["error"].to_pylist()) if error is not None
            }
            reasons = dict(Counter(errors.values()).most_common(NAMED_REASONS))
            ids: dict[str, list[str]] = {}
            if (id_column := self.destination.source.id_column) is not None:
                values = block[self.destination.source.rename.get(id_column, id_column)]
                for row, error in errors.items():
                    if error in reasons and len(of_reason := ids.setdefault(error, [])) < NAMED_IDS:
                        of_reason.append(str(values[row]))
            report = UnitReport(unit["name"], unit["rows"], sum(tokens), statuses, reasons=reasons, ids=ids)
            about = {**self.destination.about, "offset_unit": OFFSET_UNIT, **asdict(report)}
            table = block.drop_columns([name for name in RESERVED if name in block.column_names])
            calendar = {key: value for key, value in block.schema.metadata.items() if key != _UNIT}
            table = table.replace_schema_metadata(calendar)
            uri, metadata = self.destination.uri(unit["name"]), {METADATA_KEY: json.dumps(about)}
            try:
                _wait_out(
                    self.destination,
                    self.tracker,
                    f"write {unit['name']}",
                    lambda: tables.write_table(uri, table, metadata),
                    writing=True,
                )
            except (OSError, UserError) as error:  # UserError: the bucket is not there
                report = UnitReport(unit["name"], unit["rows"], 0, {}, f"{uri}: cannot be written: {error}")
        self.tracker.unit_written(report.name, report.tokens, report.statuses)
        return report

    def on_write_complete(self, write_result: WriteResult[list[UnitReport]]) -> None:
        """Ray hands over what all write tasks of a pipeline returned."""
        for reports in write_result.write_returns:
            self.add(reports)

    def add(self, reports: Sequence[UnitReport]) -> None:
        """Units that have come to an end."""
        self.reported.update(report.name for report in reports)
        self.errors += [report for report in reports if report.error]


def write_empty(units: Sequence[Unit], sink: UnitFiles) -> None:
    """The files of units without rows, which carry the schema alone."""
    for unit in units:
        (block,) = read_blocks(unit, sink.destination, sink.tracker)
        if "error" not in unit_of(block):
            block = with_predictions(block, [], sink.destination.tagged)
        sink.add([sink.write_unit(block)])


def read_report(metadata: Mapping[str, str], name: str) -> UnitReport:
    """The report in an output file's metadata. Raises UserError where the file is not one of ours."""
    try:
        about = json.loads(metadata[METADATA_KEY])
        more = {name: about.get(name, {}) for name in ("reasons", "ids")}  # older files have none
        return UnitReport(about["name"], about["rows"], about["tokens"], about["statuses"], **more)
    except (KeyError, ValueError):
        raise UserError(f"{name}: not written by ner_batch; choose another output.path") from None
