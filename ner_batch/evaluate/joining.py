"""Rows of runs and gold brought together by id; what has no partner, or another text, is told and never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ner_batch.evaluate.faults import SHOWN, Faults, fault
from ner_batch.evaluate.source import SPANS, STATUS

NO_ROW = "no row"
"""The status of a gold row that no prediction row belongs to, where that counts as missed."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What to do with rows without a partner; see :class:`ner_batch.evaluate.settings.EvaluateConfig`."""

    without_prediction: Literal["refuse", "miss", "skip"] = "refuse"
    without_gold: Literal["refuse", "skip"] = "refuse"


@dataclass(frozen=True, slots=True)
class Joined:
    """Rows ready to be counted: ``id``, ``text``, ``gold``, and for run i ``status{i}`` and ``entities{i}``.

    ``gold_skipped`` and ``predictions_skipped`` are rows left out, as the rules say.
    """

    table: pa.Table
    gold_skipped: int = 0
    predictions_skipped: int = 0


def join(tables: Sequence[tuple[str, pa.Table]], rules: Rules) -> tuple[Joined, Faults]:
    """Join named tables of :func:`ner_batch.evaluate.source.read`: first gold, then one or two runs.

    Gold may be the first run itself, if that has a column ``gold``. With faults the rows are not to be used.
    """
    (base_name, gold), runs = tables[0], tables[1:]
    faults = sum((_repeated(name, table) for name, table in dict(tables).items()), Faults())
    places = [pc.index_in(gold["id"], value_set=run["id"].combine_chunks()).combine_chunks() for _, run in runs]
    extra = 0
    for (name, run), place in zip(runs, places, strict=True):
        faults += _lonely_gold(name, gold, place, rules)
        strangers = pc.invert(pc.is_in(run["id"], value_set=gold["id"].combine_chunks()))
        faults += _lonely_predictions(name, base_name, run.filter(strangers), rules)
        extra += pc.sum(strangers).as_py() or 0
    keep = np.ones(gold.num_rows, bool)
    if rules.without_prediction == "skip":
        for place in places:
            keep &= place.is_valid().to_numpy(zero_copy_only=False)
    gold, places = gold.filter(pa.array(keep)), [place.filter(pa.array(keep)) for place in places]
    table, wrong = _side_by_side(base_name, gold, runs, places)
    return Joined(table, int((~keep).sum()), extra), faults + wrong


def _side_by_side(
    base_name: str, gold: pa.Table, runs: Sequence[tuple[str, pa.Table]], places: Sequence[pa.Array]
) -> tuple[pa.Table, Faults]:
    columns: dict[str, pa.ChunkedArray] = {"id": gold["id"], "gold": gold["gold"]}
    faults, text = Faults(), gold["text"] if "text" in gold.column_names else None
    for i, ((name, run), place) in enumerate(zip(runs, places, strict=True)):
        taken = run.take(place)
        columns[f"entities{i}"] = _filled(taken["entities"])
        columns[f"status{i}"] = pc.if_else(place.is_null(), NO_ROW, taken[STATUS])
        if "text" in run.column_names:
            if text is None:
                text = taken["text"]
                faults += _outside(base_name, "gold", columns["gold"], text, gold["id"])
            faults += _other_texts(base_name, name, gold["id"], text, taken["text"])
        elif text is not None:
            faults += _outside(name, "entities", columns[f"entities{i}"], text, gold["id"])
    columns["text"] = text
    return pa.table(columns), faults


def _filled(spans: pa.ChunkedArray) -> pa.ChunkedArray:
    """[] where there is no row."""
    return pc.fill_null(spans, pa.scalar([], SPANS)) if spans.null_count else spans


def _repeated(name: str, table: pa.Table) -> Faults:
    if len(pc.unique(table["id"])) == table.num_rows:
        return Faults()
    twice = [entry["values"] for entry in pc.value_counts(table["id"]).to_pylist() if entry["counts"] > 1]
    return fault(f"{name}: ids that more than one row has", "ids must be unique", len(twice), sorted(twice))


def _lonely_gold(name: str, gold: pa.Table, place: pa.Array, rules: Rules) -> Faults:
    if rules.without_prediction != "refuse":
        return Faults()
    lonely = gold["id"].filter(place.is_null())
    return fault(
        f"{name}: no row for gold's ids",
        "finish the run, or set without_prediction=miss or skip",
        len(lonely),
        _first(lonely),
    )


def _lonely_predictions(name: str, base: str, strangers: pa.Table, rules: Rules) -> Faults:
    if rules.without_gold != "refuse":
        return Faults()
    remedy = "give the gold of all rows, or set without_gold=skip"
    return fault(f"{name}: ids that {base} does not have", remedy, strangers.num_rows, _first(strangers["id"]))


def _other_texts(base: str, name: str, ids: pa.ChunkedArray, one: pa.ChunkedArray, two: pa.ChunkedArray) -> Faults:
    other = ids.filter(pc.fill_null(pc.not_equal(one, two), False))
    remedy = "both must be made from one text, character for character"
    return fault(f"{name}: other text than {base} has under the same id", remedy, len(other), _first(other))


def _outside(name: str, column: str, spans: pa.ChunkedArray, texts: pa.ChunkedArray, ids: pa.ChunkedArray) -> Faults:
    """Spans that end behind the text which another source holds."""
    array = spans.combine_chunks()
    rows = np.repeat(np.arange(len(array)), pc.list_value_length(array).to_numpy())
    ends = pc.struct_field(array.flatten(), "end").to_numpy()
    sizes = pc.fill_null(pc.utf8_length(texts), 2**31 - 1).to_numpy()  # null: that source has no such row
    beyond = np.unique(rows[ends > sizes[rows]])
    what = f"{name}: column {column!r} has spans that end behind their text"
    return fault(what, "offsets are code points, half-open", len(beyond), (ids[i] for i in beyond))


def _first(ids: pa.ChunkedArray) -> list[str]:
    """The first few by name, whatever the order of rows."""
    smallest: list[str] = sorted(ids.to_pylist())[:SHOWN]
    return smallest
