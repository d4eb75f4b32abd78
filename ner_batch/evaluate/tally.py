"""Joined rows to counts that add up: over rows, shards and nodes, in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ner_batch.data import Status
from ner_batch.evaluate import errors
from ner_batch.evaluate.calibration import Reliability, reliability
from ner_batch.evaluate.errors import Bad, Confusion
from ner_batch.evaluate.joining import Joined
from ner_batch.evaluate.matching import Pair, Span, align, same_type
from ner_batch.evaluate.spans import Spans, identical, spans_of, type_names
from ner_batch.evaluate.units import CORRECT, EXACT, GOLD, PARTIAL, PREDICTED, TYPE, Layout, Units, units_of

ANSWERED = (Status.OK, Status.EMPTY)
NAMED = 100
"""Ids kept for each status that is no full answer."""


@dataclass(frozen=True, slots=True)
class RunTally:
    """What is known of one run, apart from its counts by row."""

    confusion: Confusion = field(default_factory=Confusion)
    worst: tuple[Bad, ...] = ()
    statuses: Mapping[str, int] = field(default_factory=dict)
    unanswered: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Ids of rows by status, for statuses that are no full answer; the first :data:`NAMED`."""
    reliability: Reliability = field(default_factory=Reliability)

    def plus(self, other: RunTally, shown: int) -> RunTally:
        """Both together."""
        named = {
            status: tuple(sorted({*self.unanswered.get(status, ()), *other.unanswered.get(status, ())})[:NAMED])
            for status in sorted({*self.unanswered, *other.unanswered})
        }
        return RunTally(
            self.confusion + other.confusion,
            errors.worst([*self.worst, *other.worst], shown),
            Counter(self.statuses) + Counter(other.statuses),
            named,
            self.reliability + other.reliability,
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """What is known of some rows. ``a + b`` is what is known of both."""

    units: Units
    runs: tuple[RunTally, ...]
    rows: int
    shown: int
    """Worst rows kept for each run."""
    gold_skipped: int = 0
    predictions_skipped: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.units + other.units,
            tuple(one.plus(two, self.shown) for one, two in zip(self.runs, other.runs, strict=True)),
            self.rows + other.rows,
            self.shown,
            self.gold_skipped + other.gold_skipped,
            self.predictions_skipped + other.predictions_skipped,
        )


def measure(joined: Joined, runs: int, shown: int, *, grouped: bool) -> Tally:
    """Count joined rows of ``runs`` runs; keep the ``shown`` worst of each."""
    table = joined.table
    types = type_names([table[name] for name in ("gold", *(f"entities{i}" for i in range(runs)))])
    layout = Layout(tuple(types), runs)
    gold = spans_of(table["gold"], types)
    counts = np.zeros((table.num_rows, *layout.shape), np.int32)
    sides = [_Sides(table, i, types, gold, spans_of(table[f"entities{i}"], types)) for i in range(runs)]
    tallies = tuple(_run(side, counts[:, i], shown) for i, side in enumerate(sides))
    units = units_of(counts, layout, table["id"].to_pylist(), grouped=grouped)
    return Tally(units, tallies, table.num_rows, shown, joined.gold_skipped, joined.predictions_skipped)


@dataclass(frozen=True, slots=True)
class _Sides:
    """Gold and what one run has predicted."""

    table: pa.Table
    run: int
    types: Sequence[str]
    gold: Spans
    predicted: Spans


def _run(sides: _Sides, counts: np.ndarray, shown: int) -> RunTally:
    """Count one run into ``counts`` (rows, types + 1, 3); the rest of what is to be known of it."""
    gold, predicted, types = sides.gold, sides.predicted, sides.types
    in_gold, right = identical(gold, predicted)
    for slot, spans in ((CORRECT, predicted.only(right)), (PREDICTED, predicted), (GOLD, gold)):
        np.add.at(counts[:, :-1, slot], (spans.rows, spans.types), 1)
    correct = counts[:, :-1, CORRECT].sum(1)
    counts[:, -1, [EXACT, PARTIAL, TYPE]] = np.stack([correct, 2 * correct, correct], 1)
    wrong, confusion = _pair(gold.only(~in_gold), predicted.only(~right), types, counts[:, -1])
    confusion += _plain("correct", np.bincount(gold.types[in_gold], minlength=len(types)), types)
    statuses, unanswered = _statuses(sides.table[f"status{sides.run}"], sides.table["id"])
    worst = _worst(sides, wrong, shown)
    return RunTally(confusion, worst, statuses, unanswered, reliability(predicted.scores, right, len(gold)))


