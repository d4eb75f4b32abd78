"""A work unit on a replica: read it, predict it, write it whole. This is what Ray Data's actors run."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, Protocol

import psutil
import pyarrow as pa

from ner_batch.data import OFFSET_UNIT, Prediction, Status, predictions_of, predictions_table
from ner_batch.engine.engine import EngineDead
from ner_batch.errors import UserError
from ner_batch.extract.ledger import Range
from ner_batch.io import storage
from ner_batch.io.shards import Unit, read_unit, texts_of

# The exit status of a replica whose engine died, so that the cause can be told from other crashes in Ray's logs.
ENGINE_DEAD_STATUS = 70

METADATA_KEY = "ner_batch"


class Predictor(Protocol):
    """What a replica needs of an extractor."""

    async def predict(
        self, texts: Sequence[str | None], progress: Callable[[int, int], None] | None = None
    ) -> list[Prediction]:
        """One prediction per text, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Destination:
    """Where units go and what of the input goes with them."""

    path: str
    text_column: str
    rename: Mapping[str, str]
    keep: tuple[str, ...] | None
    drop: tuple[str, ...]
    about: Mapping[str, str]
    """Written into every file's metadata: fingerprint, model, adapter, task, format."""
    tagged: bool = False
    """Entities name their task: several tasks read the corpus."""

    def uri(self, unit: Unit) -> str:
        """The output file of a unit."""
        return storage.join(self.path, unit.name)


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What became of a unit. ``error`` is set where it could not be read or written; then there is no file."""

    name: str
    rows: int
    tokens: int
    statuses: Mapping[str, int]
    error: str | None = None


class Gate:
    """Many may be inside together, or one alone: a suspect unit must not take its neighbours down with it."""

    def __init__(self) -> None:
        self._condition = asyncio.Condition()
        self._inside = 0
        self._waiting = 0

    @asynccontextmanager
    async def enter(self, alone: bool) -> AsyncIterator[None]:
        """Wait for room, be inside, leave."""
        async with self._condition:
            self._waiting += alone
            await self._condition.wait_for(lambda: self._inside == 0 if alone else self._open())
            self._waiting -= alone
            self._inside = -1 if alone else self._inside + 1
        try:
            yield
        finally:
            async with self._condition:
                self._inside = 0 if alone else self._inside - 1
                self._condition.notify_all()

    def _open(self) -> bool:
        return self._inside >= 0 and not self._waiting


class UnitExtractor:
    """One replica: its extractor, and the units in flight on it."""

    def __init__(self, make: Callable[[], Predictor], destination: Destination, ledger: Any) -> None:
        self.ledger = ledger
        self.destination = destination
        self.extractor = make()
        self.gate = Gate()
        ledger.hello.remote()

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one unit (pickled, in column ``unit``, with whether only its failed rows are to be done again).

        Returns its report (pickled, in column ``report``).
        """
        unit, redo = pickle.loads(batch["unit"][0])
        try:
            report = (None if redo else await self._done_before(unit)) or await self._do(unit, redo)
        except EngineDead as death:
            await self.ledger.died.remote(str(death))
            leave()
        await self.ledger.done.remote(unit.name, report.tokens, report.statuses)
        return {"report": [pickle.dumps(report)]}

    async def _done_before(self, unit: Unit) -> UnitReport | None:
        """The report of a unit whose file an earlier attempt has written."""
        uri = self.destination.uri(unit)
        try:
            if not await asyncio.to_thread(storage.exists, uri):
                return None
            return read_report(await asyncio.to_thread(storage.read_metadata, uri), unit.name)
        except ValueError as error:  # the place cannot be asked: the next run will
            return UnitReport(unit.name, unit.rows, 0, {}, str(error))

    async def _do(self, unit: Unit, redo: bool) -> UnitReport:
        started = time.monotonic()
        try:
            table = await asyncio.to_thread(read_unit, unit)
            texts, unreadable = texts_of(table, self.destination.text_column)
            before = await asyncio.to_thread(self._before, unit) if redo else []
        except (ValueError, OSError) as error:
            return UnitReport(unit.name, unit.rows, 0, {}, str(error))
        wanted = [i for i in range(len(texts)) if not redo or before[i].status is Status.FAILED]
        fresh = await self._predict(unit, [texts[i] for i in wanted])
        predictions = dict(enumerate(before)) | dict(zip(wanted, fresh, strict=True)) | invalid(unreadable)
        ordered = [predictions[i] for i in range(len(texts))]
        return await self._write(unit, table, ordered, time.monotonic() - started)

    def _before(self, unit: Unit) -> list[Prediction]:
        """The predictions of an earlier run."""
        return predictions_of(storage.read_table(self.destination.uri(unit)))

    async def _predict(self, unit: Unit, texts: Sequence[str | None]) -> list[Prediction]:
        """One prediction per text. A unit whose engines died before is read alone, range by range."""
        alone = await self.ledger.begin.remote(unit.name, len(texts))
        async with self.gate.enter(alone):
            return await (self._in_ranges(unit, texts) if alone else self._all(unit, texts))

    async def _all(self, unit: Unit, texts: Sequence[str | None]) -> list[Prediction]:
        def progress(rows: int, tokens: int) -> None:
            self.ledger.progress.remote(unit.name, rows, tokens)

        return await self.extractor.predict(texts, progress)

    async def _in_ranges(self, unit: Unit, texts: Sequence[str | None]) -> list[Prediction]:
        """Range by range, as the ledger hands them out; a row that kills engines is given up."""
        span: Range | None
        while span := await self.ledger.next_range.remote(unit.name):
            done = await self._all(unit, texts[span[0] : span[1]])
            await self.ledger.keep.remote(unit.name, span, done)
        kept, poisoned = await self.ledger.findings.remote(unit.name)
        predictions = {start: done for (start, _), done in kept.items()}
        predictions |= {row: [Prediction(status=Status.FAILED, error=POISONED)] for row in poisoned}
        return [prediction for start in sorted(predictions) for prediction in predictions[start]]

    async def _write(self, unit: Unit, table: pa.Table, predictions: list[Prediction], seconds: float) -> UnitReport:
        report = _report(unit, predictions)
        output = assemble(table, predictions, self.destination)
        about = {**self.destination.about, "offset_unit": OFFSET_UNIT, "seconds": round(seconds, 3), **asdict(report)}
        try:
            await asyncio.to_thread(
                storage.write_table, self.destination.uri(unit), output, {METADATA_KEY: json.dumps(about)}
            )
        except (OSError, ValueError) as error:  # ValueError: the bucket cannot be reached at the moment
            return UnitReport(unit.name, unit.rows, 0, {}, f"{self.destination.uri(unit)}: cannot be written: {error}")
        return report


