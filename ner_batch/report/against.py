"""Two runs on the same input, row by row: where their entities differ."""

from __future__ import annotations

import bisect
from array import array
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ner_batch.errors import UserError
from ner_batch.report.output import READERS, Output, Place, unit_start

SPAN_BYTES = 12  # start, end and the number of its type, four bytes each


@dataclass(slots=True)
class Differences:
    """Rows of both runs compared; ``both``, ``this`` and ``other`` count entities by type: of both, of one alone.

    ``places`` are differing rows of this run, from everywhere; ``rows_this`` and ``rows_other`` are of one run alone.
    """

    rows: int = 0
    rows_different: int = 0
    rows_this: int = 0
    rows_other: int = 0
    both: Counter[str] = field(default_factory=Counter)
    this: Counter[str] = field(default_factory=Counter)
    other: Counter[str] = field(default_factory=Counter)
    places: list[Place] = field(default_factory=list)


class Counterparts:
    """Finds a row of another run: rows are the same where shard and row of the shard are, however units were cut."""

    def __init__(self, this: Output, other: Output, other_rows: list[int]) -> None:
        self._this = this
        self._units: dict[str, list[tuple[int, int, int]]] = {}  # by shard: first row, rows, index of the file
        for index, (file, rows) in enumerate(zip(other.files, other_rows, strict=True)):
            shard, start = unit_start(file.name)
            self._units.setdefault(shard, []).append((start, rows, index))

    def pieces(self, unit: int, rows: int) -> Iterator[tuple[int, int, int, int]]:
        """Runs of a unit's rows that the other run has: (row here, rows, index of the file there, row there)."""
        shard, start = unit_start(self._this.files[unit].name)
        for other_start, other_rows, index in self._units.get(shard, ()):
            first, end = max(start, other_start), min(start + rows, other_start + other_rows)
            if first < end:
                yield first - start, end - first, index, first - other_start

    def place(self, place: Place) -> Place | None:
        """Where the other run has a row; None where it does not."""
        unit, row = place
        shard, start = unit_start(self._this.files[unit].name)
        units = self._units.get(shard, [])
        at = bisect.bisect_right(units, (start + row, float("inf"), 0)) - 1
        if at < 0 or start + row >= units[at][0] + units[at][1]:
            return None
        return units[at][2], start + row - units[at][0]


def compare(
    this: Output, other: Output, this_rows: list[int], other_rows: list[int], most_rows: int
) -> tuple[Differences, Counterparts]:
    """All rows that both runs have.

    Raises:
        UserError: they have no row in common, or the texts are others.
    """
    counterparts, total = Counterparts(this, other, other_rows), Differences()
    numbers = array("q")  # of differing rows, file and row in one: there may be millions

    def of_unit(unit: int) -> Differences:
        return _of_unit(this, other, unit, list(counterparts.pieces(unit, this_rows[unit])))

    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(this.files), READERS):
            for part in pool.map(of_unit, range(start, min(start + READERS, len(this.files)))):
                total.rows += part.rows
                total.rows_different += part.rows_different
                for name in ("both", "this", "other"):
                    getattr(total, name).update(getattr(part, name))
                numbers.extend(unit * 2**32 + row for unit, row in part.places)
    if not total.rows and this_rows and other_rows:
        raise UserError(f"--against {other.folder}: no row in common with {this.folder}: give two runs on one input")
    some = numbers[:: max(1, -(-len(numbers) // max(1, most_rows)))]
    total.places = [divmod(number, 2**32) for number in some]
    total.rows_this, total.rows_other = sum(this_rows) - total.rows, sum(other_rows) - total.rows
    return total, counterparts


def _of_unit(this: Output, other: Output, unit: int, pieces: list[tuple[int, int, int, int]]) -> Differences:
    result = Differences()
    own, theirs = (["entities", *([o.text_column] if o.text_column else [])] for o in (this, other))
    table = this.table(this.files[unit], own) if pieces else None
    for here, rows, index, there in pieces:
        assert table is not None
        ours = table.slice(here, rows)
        others = other.table(other.files[index], theirs).slice(there, rows)
        if this.text_column and other.text_column:
            texts = (ours[this.text_column], others[other.text_column])
            same = pc.equal(*map(_utf8, texts))
            if (row := pc.index(same, False).as_py()) >= 0:
                where = f"row {here + row} of {this.files[unit].name} has another text than in {this.folder}"
                raise UserError(f"--against {other.folder}: {where}: give two runs on one input")
        different = _count(result, ours["entities"].combine_chunks(), others["entities"].combine_chunks())
        result.places += [(unit, here + row) for row in different]
        result.rows += rows
    result.rows_different = len(result.places)
    return result


def _utf8(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts as bytes, whatever kind of strings they are; null is empty."""
    if pa.types.is_dictionary(texts.type):
        texts = texts.cast(texts.type.value_type)
    return pc.fill_null(texts.cast(pa.large_binary()), b"")


def _count(result: Differences, ours: pa.ListArray, others: pa.ListArray) -> list[int]:
    """Count entities of as many rows on both sides; the rows whose spans differ."""
    entities = [pc.list_flatten(side) for side in (ours, others)]
    types = pa.concat_arrays([_tagged_types(side) for side in entities]).dictionary_encode()
    names, numbers = types.dictionary.to_pylist(), types.indices.to_numpy(zero_copy_only=False)
    here, there = _spans(entities[0], numbers[: len(entities[0])]), _spans(entities[1], numbers[len(entities[0]) :])
    here_bytes, there_bytes = here.tobytes(), there.tobytes()
    here_ends, there_ends = _ends(ours), _ends(others)
    different, in_both = [], np.ones(len(here), bool)
    for row in range(len(ours)):
        i, j, k, m = here_ends[row], here_ends[row + 1], there_ends[row], there_ends[row + 1]
        if here_bytes[i * SPAN_BYTES : j * SPAN_BYTES] == there_bytes[k * SPAN_BYTES : m * SPAN_BYTES]:
            continue  # some 0.3 microseconds a row; sets take ten times that
        own, theirs = {*map(tuple, here[i:j].tolist())}, {*map(tuple, there[k:m].tolist())}
        if own == theirs:
            continue
        in_both[i:j] = False
        different.append(row)
        for counts, some in ((result.both, own & theirs), (result.this, own - theirs), (result.other, theirs - own)):
            counts.update(names[number] for _, _, number in some)
    of_equal_rows = np.bincount(here[in_both, 2], minlength=len(names)).tolist()
    result.both.update(dict(zip(names, of_equal_rows, strict=True)))
    return different


def _spans(entities: pa.StructArray, types: np.ndarray) -> np.ndarray:
    """Start, end and number of the type of each entity, shape (entities, 3)."""
    offsets = [pc.struct_field(entities, name).to_numpy(zero_copy_only=False) for name in ("start", "end")]
    return np.stack([*offsets, types], 1).astype(np.int32)


def _ends(lists: pa.ListArray) -> list[int]:
    """Where the entities of each row begin, and where the last one's end."""
    return np.concatenate([[0], np.cumsum(pc.list_value_length(lists).to_numpy(zero_copy_only=False))]).tolist()  # type: ignore[no-any-return]


def _tagged_types(entities: pa.StructArray) -> pa.Array:
    """Types, with their task where the run has several: the same span of another task is another entity."""
    types = pc.struct_field(entities, "type")
    if entities.type.get_field_index("task") < 0:
        return types
    task = pc.fill_null(pc.struct_field(entities, "task"), "")
    return pc.if_else(pc.equal(task, ""), types, pc.binary_join_element_wise(task, types, ": "))
