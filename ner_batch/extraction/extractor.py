"""One replica: texts in, grounded predictions out. This is the file to read first.

A text becomes windows; each task's reader (:mod:`reader`) turns a window into one prompt per label group; the engine
answers; the format reads the answer back into spans of the window; a text's windows are merged into one prediction.
Many units are in flight because several threads call, and the windows of a unit because a pool of threads reads them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pyarrow as pa
import ray

from ner_batch.data import Entity, Prediction, Status, clean, distinct, worst
from ner_batch.engine.engine import Engine, EngineDeadError
from ner_batch.engine.settings import EngineConfig
from ner_batch.errors import UserError
from ner_batch.extraction import units
from ner_batch.extraction.reader import Reader, Reading
from ner_batch.extraction.recipe import Recipe
from ner_batch.extraction.tracker import SharedLock, Tracker
from ner_batch.io.shards import texts_of
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.text import windows
from ner_batch.text.windows import Window

# Windows prompted and parsed together: large enough for one retrieval search, small enough that the engine gets its
# first prompts after some 10 ms, and that a slow machine (2 windows a second) tells of progress several times a minute.
BATCH_WINDOWS = 32
TELL_SECONDS = 2.0

# The exit status of a replica whose engine died, so that the cause can be told from other crashes in Ray's logs.
ENGINE_DEAD_STATUS = 70

StartEngine = Callable[[EngineConfig, bool], Engine]
"""Starts the engine of a config; the flag says whether requests name adapters. Usually :class:`Engine` itself."""

Progress = Callable[[float, int], None]
"""Called with (rows read, of a long one the part, and tokens spent) as a table proceeds."""


class Extractor:
    """Holds one engine and a reader per task. Ray Data calls it with tables; :meth:`predict` takes plain texts.

    Args:
        recipe: what decides an answer.
        tracker: counts engine deaths per unit, over all replicas and their restarts.
        text_column: the column of a table that is read.
        start_engine: makes the engine; another one serves where an engine runs already.

    Raises:
        UserError: the model or the config of the engine is not usable.
        EngineDeadError: the engine did not start.
        JobError: this replica was killed too often while it started.
    """

    def __init__(
        self,
        recipe: Recipe,
        tracker: Tracker | None = None,
        text_column: str = "text",
        start_engine: StartEngine = Engine,
    ) -> None:
        self.recipe, self.text_column = recipe, text_column
        self.tracker = tracker or Tracker()
        config = recipe.engine
        # Ray starts a replica three times; what the user has to mend will not mend itself meanwhile.
        if (refusal := self.tracker.progress().fatal) and refusal[1]:
            raise UserError(refusal[0])
        # This process's actor, the same after a restart; another process has none.
        context = ray.get_runtime_context() if ray.is_initialized() else None
        self.replica = str((context and context.get_actor_id()) or "driver")
        self.node = context.get_node_id() if context else ""
        time.sleep(self.tracker.replica_starts(self.replica, self.node))
        self.tokenizer = load_tokenizer(config.model, config.revision, config.chat_template)
        try:
            self.engine = start_engine(config, any(task.adapter for task in recipe.tasks))
            self.readers = [Reader(task, self.engine, self.tokenizer, config.max_model_len) for task in recipe.tasks]
        except (UserError, EngineDeadError) as error:
            self.tracker.replica_refused(self.replica, str(error), isinstance(error, UserError))
            raise
        # Prompts of a few batches wait beside the engine's own queue: it never drains, and memory stays flat.
        self.pool = ThreadPoolExecutor(2 + config.max_in_flight // BATCH_WINDOWS, thread_name_prefix="windows")
        self.lock = SharedLock()
        self.names_in_flight: set[str] = set()
        self.names_lock = threading.Lock()
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]] if context else []
        self.tracker.replica_started(self.replica, self.node, alive)
        self.closed = threading.Event()
        threading.Thread(target=self._tell_answered, name="progress", daemon=True).start()

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table with the columns of :func:`ner_batch.data.predictions_schema` appended, row by row.

        A table of a run's :class:`~ner_batch.extraction.units.ShardUnits` is a work unit and may say that it could not
        be read, or bring predictions of an earlier run, of which only the rows without one are read.
        """
        unit_of_table = units.unit_of(table)
        if "error" in unit_of_table:
            return table
        texts, unreadable = texts_of(table, self.text_column)
        earlier = units.earlier_predictions(table) or [None] * len(texts)
        rows = [row for row, prediction in enumerate(earlier) if prediction is None]
        with self._in_flight(unit_of_table.get("name"), texts) as unit:
            try:
                read = self._predict_unit(unit, [texts[row] for row in rows])
            except EngineDeadError as death:
                # Ray restarts an actor whose process ends, not one whose engine is gone (ray#60145); and the engine's
                # own processes may still hang on to the GPU.
                self.tracker.engine_died(str(death))
                for child in psutil.Process().children(recursive=True):
                    child.kill()
                os._exit(ENGINE_DEAD_STATUS)
        now = dict(zip(rows, read, strict=True))
        now |= {row: Prediction(status=Status.FAILED, error=why) for row, why in unreadable.items() if row in now}
        predictions = [before or now[row] for row, before in enumerate(earlier)]
        return units.with_predictions(table, predictions, self.recipe.tagged)

    def predict(self, texts: Sequence[str | None], progress: Progress | None = None) -> list[Prediction]:
        """One prediction per text, in order. Any number of threads may call at once.

        Raises:
            EngineDeadError: the engine is gone. Anything else that can happen to a text is its status.
        """
        limit = self.recipe.max_characters
        too_long = {row: len(text) for row, text in enumerate(texts) if text is not None and len(text) > limit}
        documents = [None if text is None or row in too_long else clean(text) for row, text in enumerate(texts)]
        cut = windows.split(documents, self.recipe.window_tokens, self.tokenizer.count)
        windows_of = Counter(window.document for window in cut)
        if progress:
            progress(len(texts) - len(windows_of), 0)
        readings: list[list[Reading]] = []
        batches = [cut[i : i + BATCH_WINDOWS] for i in range(0, len(cut), BATCH_WINDOWS)]
        for batch, read in zip(batches, self.pool.map(self._read, batches), strict=True):
            if progress:
                rows = sum(1 / windows_of[window.document] for window in batch)
                progress(rows, sum(r.prompt_tokens + r.completion_tokens for of_window in read for r in of_window))
            readings += read
        predictions = merge(texts, cut, readings)
        for row, length in too_long.items():
            error = f"{length:,} characters, over windows.max_characters ({limit:,})"
            predictions[row] = Prediction(status=Status.FAILED, error=error)
        return predictions

    def close(self) -> None:
        """Stop the engine and the threads."""
        self.closed.set()
        self.engine.close()
        self.pool.shutdown()

    def _tell_answered(self) -> None:
        """Tell what the engine has answered, every two seconds: a slow one takes minutes for its first rows."""
        reported = (0, 0, 0)
        while not self.closed.wait(TELL_SECONDS):
            if (now := (*self.engine.answered, self.engine.waiting)) != reported:
                try:
                    self.tracker.engine_answered(self.replica, *now)
                except ray.exceptions.RayError:  # the job has ended
                    return
                reported = now

    def _read(self, batch: Sequence[Window]) -> list[list[Reading]]:
        """The readings of some windows by every task's reader."""
        by_task = [reader.read(batch, self.recipe.tagged) for reader in self.readers]
        return [list(itertools.chain(*of_window)) for of_window in zip(*by_task, strict=True)]

    @contextmanager
    def _in_flight(self, name: str | None, texts: Sequence[str | None]) -> Iterator[str]:
        """The name under which attempts at a table are counted.

        A table of the user's own dataset has none: it is known by its replica, which Ray gives it to again, its texts,
        and a number, where others with the same texts are in flight.
        """
        with self.names_lock:
            if name is None:
                digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
                numbered = (f"{self.replica}-{digest}-{number}" for number in itertools.count())
                name = next(one for one in numbered if one not in self.names_in_flight)
            self.names_in_flight.add(name)
        try:
            yield name
        finally:
            with self.names_lock:
                self.names_in_flight.discard(name)

    def _predict_unit(self, unit: str, texts: Sequence[str | None]) -> list[Prediction]:
        """One prediction per text. A unit that saw engines die before is read alone, in ever smaller ranges of rows."""

        def progress(rows: float, tokens: int) -> None:
            self.tracker.rows_done(unit, rows, tokens)

        if not self.tracker.unit_started(unit, len(texts), self.node):
            with self.lock.shared():
                predictions = self.predict(texts, progress)
        else:
            with self.lock.exclusive():
                while span := self.tracker.next_range(unit):
                    self.tracker.range_done(unit, self.predict(texts[span[0] : span[1]], progress))
            predictions = self.tracker.predictions(unit)
        self.tracker.unit_predicted(unit)
        return predictions


