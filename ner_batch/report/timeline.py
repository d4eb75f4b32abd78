"""How many rows a run wrote when, from the times of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from ner_batch.io.storage import File

BINS = 60
FEWEST = 5
"""Files of different times below which there is no course to show."""
SLACK = 30.0
"""Seconds that a store's clock may go wrong."""


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
            if file.written is not None and start - SLACK <= file.written <= start + seconds + SLACK
        ]
        if times:
            moments.append((times[-1], count))
    if len({moment for moment, _ in moments}) < FEWEST or 2 * len(moments) < len(files) or before <= 0:
        return None
    bins = min(BINS, max(4, len(moments) // 2))
    at, counts = zip(*moments, strict=True)
    summed, _ = np.histogram(at, bins, (0.0, before), weights=counts)
    step = before / bins
    return Timeline(step, tuple((summed / step).tolist()), tuple(earlier for _, _, earlier in spans))
