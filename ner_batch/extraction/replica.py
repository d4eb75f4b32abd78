"""One replica of the extraction job, as Ray Data holds it: a predictor that answers for its units, and for its death.

Many units are in flight because several threads call. An engine that dies takes this process with it, and the tracker,
which outlives it, knows which units it was reading.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil
import pyarrow as pa
import ray

from ner_batch.data import Prediction, Status
from ner_batch.engine.engine import Engine, EngineDeadError
from ner_batch.errors import UserError
from ner_batch.extraction import units
from ner_batch.extraction.predictor import Predictor, StartEngine
from ner_batch.extraction.recipe import Recipe
from ner_batch.extraction.tracker import SharedLock, Tracker
from ner_batch.io.shards import texts_of

REPORT_SECONDS = 2.0

# The exit status of a replica whose engine died, so that the cause can be told from other crashes in Ray's logs.
ENGINE_DEAD_STATUS = 70


class Replica:
    """Ray Data calls it with tables, in several threads.

    Args:
        recipe: what decides an answer.
        tracker: counts engine deaths per unit, over all replicas and their restarts.
        text_column: the column of a table that is read.
        start_engine: makes the engine.

    Raises:
        UserError: the model or the config of the engine is not usable.
        EngineDeadError: the engine did not start.
        JobError: this replica was killed too often while it started.
    """

    def __init__(
        self,
        recipe: Recipe,
        tracker: Tracker,
        text_column: str = "text",
        start_engine: StartEngine = Engine,
    ) -> None:
        self.tracker, self.text_column = tracker, text_column
        # Ray starts a replica three times; what the user has to mend will not mend itself meanwhile.
        if (refusal := self.tracker.progress().fatal) and refusal[1]:
            raise UserError(refusal[0])
        # This process's actor, the same after a restart; another process has none.
        context = ray.get_runtime_context() if ray.is_initialized() else None
        self.name = str((context and context.get_actor_id()) or "driver")
        self.node = context.get_node_id() if context else ""
        time.sleep(self.tracker.replica_starts(self.name, self.node))
        try:
            self.predictor = Predictor(recipe, start_engine)
        except (UserError, EngineDeadError) as error:
            self.tracker.replica_refused(self.name, str(error), isinstance(error, UserError))
            raise
        self.lock = SharedLock()
        self.names_in_flight: set[str] = set()
        self.names_lock = threading.Lock()
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]] if context else []
        self.tracker.replica_started(self.name, self.node, alive)
        threading.Thread(target=self._report_answered, name="progress", daemon=True).start()

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
                predictions_of_rows = self._predict_unit(unit, [texts[row] for row in rows])
            except EngineDeadError as error:
                # Ray restarts an actor whose process ends, not one whose engine is gone (ray#60145); and the engine's
                # own processes may still hang on to the GPU. So this process ends, whether the tracker hears of it or
                # is gone itself, and whether a child has ended meanwhile or not.
                try:
                    self.tracker.engine_died(str(error))
                finally:
                    for child in psutil.Process().children(recursive=True):
                        with suppress(psutil.NoSuchProcess):
                            child.kill()
                    os._exit(ENGINE_DEAD_STATUS)
        new = dict(zip(rows, predictions_of_rows, strict=True))
        new |= {row: Prediction(status=Status.FAILED, error=why) for row, why in unreadable.items() if row in new}
        predictions = [prediction or new[row] for row, prediction in enumerate(earlier)]
        return units.with_predictions(table, predictions, self.predictor.recipe.tagged)

    def _report_answered(self) -> None:
        """Report what the engine has answered, every two seconds: a slow one takes minutes for its first rows."""
        engine, reported = self.predictor.engine, (0, 0, 0)
        while True:
            time.sleep(REPORT_SECONDS)
            if (current := (*engine.answered, engine.waiting)) != reported:
                try:
                    self.tracker.engine_answered(self.name, *current)
                except ray.exceptions.RayError:  # the job has ended
                    return
                reported = current

    @contextmanager
    def _in_flight(self, name: str | None, texts: Sequence[str | None]) -> Iterator[str]:
        """The name under which attempts at a table are counted.

        A table of the user's own dataset has none: it is known by its replica, which Ray gives it to again, its texts,
        and a number, where others with the same texts are in flight.
        """
        with self.names_lock:
            if name is None:
                digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
                numbered = (f"{self.name}-{digest}-{number}" for number in itertools.count())
                name = next(candidate for candidate in numbered if candidate not in self.names_in_flight)
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
                predictions = self.predictor.predict(texts, progress)
        else:
            with self.lock.exclusive():
                while span := self.tracker.next_range(unit):
                    self.tracker.range_done(unit, self.predictor.predict(texts[span[0] : span[1]], progress))
            predictions = self.tracker.predictions(unit)
        self.tracker.unit_predicted(unit)
        return predictions
