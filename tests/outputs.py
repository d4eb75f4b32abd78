"""Output folders of extractions as the job writes them, made of predictions that a test gives: no engine, no Ray session."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ner_batch.data import OFFSET_UNIT, Entity, Prediction, Status, Ungrounded, predictions_table
from ner_batch.extraction.units import METADATA_KEY
from ner_batch.io import storage, tables
from ner_batch.io.shards import Shard, Unit

Row = tuple[str, str | None, Prediction]
"""Id, text, prediction."""


def write_output(
    folder: str | Path,
    rows: Sequence[Row],
    *,
    unit_rows: int = 100,
    state: str = "complete",
    tagged: bool = False,
    rows_in: int | None = None,
    runs: Sequence[dict[str, Any]] = (),
    **columns: Sequence[Any],
) -> str:
    """The rows as units of one shard, with a manifest; ``columns`` are more input columns. The folder."""
    shard = Shard("input/texts.parquet", "texts.parquet", len(rows), 1, "", 1, ("id", "text"))
    starts = range(0, len(rows), unit_rows)
    for start in starts:
        part = rows[start : start + unit_rows]
        predictions = [prediction for _, _, prediction in part]
        statuses = Counter(prediction.status.value for prediction in predictions)
        reasons = Counter(prediction.error for prediction in predictions if prediction.error)
        table = predictions_table(predictions, tagged)
        table = table.add_column(0, "text", pa.array([text for _, text, _ in part], pa.string()))
        table = table.add_column(0, "id", pa.array([id_ for id_, _, _ in part], pa.string()))
        for name, values in columns.items():
            table = table.append_column(name, pa.array(values[start : start + unit_rows]))
        tokens = sum(p.prompt_tokens + p.completion_tokens for p in predictions)
        name = Unit(shard, start, len(part)).name
        about = {"name": name, "rows": len(part), "tokens": tokens, "statuses": statuses, "reasons": reasons}
        metadata = {METADATA_KEY: json.dumps(about | {"offset_unit": OFFSET_UNIT})}
        tables.write_table(storage.join(str(folder), name), table, metadata)
    manifest = {
        "schema_version": 1,
        "state": state,
        "runs": list(runs)
        or [
            {
                "started": "2026-11-03T18:00:00+00:00",
                "seconds": 120.0,
                "rows": len(rows),
                "rows_per_second": len(rows) / 120,
            }
        ],
        "fingerprint": {"model": "org/model", "task": "task-digest", "answers": "1"},
        "config": {
            "input": {"path": "input", "text_column": "text", "rename": {}},
            "engine": {"model": "org/model"},
            "adapter": None,
            "task": "jobs/task.yaml",
            "format": "json",
        },
        "types": {"news": ["PER", "ORG", "LOC"]},
        "versions": {"ner-batch": "0.1.0", "vllm": "0.29.0"},
        "rows_in": len(rows) if rows_in is None else rows_in,
        "units": len(starts),
        "inputs": [],
        "corrupt": [],
    }
    storage.write_json(storage.join(str(folder), "_manifest.json"), manifest)
    return str(folder)


def row(id_: str, text: str | None, *mentions: tuple[str, str] | tuple[str, str, float], **more: Any) -> Row:
    """A row whose entities are the first occurrences of surfaces: (surface, type) or (surface, type, score)."""
    entities = []
    for surface, type_, *score in mentions:
        start = (text or "").index(surface)
        entities.append(Entity(start, start + len(surface), type_, surface, *score))
    return id_, text, Prediction(tuple(sorted(entities)), **{"prompt_tokens": 100, "completion_tokens": 10} | more)


def corpus(count: int, seed: int = 0) -> list[Row]:
    """Made sentences with people, places and organisations; a few fail, are empty, or have ungrounded mentions."""
    draw = random.Random(seed)
    people, places, firms = ("Anna Berg", "Li Wei", "Omar Haddad"), ("Oslo", "Paris", "Lagos"), ("Acme", "Nordbank")
    rows = []
    for number in range(count):
        person, place, firm = draw.choice(people), draw.choice(places), draw.choice(firms)
        text = f"{number}: {person} of {firm} flew to {place} on a day that nobody noted down, and stayed."
        kind = draw.random()
        if kind < 0.01:
            rows.append(row(f"r{number}", text, status=Status.FAILED, error="the engine could not answer"))
        elif kind < 0.03:
            rows.append(row(f"r{number}", "", status=Status.EMPTY, prompt_tokens=0, completion_tokens=0))
        else:
            ungrounded = (Ungrounded("Atlantis", "LOC", "not in text"),) if kind < 0.08 else ()
            mentions = [(person, "PER", draw.random()), (place, "LOC", draw.random()), (firm, "ORG", draw.random())]
            rows.append(row(f"r{number}", text, *draw.sample(mentions, draw.randint(0, 3)), ungrounded=ungrounded))
    return rows
