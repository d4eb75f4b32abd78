"""Joined rows to counts: of each run by row, by kind of error and by score, and the rows with the most errors.

Counts add up batch by batch, in any order of the rows. Drawing from the histogram of rows by their counts
(multinomially) is the ordinary bootstrap over rows. Of very many rows :data:`GROUPS` groups, by a hash of their ids,
are drawn instead: random groups vary among each other as rows do, and the memory is bounded.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ner_batch.data import ANSWERED
from ner_batch.evaluate.calibration import Reliability
from ner_batch.evaluate.match import Span, align, outcome, same_type

NAMED = 100
"""Ids kept for each status that is no full answer."""
GROUPS = 65_536
MOST_ROWS = 200_000
"""Rows beyond which groups are drawn: 200,000 rows that all differ take some 50 MB."""
CORRECT, PREDICTED, GOLD = range(3)
EXACT, PARTIAL, TYPE = range(3)
KEYS = ("row", "start", "end", "type")
SPANS = np.dtype([*((key, np.int32) for key in KEYS), ("score", np.float32)])
"""A span of many rows; ``type`` is an index into a list of names, ``score`` NaN where there is none."""


class CountHistogram:
    """How many rows have which counts; or, ``grouped``, the counts of random groups of rows.

    The counts of one row are an array of shape (runs, len(types) + 1, 3). Slot i holds correct, predicted and gold
    entities of ``types[i]``. The last slot holds, of all types, what the schemes count: exact, partial (twice: a whole
    is 2, a part 1) and type.
    """

    def __init__(self, types: Sequence[str], runs: int, *, grouped: bool) -> None:
        self.types, self.runs, self.grouped = tuple(types), runs, grouped
        self._rows_by_counts = Counter[bytes]()  # the key is the row's counts as int32
        self._groups = np.zeros((GROUPS, *self.shape), np.int32) if grouped else None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one row's counts."""
        return self.runs, len(self.types) + 1, 3

    def add(self, counts: np.ndarray, ids: Sequence[str]) -> None:
        """Rows with counts of shape (rows, *shape)."""
        if self._groups is not None:
            groups = (zlib.crc32(id_.encode()) % GROUPS for id_ in ids)
            np.add.at(self._groups, np.fromiter(groups, np.int64, len(counts)), counts)
        elif len(counts):
            flat = np.ascontiguousarray(counts.reshape(len(counts), -1), np.int32)
            self._rows_by_counts.update(flat.view(f"V{flat.dtype.itemsize * flat.shape[1]}").ravel().tolist())

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts of shape (n, *shape), and how many rows have them, shape (n,); in an order that rows do not change."""
        if self._groups is not None:
            return self._groups, np.ones(GROUPS, np.int64)
        keys = sorted(self._rows_by_counts)
        counts = np.frombuffer(b"".join(keys), np.int32).reshape(len(keys), *self.shape)
        return counts, np.array([self._rows_by_counts[key] for key in keys], np.int64)

    def total(self) -> np.ndarray:
        """The counts of all rows, of shape ``shape``."""
        counts, rows = self.arrays()
        summed: np.ndarray = np.tensordot(rows, counts.astype(np.int64), 1)
        return summed


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """A row with errors; no ``status`` where the run has none."""

    id: str
    errors: int
    status: str | None
    gold: tuple[Span, ...]
    predicted: tuple[Span, ...]


@dataclass(slots=True)
class RunTally:
    """What is known of one run, apart from its counts by row."""

    confusion: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Pairs by (outcome, gold type, predicted type), "" for no partner."""
    worst: list[ErrorRow] = field(default_factory=list)
    """The rows with the most errors; of rows with as many, the first by id."""
    statuses: Counter[str] = field(default_factory=Counter)
    unanswered: dict[str, list[str]] = field(default_factory=dict)
    """Ids of rows by status, for statuses that are no full answer; the first :data:`NAMED`."""
    reliability: Reliability = field(default_factory=Reliability)


