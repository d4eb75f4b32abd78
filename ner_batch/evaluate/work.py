"""The pieces of the evaluation, as functions that run here or on any node of a cluster."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ner_batch.evaluate.faults import Faults, fault
from ner_batch.evaluate.joining import Rules, join
from ner_batch.evaluate.source import Source, read
from ner_batch.evaluate.tally import Tally, measure
from ner_batch.io.shards import Unit

UNIQUE = "ids must be unique"


@dataclass(frozen=True, slots=True)
class Options:
    """What a piece of the work must know besides its rows."""

    runs: int
    shown: int
    grouped: bool
    rules: Rules


def stream(source: Source, unit: Unit, options: Options) -> tuple[Tally | None, Faults, np.ndarray]:
    """Count a unit whose rows hold both gold and predictions; with a 64-bit hash of each id, to find any twice."""
    table, faults = read(source, unit)
    if faults:
        return None, faults, np.zeros(0, np.uint64)
    tally, faults = count([(source.name, table)] * 2, options)
    return tally, faults, _hashes(table) if "id" in source.columns else np.zeros(0, np.uint64)


def split(source: Source, unit: Unit, parts: int) -> tuple[Any, ...]:
    """A unit's rows in parts by a hash of their ids, and what is wrong with them: (Faults, table, table, ...)."""
    table, faults = read(source, unit)
    if faults:
        table = table.slice(0, 0)
    if parts == 1:
        return faults, table
    ids = table["id"].to_pylist()
    # The high bits: the bootstrap's groups are made of the low ones.
    part = (np.fromiter((zlib.crc32(i.encode()) for i in ids), np.int64, len(ids)) >> 12) % parts
    return faults, *(table.take(np.flatnonzero(part == k)) for k in range(parts))


def count(tables: Sequence[tuple[str, pa.Table]], options: Options) -> tuple[Tally | None, Faults]:
    """Join tables by id (gold first, then the runs) and count them; None where something is wrong."""
    joined, faults = join(tables, options.rules)
    if faults:
        return None, faults
    return measure(joined, options.runs, options.shown, grouped=options.grouped), faults


def twice(source: Source, hashes: Sequence[np.ndarray]) -> Faults:
    """Ids that more than one row of a streamed source has; only units with a suspicious hash are read again."""
    every = np.concatenate(hashes)
    values, times = np.unique(every, return_counts=True)
    suspects = values[times > 1]
    if not len(suspects):
        return Faults()
    names: list[str] = []
    for unit, own in zip(source.units, hashes, strict=True):
        if np.isin(own, suspects).any():
            ids = read(source, unit)[0]["id"].to_pylist()
            names += [ids[i] for i in np.flatnonzero(np.isin(own, suspects))]
    repeated = sorted(name for name, n in Counter(names).items() if n > 1)  # two ids may share a hash
    return fault(f"{source.name}: ids that more than one row has", UNIQUE, len(repeated), repeated)


def _hashes(table: pa.Table) -> np.ndarray:
    digests = (hashlib.blake2b(i.encode(), digest_size=8).digest() for i in table["id"].to_pylist())
    return np.frombuffer(b"".join(digests), np.uint64)
