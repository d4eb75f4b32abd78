"""What a job writes down about itself: its manifest, versions of packages that decide its result, digests."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ner_batch.errors import UserError
from ner_batch.io import storage

MANIFEST = "_manifest.json"
"""In the output folder of an extraction: what ran there, and how it ended."""


def versions(*packages: str) -> dict[str, str]:
    """Python, the platform, and those of the packages (by distribution name) that are installed."""
    installed = {"python": platform.python_version(), "platform": sys.platform}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def read_manifest(folder: str) -> Any:
    """What the manifest in a folder says; None where there is none.

    Raises:
        UserError: the manifest cannot be read.
    """
    uri = storage.join(folder, MANIFEST)
    return storage.read_json(uri) if storage.exists(uri) else None


def is_unfinished(folder: str) -> bool:
    """Whether a manifest in a folder says that its run is not complete; one without a manifest is no run's.

    Raises:
        UserError: the manifest cannot be read.
    """
    manifest = read_manifest(folder)
    return isinstance(manifest, dict) and manifest.get("state") != "complete"


def named_columns(manifest: Any) -> tuple[str, str | None]:
    """What an extraction's manifest calls the columns of texts and of ids, as its output has them.

    The text may be a path of fields (``doc.body``); ids are None where the run named no column. Of no manifest:
    ``text``, None.
    """
    config = manifest.get("config") if isinstance(manifest, dict) else None
    source = config.get("input") if isinstance(config, dict) else None
    if not isinstance(source, dict):
        return "text", None
    rename, text, id_column = source.get("rename") or {}, source.get("text_column", "text"), source.get("id_column")
    top, dot, fields = text.partition(".")
    return rename.get(text) or f"{rename.get(top, top)}{dot}{fields}", rename.get(id_column, id_column)


def task_types(manifest: Any, task: str | None = None) -> tuple[str, ...]:
    """The types of an extraction's task, or of all its tasks, as its manifest has them; earlier ones have none."""
    types_by_task = manifest.get("types") if isinstance(manifest, dict) else None
    if not isinstance(types_by_task, dict):
        return ()
    lists = [types for name, types in types_by_task.items() if task in (None, name) and isinstance(types, list)]
    return tuple(dict.fromkeys(type_ for types in lists for type_ in types if isinstance(type_, str)))


def check_task(manifest: Any, task: str | None, option: str, *, several: bool = False) -> None:
    """Raises a UserError, which begins with ``option``, where an extraction had no such task, by its manifest.

    ``several``: only of a run of several tasks; the rows of a run of one name none.
    """
    types_by_task = manifest.get("types") if isinstance(manifest, dict) else None
    if not isinstance(types_by_task, dict) or (several and len(types_by_task) == 1):
        return
    if task is not None and task not in types_by_task:
        raise UserError(f"{option}: no task {task!r} in this run; there are {', '.join(map(str, types_by_task))}")


def digest(value: Any, length: int = 16) -> str:
    """SHA-256 of a value as JSON, the first ``length`` hex digits. Stored digests are made so: the form must stay."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]