def _pair(gold: Spans, predicted: Spans, types: Sequence[str], schemes: np.ndarray) -> tuple[np.ndarray, Confusion]:
    """Pair what is not identical; errors by row, and what they are. ``schemes`` (rows, 3) is counted up in place.

    Only rows with something left on both sides need pairing; the others are missed or spurious throughout.
    """
    rows = np.intersect1d(gold.rows, predicted.rows)
    wrong, confusion = np.zeros(len(schemes), np.int64), Confusion()
    for kind, side in (("missed", gold), ("spurious", predicted)):
        alone = side.only(~np.isin(side.rows, rows))
        np.add.at(wrong, alone.rows, 1)
        confusion += _plain(kind, np.bincount(alone.types, minlength=len(types)), types)
    found: Counter[tuple[str, str, str]] = Counter()
    for row, left, said in zip(rows.tolist(), _by_row(gold, rows, types), _by_row(predicted, rows, types), strict=True):
        pairs = align(left, said)
        cells = [_cell(pair) for pair in pairs]
        kinds = Counter(kind for kind, _, _ in cells)
        near = kinds["boundary"] + kinds["type and boundary"]
        schemes[row] += kinds["type"], 2 * kinds["type"] + near, same_type(left, said)
        wrong[row] = len(pairs)
        found.update(cells)
    return wrong, confusion + Confusion(found)


def _cell(pair: Pair) -> tuple[str, str, str]:
    gold, predicted = pair
    return errors.kind(pair), gold[2] if gold else "", predicted[2] if predicted else ""


def _plain(kind: str, counts: np.ndarray, types: Sequence[str]) -> Confusion:
    """Entities of one kind, given by index of type, that need no pairing."""
    named = ((name, int(count)) for name, count in zip(types, counts, strict=True) if count)
    return Confusion({(kind, "" if kind == "spurious" else t, "" if kind == "missed" else t): n for t, n in named})


def _by_row(spans: Spans, rows: np.ndarray, types: Sequence[str]) -> list[list[Span]]:
    """The spans of some rows, in the rows' order."""
    begins, ends = np.searchsorted(spans.rows, rows), np.searchsorted(spans.rows, rows, "right")
    all_ = list(zip(spans.starts.tolist(), spans.ends.tolist(), [types[t] for t in spans.types.tolist()], strict=True))
    return [all_[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]


def _statuses(column: pa.ChunkedArray, ids: pa.ChunkedArray) -> tuple[dict[str, int], dict[str, tuple[str, ...]]]:
    counts = {e["values"]: e["counts"] for e in pc.value_counts(column).to_pylist() if e["values"] is not None}
    names = {}
    for status in sorted(set(counts) - set(ANSWERED)):
        names[status] = tuple(sorted(ids.filter(pc.equal(column, status)).to_pylist())[:NAMED])
    return counts, names


def _worst(sides: _Sides, wrong: np.ndarray, shown: int) -> tuple[Bad, ...]:
    """The rows with the most errors; of rows with as many, the first by id."""
    count = min(shown, int((wrong > 0).sum()))
    if not count:
        return ()
    ids, texts, statuses = (sides.table[name].combine_chunks() for name in ("id", "text", f"status{sides.run}"))
    candidates = np.flatnonzero(wrong >= np.partition(wrong, -count)[-count]).tolist()
    chosen = np.array(sorted(sorted(candidates, key=lambda row: (-wrong[row], ids[row].as_py()))[:count]))
    spans = (_by_row(side, chosen, sides.types) for side in (sides.gold, sides.predicted))
    bad = [
        Bad(
            id=ids[row].as_py(),
            errors=int(wrong[row]),
            status=statuses[row].as_py(),
            offset=0,
            text=texts[row].as_py() or "",
            gold=tuple(gold),
            predicted=tuple(predicted),
        )
        for row, gold, predicted in zip(chosen.tolist(), *spans, strict=True)
    ]
    return errors.worst([errors.excerpt(row) for row in bad], shown)
