"""The Ray session a job runs in, and which paths mean the same on all of its nodes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from ner_batch.errors import UserError

NameOrPath = TypeVar("NameOrPath", str, "str | None")


@contextmanager
def session(wanted: str | None) -> Iterator[None]:
    """A Ray cluster to work on: the session that there is, the one named, RAY_ADDRESS, or a local one for the job."""
    import ray  # jobs that need no Ray look here for paths alone

    if ray.is_initialized():
        yield
        return
    address = wanted or os.environ.get("RAY_ADDRESS") or "local"
    local = {"include_dashboard": False} if address == "local" else {}
    verbose = bool(os.environ.get("NER_BATCH_VERBOSE"))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a job of ours calls nobody
    # A replica that is killed leaves its engine's process behind, which holds the GPU: the next one could not start.
    # With this the node ends the whole process group (seen to work in 2.60).
    os.environ.setdefault("RAY_process_group_cleanup_enabled", "1")
    if not verbose:  # Ray's core warns on stderr about every actor that may be restarted
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with nullcontext() if verbose else _silent_stderr():
        ray.init(address=address, **local, log_to_driver=verbose, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Ray's core announces the log level on the process' own stderr, which no Python setting reaches."""
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def in_submitted_job() -> bool:
    """Whether `ray job submit` started this process, in a copy of the working directory that every node has too."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def on_every_node(path: NameOrPath) -> NameOrPath:
    """A path made absolute if it is there; as it stands if it is a hub name, or in a submitted job."""
    if path is None or in_submitted_job() or not Path(path).expanduser().exists():
        return path
    return str(Path(path).expanduser().resolve())


def check_lasting(field: str, path: str) -> None:
    """Raises UserError for an output that would be lost: a relative path in a submitted job."""
    if in_submitted_job() and "://" not in path and not Path(path).is_absolute():
        raise UserError(f"{field}: {path} would land in the job's copy of the working directory: give /abs or s3://")


def root_cause(error: BaseException) -> BaseException:
    """The exception that Ray's wrappers carry; the innermost of Ray's own where a process or a node is gone."""
    seen = {id(error)}
    while (
        isinstance(inner := getattr(error, "cause", None) or error.__cause__, BaseException) and id(inner) not in seen
    ):
        seen.add(id(inner))
        error = inner
    return error


def last_line(error: BaseException) -> str:
    """The last line of what an exception says: Ray puts pages of traceback before it."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), repr(error))
