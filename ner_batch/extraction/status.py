"""How far a run is, or how it ended, read from its output folder alone: from any machine, while it runs and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ner_batch.errors import UserError
from ner_batch.extraction import lease, manifest
from ner_batch.extraction.units import NAMED_REASONS
from ner_batch.io import storage
from ner_batch.jobs.progress import duration
from ner_batch.jobs.record import MANIFEST

KILLED = "killed"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What an output folder tells of its run.

    ``state``: running, complete, incomplete (some rows failed or were not done), interrupted, or killed: it was
    running, and nobody renews its lease any more. Counts are of units that have a file; ``progress`` is the run's own
    line, rows in flight included, and ``renewed`` when it was told.
    """

    folder: str
    state: str
    rows: int
    rows_written: int
    units: int
    units_written: int
    statuses: dict[str, int]
    reasons: dict[str, int]
    tokens: int
    process: str | None
    renewed: str | None
    progress: str
    runs: Sequence[dict[str, Any]]

    @property
    def complete(self) -> bool:
        """Whether every row is there, and no more failed than may."""
        return self.state == "complete"

    @property
    def lines(self) -> list[str]:
        """The status for a person."""
        share = f" ({self.rows_written / self.rows:.1%})" if self.rows else ""
        by_status = ", ".join(f"{count:,} {status}" for status, count in sorted(self.statuses.items()))
        lines = [f"state     {self.state}"]
        if self.process:
            age = (datetime.now(UTC) - datetime.fromisoformat(self.renewed)).total_seconds() if self.renewed else 0
            lines.append(f"process   {self.process}, last heard of {duration(max(0, age))} ago")
        if self.progress:
            lines.append(f"progress  {self.progress}")
        lines += [
            f"rows      {self.rows_written:,} of {self.rows:,} written{share}: {by_status or 'none'}",
            f"units     {self.units_written:,} of {self.units:,} written",
            f"tokens    {self.tokens:,}",
        ]
        lines += [f"because   {count:,} x {reason}" for reason, count in self.reasons.items()]
        for run in self.runs:
            speed = f"{run['rows']:,} rows in {duration(run['seconds'])}, {run['rows_per_second']} rows/s"
            lines.append(f"run       {run['started']}: {speed}")
        if self.state in {KILLED, "interrupted"}:
            lines.append("start the same command again: it goes on from here")
        return lines


def status(folder: str) -> RunStatus:
    """The status of the run that writes or has written a folder.

    Raises:
        UserError: no run has begun there, or the folder cannot be read.
    """
    path = storage.join(folder, MANIFEST)
    if not storage.exists(path):
        raise UserError(f"{folder}: no extraction has begun here ({MANIFEST} is missing)")
    about, holder = _manifest_and_lease(folder)
    if about["state"] == "running" and (holder is None or not lease.alive(folder, holder)):
        about, holder = _manifest_and_lease(folder)  # perhaps it has ended in this moment
        if about["state"] == "running":
            about["state"] = KILLED
    files = [file.name for file in storage.list_files(folder)]
    written = [name for name in files if name.endswith(".parquet") and "/" not in name]
    rows, tokens, statuses, reasons, _ = manifest.add_up(folder, written)
    process = (
        f"{holder['process']['pid']} on {holder['process']['host']}, since {holder['started']}" if holder else None
    )
    return RunStatus(
        folder=folder,
        state=about["state"],
        rows=about["rows_in"],
        rows_written=rows,
        units=about["units"],
        units_written=len(written),
        statuses=dict(statuses),
        reasons=dict(reasons.most_common(NAMED_REASONS)),
        tokens=tokens,
        process=process,
        renewed=holder["renewed"] if holder else None,
        progress=holder["progress"] if holder else "",
        runs=about.get("runs", []),
    )


def _manifest_and_lease(folder: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The lease is read first: a run removes it last."""
    holder = lease.read(folder)
    path = storage.join(folder, MANIFEST)
    about = storage.read_json(path)
    has_counts = isinstance(about, dict) and all(isinstance(about.get(name), int) for name in ("rows_in", "units"))
    if not has_counts or not isinstance(about.get("state"), str):
        raise UserError(f"{path}: not a manifest of an extraction")
    return about, holder
