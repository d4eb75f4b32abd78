"""Texts in, grounded predictions out, by one recipe on one engine. This is the file to read first.

A text becomes windows; each task's reader (:mod:`reader`) turns a window into one prompt per label group; the engine
answers; the format reads the answer back into spans of the window; a text's windows are merged into one prediction.
The windows of many texts are read by a pool of threads, which keep the engine busy. Nothing here knows Ray:
:mod:`replica` is this class inside a job, :mod:`api` in a program of one's own.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ner_batch.data import Entity, Prediction, Status, clean, distinct, worst
from ner_batch.engine.engine import Engine
from ner_batch.engine.settings import EngineConfig
from ner_batch.extraction.reader import Reader, Reading
from ner_batch.extraction.recipe import Recipe
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.text.windows import Window, split

# Windows prompted and parsed together: large enough for one retrieval search, small enough that the engine gets its
# first prompts after some 10 ms, and that a slow machine (2 windows a second) tells of progress several times a minute.
BATCH_WINDOWS = 32

StartEngine = Callable[[EngineConfig, bool], Engine]
"""Starts the engine of a config; the flag says whether requests name adapters. Usually :class:`Engine` itself."""

Progress = Callable[[float, int], None]
"""Called with (rows read, of a long one the part, and tokens spent) as texts proceed."""


class Predictor:
    """Holds one engine, a reader per task, and the threads that read windows.

    Args:
        recipe: what decides an answer.
        start_engine: makes the engine; another one serves where an engine runs already.

    Raises:
        UserError: the model or the config of the engine is not usable.
        EngineDeadError: the engine did not start.
    """

    def __init__(self, recipe: Recipe, start_engine: StartEngine = Engine) -> None:
        self.recipe = recipe
        config = recipe.engine
        self.tokenizer = load_tokenizer(config.model, config.revision, config.chat_template)
        self.engine = start_engine(config, any(task.adapter for task in recipe.tasks))
        try:
            self.readers = [Reader(task, self.engine, self.tokenizer, config.max_model_len) for task in recipe.tasks]
        except BaseException:
            self.engine.close()
            raise
        # Prompts of a few batches wait beside the engine's own queue: it never drains, and memory stays flat.
        self.threads = 2 + config.max_in_flight // BATCH_WINDOWS
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="windows")

    def predict(self, texts: Sequence[str | None], progress: Progress | None = None) -> list[Prediction]:
        """One prediction per text, in order. Any number of threads may call at once.

        Raises:
            EngineDeadError: the engine is gone. Anything else that can happen to a text is its status.
        """
        limit = self.recipe.max_characters
        too_long = {row: len(text) for row, text in enumerate(texts) if text is not None and len(text) > limit}
        documents = [None if text is None or row in too_long else clean(text) for row, text in enumerate(texts)]
        windows = split(documents, self.recipe.window_tokens, self.tokenizer.count)
        window_counts = Counter(window.document for window in windows)
        if progress:
            progress(len(texts) - len(window_counts), 0)
        readings: list[list[Reading]] = []
        batches = [windows[i : i + BATCH_WINDOWS] for i in range(0, len(windows), BATCH_WINDOWS)]
        for batch, batch_readings in zip(batches, self.pool.map(self._read, batches), strict=True):
            if progress:
                rows = sum(1 / window_counts[window.document] for window in batch)
                progress(rows, sum(r.prompt_tokens + r.completion_tokens for r in itertools.chain(*batch_readings)))
            readings += batch_readings
        predictions = merge(texts, windows, readings)
        for row, length in too_long.items():
            error = f"{length:,} characters, over windows.max_characters ({limit:,})"
            predictions[row] = Prediction(status=Status.FAILED, error=error)
        return predictions

    def close(self) -> None:
        """Stop the engine and the threads."""
        try:
            self.engine.close()
        finally:
            self.pool.shutdown()

    def _read(self, batch: Sequence[Window]) -> list[list[Reading]]:
        """The readings of some windows by every task's reader."""
        by_task = [reader.read(batch, self.recipe.tagged) for reader in self.readers]
        return [list(itertools.chain(*window_readings)) for window_readings in zip(*by_task, strict=True)]


def merge(
    texts: Sequence[str | None], windows: Sequence[Window], readings: Sequence[Sequence[Reading]]
) -> list[Prediction]:
    """One prediction per text from the readings of its windows: ``readings`` has a list for each of the ``windows``.

    Offsets are mapped back to the whole, untouched text: the promise ``text[start:end] == surface`` is made here.
    """
    predictions = [Prediction(status=Status.EMPTY)] * len(texts)
    for document, parts in itertools.groupby(zip(windows, readings, strict=True), key=lambda part: part[0].document):
        text = texts[document] or ""
        by_window: list[Sequence[Reading]] = []
        shifted: list[Entity] = []
        for window, window_readings in parts:
            by_window.append(window_readings)
            for reading in window_readings:
                shifted += [entity.shifted(window.start) for entity in reading.parsed.entities]
        text_readings = list(itertools.chain(*by_window))
        ungrounded = (mention for reading in text_readings for mention in reading.parsed.ungrounded)
        status, error = outcome(by_window)
        predictions[document] = Prediction(
            entities=distinct(replace(entity, text=text[entity.start : entity.end]) for entity in shifted),
            ungrounded=tuple(dict.fromkeys(ungrounded)),
            status=status,
            error=error,
            prompt_tokens=sum(reading.prompt_tokens for reading in text_readings),
            completion_tokens=sum(reading.completion_tokens for reading in text_readings),
        )
    return predictions


def outcome(by_window: Sequence[Sequence[Reading]]) -> tuple[Status, str | None]:
    """A row's status and why it is not ok, from the readings of its windows.

    Where some of its windows (or, in a row of one window, of its answers) went wrong and others did not, it is
    ``partial``; the reason says of how many. A window that failed makes the row ``failed``: done again, it may succeed.
    """
    readings = list(itertools.chain(*by_window))
    if len(by_window) > 1:
        parts = "windows"
        statuses = [worst(reading.parsed.status for reading in window_readings) for window_readings in by_window]
    else:
        parts = "answers"
        statuses = [reading.parsed.status for reading in readings]
    status = worst(statuses)
    counts = Counter(statuses)
    reasons = []
    for wrong in sorted(counts.keys() - {Status.OK}, key=list(Status).index, reverse=True):
        reason = next(reading.error for reading in readings if reading.parsed.status is wrong)
        share = f"{counts[wrong]:,} of {len(statuses):,} {parts}: " if len(statuses) > 1 else ""
        reasons.append(f"{share}{reason}")
    if status not in {Status.OK, Status.FAILED} and any(reading.parsed.status is Status.OK for reading in readings):
        status = Status.PARTIAL
    return status, "; ".join(reasons) or None
