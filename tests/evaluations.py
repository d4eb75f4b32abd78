"""Rows for tests of the evaluation: random spans, and tables and files of them as the extraction job writes them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from ner_batch.data import Entity, Example, Prediction, Status, predictions_table
from ner_batch.evaluate.count import Tally
from ner_batch.evaluate.match import Span
from ner_batch.evaluate.read import SPANS
from ner_batch.io.examples import examples_table

TYPES = ("LOC", "ORG", "PER")
TEXT = "abcdefghijklmnopqrstuvwxyz"

spans = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 8), st.sampled_from(TYPES)).map(lambda s: (s[0], s[0] + s[1], s[2])),
    max_size=5,
)
rows = st.lists(st.tuples(spans, spans), min_size=1, max_size=8)


def entities(found: Sequence[Span], score: float | None = None) -> tuple[Entity, ...]:
    """Spans of :data:`TEXT`."""
    return tuple(Entity(s, e, t, TEXT[s:e], score) for s, e, t in sorted(set(found)))


def gold_table(gold: Sequence[Sequence[Span]], ids: Sequence[str] | None = None) -> pa.Table:
    """Gold as users keep it."""
    names = ids or [f"r{i}" for i in range(len(gold))]
    return examples_table([Example(n, TEXT, entities(g)) for n, g in zip(names, gold, strict=True)])


def run_table(
    predicted: Sequence[Sequence[Span]], ids: Sequence[str] | None = None, scores: Sequence[float | None] | None = None
) -> pa.Table:
    """Rows as the extraction job writes them."""
    names = ids or [f"r{i}" for i in range(len(predicted))]
    found = [entities(p, s) for p, s in zip(predicted, scores or [None] * len(predicted), strict=True)]
    table = predictions_table([Prediction(f, status=Status.OK) for f in found])
    return table.add_column(0, "text", [[TEXT] * len(names)]).add_column(0, "id", [list(names)])


def joined(
    pairs: Sequence[tuple[Sequence[Span], Sequence[Span]]], *more: Sequence[Sequence[Span]], ids=None, scores=None
) -> pa.Table:
    """Pairs of gold and predicted as joined rows; ``more`` are other runs' predictions."""
    names = ids or [f"r{i}" for i in range(len(pairs))]
    columns = {"id": names, "gold": _column([g for g, _ in pairs])}
    for i, run in enumerate([[p for _, p in pairs], *more]):
        columns |= {f"status{i}": ["ok"] * len(names), f"entities{i}": _column(run, scores)}
    return pa.table(columns)


def tally(
    pairs: Sequence[tuple[Sequence[Span], Sequence[Span]]], *more: Sequence[Sequence[Span]], grouped=False
) -> Tally:
    """Pairs of gold and predicted, counted at once; ``more`` are other runs' predictions."""
    spans = [s for pair in pairs for side in pair for s in side] + [s for run in more for row in run for s in row]
    total = Tally(sorted({type_ for _, _, type_ in spans}), 1 + len(more), 5, grouped=grouped)
    total.add(joined(pairs, *more))
    return total


def _column(side: Sequence[Sequence[Span]], scores: Sequence[float] | None = None) -> pa.Array:
    rows = zip(side, scores or [None] * len(side), strict=True)
    return pa.array(
        [[{"start": s, "end": e, "type": t, "score": score} for s, e, t in row] for row, score in rows], SPANS
    )


def corpus(count: int, seed: int = 0) -> tuple[list[list[Span]], list[list[Span]], list[list[Span]]]:
    """Gold, a run that is right in most cases, and one that is right less often."""
    rng = random.Random(seed)
    gold = [[_span(rng) for _ in range(rng.randint(0, 4))] for _ in range(count)]
    runs = [[[_noisy(s, rng, wrong) for s in g if rng.random() > wrong] for g in gold] for wrong in (0.1, 0.3)]
    return gold, *runs


def _span(rng: random.Random) -> Span:
    start = rng.randint(0, 20)
    return start, min(start + rng.randint(1, 5), 26), rng.choice(TYPES)


def _noisy(span: Span, rng: random.Random, wrong: float) -> Span:
    if rng.random() > wrong:
        return span
    return (span[0], span[1], rng.choice(TYPES)) if rng.random() < 0.5 else _span(rng)


def write(folder: Path, table: pa.Table, files: int = 1) -> Path:
    """The table in some files of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    step = -(-table.num_rows // files)
    for i in range(files):
        pq.write_table(table.slice(i * step, step), folder / f"part-{i:03d}.parquet")
    return folder