def merge(
    texts: Sequence[str | None], cut: Sequence[Window], readings: Sequence[Sequence[Reading]]
) -> list[Prediction]:
    """One prediction per text from the readings of its windows.

    Offsets are mapped back to the whole, untouched text: the promise ``text[start:end] == surface`` is made here.
    """
    predictions = [Prediction(status=Status.EMPTY)] * len(texts)
    for document, parts in itertools.groupby(zip(cut, readings, strict=True), key=lambda part: part[0].document):
        text = texts[document] or ""
        by_window: list[Sequence[Reading]] = []
        shifted: list[Entity] = []
        for window, of_window in parts:
            by_window.append(of_window)
            shifted += [entity.shifted(window.start) for reading in of_window for entity in reading.parsed.entities]
        of_text = list(itertools.chain(*by_window))
        status, error = outcome(by_window)
        predictions[document] = Prediction(
            entities=distinct(replace(entity, text=text[entity.start : entity.end]) for entity in shifted),
            ungrounded=tuple(dict.fromkeys(mention for reading in of_text for mention in reading.parsed.ungrounded)),
            status=status,
            error=error,
            prompt_tokens=sum(reading.prompt_tokens for reading in of_text),
            completion_tokens=sum(reading.completion_tokens for reading in of_text),
        )
    return predictions


def outcome(by_window: Sequence[Sequence[Reading]]) -> tuple[Status, str | None]:
    """A row's status and why it is not ok, from the readings of its windows.

    Where some of its windows (or, in a row of one window, of its answers) went wrong and others did not, it is
    ``partial``; the reason says of how many. A window that failed makes the row ``failed``: done again, it may succeed.
    """
    readings = list(itertools.chain(*by_window))
    if len(by_window) > 1:
        parts, statuses = "windows", [worst(reading.parsed.status for reading in of_window) for of_window in by_window]
    else:
        parts, statuses = "answers", [reading.parsed.status for reading in readings]
    status = worst(statuses)
    counts = Counter(statuses)
    reasons = []
    for wrong in sorted(counts.keys() - {Status.OK}, key=list(Status).index, reverse=True):
        reason = next(reading.error for reading in readings if reading.parsed.status is wrong)
        of_all = f"{counts[wrong]:,} of {len(statuses):,} {parts}: " if len(statuses) > 1 else ""
        reasons.append(f"{of_all}{reason}")
    if status not in {Status.OK, Status.FAILED} and any(reading.parsed.status is Status.OK for reading in readings):
        status = Status.PARTIAL
    return status, "; ".join(reasons) or None