class Tally:
    """Counts of all rows that were added. ``gold_skipped`` and ``predictions_skipped`` are rows that were left out.

    ``types`` are all that occur in the rows to come; the ``worst`` rows of each run are kept.
    """

    def __init__(self, types: Sequence[str], runs: int, worst: int, *, grouped: bool) -> None:
        self.histogram = CountHistogram(types, runs, grouped=grouped)
        self.runs = tuple(RunTally() for _ in range(runs))
        self.rows = 0
        self.gold_skipped = self.predictions_skipped = 0
        self._worst = worst

    def add(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Count rows of :meth:`ner_batch.evaluate.read.JoinedRows.batches`."""
        types, ids = self.histogram.types, batch["id"].to_pylist()
        gold = spans_of(batch["gold"], types)
        counts = np.zeros((batch.num_rows, *self.histogram.shape), np.int32)
        for i, run in enumerate(self.runs):
            predicted, statuses = spans_of(batch[f"entities{i}"], types), batch[f"status{i}"].to_pylist()
            errors = _count_run(run, gold, predicted, types, counts[:, i])
            run.statuses.update(status for status in statuses if status is not None)
            for unanswered in {*statuses} - {None, *ANSWERED}:
                named = [id_ for id_, status in zip(ids, statuses, strict=True) if status == unanswered]
                run.unanswered[unanswered] = sorted([*run.unanswered.get(unanswered, ()), *named])[:NAMED]
            rows = sorted(np.flatnonzero(errors).tolist(), key=lambda row: (-errors[row], ids[row]))[: self._worst]
            for row, *spans in zip(rows, *(_of_rows(side, rows, types) for side in (gold, predicted)), strict=True):
                run.worst.append(ErrorRow(ids[row], int(errors[row]), statuses[row], *map(tuple, spans)))
            run.worst = sorted(run.worst, key=lambda row: (-row.errors, row.id))[: self._worst]
        self.histogram.add(counts, ids)
        self.rows += batch.num_rows


def spans_of(lists: pa.Array | pa.ChunkedArray, types: Sequence[str]) -> np.ndarray:
    """A column of spans without null rows as one array of dtype :data:`SPANS`, sorted by its fields.

    Of a span and type twice in a row the one of the higher score stays.
    """
    column = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    structs = pc.list_flatten(column)
    spans = np.empty(len(structs), SPANS)
    spans["row"] = pc.list_parent_indices(column)
    spans["start"], spans["end"] = pc.struct_field(structs, "start"), pc.struct_field(structs, "end")
    names = pc.struct_field(structs, "type").cast(pa.string())
    spans["type"] = pc.index_in(names, value_set=pa.array(types, pa.string()))
    spans["score"] = pc.fill_null(pc.struct_field(structs, "score"), float("nan"))
    spans = spans[np.lexsort((-spans["score"], *(spans[key] for key in reversed(KEYS))))]  # NaN comes last
    distinct: np.ndarray = spans[~_repeats(spans)]
    return distinct


def _repeats(spans: np.ndarray) -> np.ndarray:
    """Where a span, with its row and type, is the one before."""
    same = np.ones(len(spans), bool)
    same[:1] = False
    for key in KEYS:
        same[1:] &= spans[key][1:] == spans[key][:-1]
    return same


def _identical(gold: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the gold and of the predicted spans that the other side has too, with their type."""
    spans = np.concatenate([gold, predicted])
    order = np.lexsort([spans[key] for key in reversed(KEYS)])
    second = np.flatnonzero(_repeats(spans[order]))
    both = np.zeros(len(order), bool)
    both[order[second]] = both[order[second - 1]] = True  # each side has a span once, so a repeat is of both sides
    return both[: len(gold)], both[len(gold) :]


def _of_rows(spans: np.ndarray, rows: Sequence[int], types: Sequence[str]) -> list[list[Span]]:
    """The spans of some rows, in the order of ``rows``."""
    selected = spans[np.isin(spans["row"], rows)]
    listed = [(start, end, types[type_]) for start, end, type_ in selected[["start", "end", "type"]].tolist()]
    first, last = np.searchsorted(selected["row"], rows), np.searchsorted(selected["row"], rows, "right")
    return [listed[i:j] for i, j in zip(first.tolist(), last.tolist(), strict=True)]


def _count_run(
    run: RunTally, gold: np.ndarray, predicted: np.ndarray, types: Sequence[str], counts: np.ndarray
) -> np.ndarray:
    """Count one run into ``counts`` (rows, types + 1, 3) and into its tally; errors by row, shape (rows,).

    Only rows with spans that are not identical on both sides need pairing; in the rest all is missed or spurious.
    """
    gold_correct, correct = _identical(gold, predicted)
    for slot, spans in ((CORRECT, predicted[correct]), (PREDICTED, predicted), (GOLD, gold)):
        np.add.at(counts[:, :-1, slot], (spans["row"], spans["type"]), 1)
    hits = counts[:, :-1, CORRECT].sum(1)
    schemes = counts[:, -1]
    schemes[:, EXACT], schemes[:, PARTIAL], schemes[:, TYPE] = hits, 2 * hits, hits
    errors = np.zeros(len(counts), np.int64)
    left_gold, left_predicted = gold[~gold_correct], predicted[~correct]
    both = np.intersect1d(left_gold["row"], left_predicted["row"]).tolist()
    missed = left_gold[~np.isin(left_gold["row"], both)]
    spurious = left_predicted[~np.isin(left_predicted["row"], both)]
    for alone in (missed, spurious):
        np.add.at(errors, alone["row"], 1)
    for kind, spans in (("correct", gold[gold_correct]), ("missed", missed), ("spurious", spurious)):
        for type_, count in zip(types, np.bincount(spans["type"], minlength=len(types)).tolist(), strict=True):
            if count:
                run.confusion[kind, type_ if kind != "spurious" else "", type_ if kind != "missed" else ""] += count
    sides = (both, _of_rows(left_gold, both, types), _of_rows(left_predicted, both, types))
    for row, gold_spans, predicted_spans in zip(*sides, strict=True):
        pairs = align(gold_spans, predicted_spans)
        outcomes = Counter(outcome(pair) for pair in pairs)
        overlaps = outcomes["boundary"] + outcomes["type and boundary"]
        schemes[row] += outcomes["type"], 2 * outcomes["type"] + overlaps, same_type(gold_spans, predicted_spans)
        errors[row] = len(pairs)
        for pair in pairs:
            gold_type, predicted_type = (span[2] if span else "" for span in pair)
            run.confusion[outcome(pair), gold_type, predicted_type] += 1
    run.reliability.add(predicted["score"], correct, len(gold))
    return errors
