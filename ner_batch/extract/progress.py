"""The live line of an extraction: rows, speed, tokens, time to go, and what went wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ner_batch.extract.tracker import RunProgress
from ner_batch.jobs.progress import duration


@dataclass(slots=True)
class ExtractionLine:
    """Turns the counters of a run into a line. ``rows_before`` are done by earlier runs and do not count for speed.

    Speed is counted from the first rows on, without the engines' start: ``baseline`` holds when they were seen, how
    many, and with how many tokens.
    """

    rows: int
    rows_before: int = 0
    start_time: float = field(default_factory=time.monotonic)
    baseline: tuple[float, int, int] | None = None

    def text(self, progress: RunProgress) -> str:
        """Rows done / total, rows/s, tokens/s, ETA, outcomes."""
        now = time.monotonic()
        if not progress.rows:
            state = "engines are starting"
            if progress.replicas:
                state = f"{progress.replicas} engines are ready, no row finished yet, {progress.tokens:,} tokens"
            return f"{self.rows_before:,} of {self.rows:,} rows | {duration(now - self.start_time)}: {state}"
        self.baseline = self.baseline or (now, progress.rows, progress.tokens)
        since, rows, tokens = self.baseline
        parts = [f"{self.rows_before + progress.rows:,} of {self.rows:,} rows"]
        if progress.rows > rows:
            speed = (progress.rows - rows) / (now - since)
            parts.append(f"{speed:,.1f} rows/s")
            parts.append(f"{(progress.tokens - tokens) / (now - since):,.0f} tokens/s")
            parts.append(f"ETA {duration((self.rows - self.rows_before - progress.rows) / speed)}")
        parts += [f"{count:,} {status}" for status, count in sorted(progress.statuses.items()) if status != "ok"]
        parts += [f"engine restarted {progress.deaths} times"] if progress.deaths else []
        return " | ".join(parts)
