"""An output's rows counted, file by file in bounded memory; and how many a run wrote when."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ner_batch.data import ANSWERED, PREDICTIONS
from ner_batch.io.storage import File
from ner_batch.report.output import Output, Place

SCORE_BINS = 20
SURFACE = 120
"""Code points by which a surface is known; longer ones of one beginning are one."""
CAPACITY = 200_000
"""Surfaces counted at once: some 40 MB. Fewer different ones are counted exactly."""
TIME_BINS = 60
FEWEST_TIMES = 5
"""Files of different times below which there is no course to show."""
CLOCK_SLACK = 30.0
"""Seconds that a store's clock may go wrong."""


class SurfaceCounts:
    """How often each (type, surface) occurs: exactly while they are few, of very many the frequent ones.

    Beyond twice the capacity all counts are lowered by that of the first one past it, and those at 0 go (Misra and
    Gries 1982, merged as in Agarwal et al. 2012): a count is at most ``undercount`` too low, and never too high.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.counts = Counter[tuple[str, str]]()
        self.undercount = 0
        self._capacity = capacity

    def add(self, types: pa.Array, surfaces: pa.Array) -> None:
        """Count entities."""
        pairs = pa.table({"type": types, "text": pc.utf8_slice_codeunits(surfaces, 0, SURFACE)})
        grouped = pairs.group_by(["type", "text"]).aggregate([([], "count_all")])
        for type_, surface, count in zip(*(grouped[name].to_pylist() for name in grouped.column_names), strict=True):
            self.counts[type_, surface] += count
        if len(self.counts) > 2 * self._capacity:
            values = np.fromiter(self.counts.values(), np.int64, len(self.counts))
            lowered = int(np.partition(values, -self._capacity - 1)[-self._capacity - 1])
            self.undercount += lowered
            self.counts = Counter({key: n - lowered for key, n in self.counts.items() if n > lowered})

    def most_frequent(self, types: Sequence[str], most: int) -> dict[str, list[tuple[str, int]]]:
        """Of each type the surfaces that occur most, with their counts."""
        by_type: dict[str, list[tuple[str, int]]] = {type_: [] for type_ in types}
        for (type_, surface), count in self.counts.items():
            if type_ in by_type:
                by_type[type_].append((surface, count))
        return {name: sorted(surfaces, key=lambda s: (-s[1], s[0]))[:most] for name, surfaces in by_type.items()}


class Totals:
    """Sums over the rows of an output; of rows with a status that is no full answer some are kept, by ``seed``."""

    def __init__(self, seed: int, most_rows: int) -> None:
        self.rows = self.rows_with_entities = self.prompt_tokens = self.completion_tokens = 0
        self.unit_rows: list[int] = []
        self.statuses, self.types, self.ungrounded = Counter[str](), Counter[str](), Counter[str]()
        self.verified = Counter[bool | None]()
        self.scores = np.zeros(SCORE_BINS, np.int64)
        self.surfaces = SurfaceCounts()
        self._seed, self._most_rows = seed, most_rows
        self._unanswered: dict[str, list[tuple[float, int, int]]] = {}

    @property
    def entities(self) -> int:
        """Of all types."""
        return self.types.total()

    def add(self, name: str, table: pa.Table) -> None:
        """Count the next file."""
        self._add_rows(name, table)
        lists = table["entities"].combine_chunks()
        self.rows_with_entities += pc.sum(pc.greater(pc.list_value_length(lists), 0)).as_py() or 0
        entities = pc.list_flatten(lists)
        types = pc.struct_field(entities, "type")
        self.types.update(_counted(types))
        self.surfaces.add(types, pc.struct_field(entities, "text"))
        self.verified.update(_counted(pc.struct_field(entities, "verified")))
        scores = pc.struct_field(entities, "score").drop_null().to_numpy(zero_copy_only=False).astype(float)
        bins = np.clip(np.floor(scores * SCORE_BINS + 1e-6), 0, SCORE_BINS - 1)  # 0.9 is 0.8999 as float32
        self.scores += np.bincount(bins.astype(int), minlength=SCORE_BINS)
        mentions = pc.list_flatten(table["ungrounded"].combine_chunks())
        self.ungrounded.update(_counted(pc.struct_field(mentions, "reason")))

    def _add_rows(self, name: str, table: pa.Table) -> None:
        unit, statuses = len(self.unit_rows), table["status"].combine_chunks()
        self.unit_rows.append(table.num_rows)
        self.rows += table.num_rows
        self.prompt_tokens += pc.sum(table["prompt_tokens"]).as_py() or 0
        self.completion_tokens += pc.sum(table["completion_tokens"]).as_py() or 0
        counts = _counted(statuses)
        self.statuses.update(counts)
        priorities = np.random.default_rng([self._seed, zlib.crc32(name.encode())]).random(table.num_rows)
        for status in counts.keys() - {*ANSWERED}:
            rows = np.flatnonzero(pc.equal(statuses, status).to_numpy(zero_copy_only=False))
            rows = rows[np.argsort(priorities[rows], kind="stable")[: self._most_rows]]
            candidates = [
                *self._unanswered.get(status, ()),
                *((float(priorities[row]), unit, int(row)) for row in rows),
            ]
            self._unanswered[status] = sorted(candidates)[: self._most_rows]

    def unanswered(self) -> dict[str, list[Place]]:
        """Rows by status, for statuses that are no full answer, drawn at random."""
        return {status: [row[1:] for row in rows] for status, rows in sorted(self._unanswered.items())}


def _counted(values: pa.Array) -> Mapping[Any, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}


def count(output: Output, seed: int, most_rows: int, progress: Callable[[str], None]) -> Totals:
    """The totals of an output. Raises UserError where a file cannot be read."""
    totals = Totals(seed, most_rows)
    for file, table in zip(output.files, output.tables(PREDICTIONS.names), strict=True):
        totals.add(file.name, table)
        progress(f"{totals.rows:,} of {output.status.rows_written:,} rows of {output.folder} counted")
    return totals


@dataclass(frozen=True, slots=True)
class Timeline:
    """Rows per second in stretches of ``step`` seconds; runs that went on stand end to end, at ``starts`` (seconds)."""

    step: float
    rows_per_second: tuple[float, ...]
    starts: tuple[float, ...]


def timeline(files: Sequence[File], rows: Sequence[int], runs: Sequence[Mapping[str, Any]]) -> Timeline | None:
    """The course of the runs in a manifest, without the time between them.

    None where files are few, the store tells no times, or they are not the runs' (a copied folder has its own): the
    files of a run are written between its start and its end. Rows that were done again count when that was.
    """
    spans = []
    before = 0.0
    for run in runs:
        start = datetime.fromisoformat(run["started"]).timestamp()
        spans.append((start, run["seconds"], before))
        before += run["seconds"]
    moments: list[tuple[float, int]] = []
    for file, count in zip(files, rows, strict=True):
        times = [
            earlier + min(max(0.0, file.written - start), seconds)
            for start, seconds, earlier in spans
            if file.written is not None and start - CLOCK_SLACK <= file.written <= start + seconds + CLOCK_SLACK
        ]
        if times:
            moments.append((times[-1], count))
    if len({moment for moment, _ in moments}) < FEWEST_TIMES or 2 * len(moments) < len(files) or before <= 0:
        return None
    bins = min(TIME_BINS, max(4, len(moments) // 2))
    at, counts = zip(*moments, strict=True)
    summed, _ = np.histogram(at, bins, (0.0, before), weights=counts)
    step = before / bins
    return Timeline(step, tuple((summed / step).tolist()), tuple(earlier for _, _, earlier in spans))