def leave() -> NoReturn:
    """End this process, and the engine's own if it still hangs on to the GPU.

    Ray restarts an actor whose process ends, not one whose engine is gone (ray#60145).
    """
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(ENGINE_DEAD_STATUS)


POISONED = "the engine died while it read this row alone; the row was given up"


def invalid(unreadable: Mapping[int, str]) -> dict[int, Prediction]:
    """Predictions for rows whose text is not UTF-8, by row index."""
    return {row: Prediction(status=Status.FAILED, error=problem) for row, problem in unreadable.items()}


def _report(unit: Unit, predictions: Sequence[Prediction]) -> UnitReport:
    tokens = sum(p.prompt_tokens + p.completion_tokens for p in predictions)
    statuses = Counter(str(p.status) for p in predictions)
    return UnitReport(unit.name, len(predictions), tokens, dict(statuses))


def read_report(metadata: Mapping[str, str], name: str) -> UnitReport:
    """The report in an output file's metadata. Raises UserError where the file is not one of ours."""
    try:
        about = json.loads(metadata[METADATA_KEY])
        return UnitReport(about["name"], about["rows"], about["tokens"], about["statuses"])
    except (KeyError, ValueError):
        raise UserError(f"{name}: not written by ner_batch; choose another output.path") from None


def assemble(table: pa.Table, predictions: Sequence[Prediction], destination: Destination) -> pa.Table:
    """The input's columns, as configured, and the predictions' columns, row by row."""
    wanted = table.column_names if destination.keep is None else destination.keep
    names = [n for n in wanted if n not in destination.drop]
    kept = table.select(names).rename_columns([destination.rename.get(n, n) for n in names])
    return with_predictions(kept, predictions, destination.tagged)


def with_predictions(table: pa.Table, predictions: Sequence[Prediction], tagged: bool = False) -> pa.Table:
    """The table with the columns of :func:`ner_batch.data.predictions_schema` appended, whatever the rows hold."""
    added = predictions_table(predictions, tagged)
    for field, column in zip(added.schema, added.columns, strict=True):
        table = table.append_column(field, column)
    return table
