"""The Ray session a job runs in, and which paths mean the same on all of its nodes."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.metadata import distributions
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from ner_batch.errors import JobError, UserError, first_line

CONNECT_SECONDS = 10.0
ROOM_SECONDS = 900.0
"""How long a cluster has to bring a node that is large enough."""
NameOrPath = TypeVar("NameOrPath", str, "str | None")


@contextmanager
def session(configured_address: str | None) -> Iterator[bool]:
    """A Ray cluster to work on: the session that there is, the one named, RAY_ADDRESS, or a local one for the job.

    Gives whether it is this machine alone, to which no node will ever be added.
    """
    import ray  # jobs that need no Ray look here for paths alone

    if ray.is_initialized():
        yield False
        return
    address = _address(configured_address)
    local = {"include_dashboard": False} if address == "local" else {}
    _check_reachable(address)
    verbose = bool(os.environ.get("NER_BATCH_VERBOSE"))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a job of ours calls nobody
    # A replica that is killed leaves its engine's process behind, which holds the GPU: the next one could not start.
    # With this the node ends the whole process group (seen to work in 2.60).
    os.environ.setdefault("RAY_process_group_cleanup_enabled", "1")
    # After one idle second Ray would end the processes that read and write where a machine has few cores, and start
    # them again for the next unit: 1.5 CPU-s each, a tenth of the work of two replicas on two cores.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
    if not verbose:  # Ray's core warns on stderr about every actor that may be restarted
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    at_sigterm = signal.getsignal(signal.SIGTERM)
    with nullcontext() if verbose else _silent_stderr():
        try:
            ray.init(address=address, **local, log_to_driver=verbose, logging_level=logging.ERROR)
        except Exception as error:  # a plain one where its processes are not up in 30 s, as on a machine that is busy
            if local:
                raise JobError(f"Ray did not start on this machine: {first_line(error)}") from error
            if not isinstance(error, (ConnectionError, RuntimeError, ValueError)):
                raise  # those: nobody there, another version, no address
            raise UserError(
                f"Ray address {address}: {first_line(error)}: give the address of a running cluster"
            ) from error
    if callable(at_sigterm) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, at_sigterm)  # Ray sets its own, which ends the process at once
    try:
        yield address == "local"
    finally:
        ray.shutdown()


def is_named(configured_address: str | None) -> bool:
    """Whether :func:`session` would join a cluster that runs already, not start one of this machine alone."""
    import ray

    return ray.is_initialized() or _address(configured_address) != "local"


def _address(configured_address: str | None) -> str:
    return configured_address or os.environ.get("RAY_ADDRESS") or "local"


def _check_reachable(address: str) -> None:
    """Raises UserError where nothing answers at ``host:port``: Ray would wait for minutes, without a word."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(f"Ray address {address}: {error}: give the address of a running cluster") from None


def wait_for_room(who: str, count: int, needed: Mapping[str, float], console: Console, *, alone: bool) -> int:
    """Wait until the cluster's nodes are large enough for ``count`` times ``needed`` (Ray's names: CPU, GPU).

    Returns for how many there is room.

    Ray itself waits for ever, without a word. A cluster that scales is asked for nodes, and has a quarter of an hour.

    Args:
        who: what is to run there, with the settings that say what it needs, for messages.
        count: how many must run at once.
        needed: what each reserves, on one node.
        console: told once what is waited for.
        alone: whether no node can be added.

    Raises:
        UserError: the nodes are not large enough.
    """
    from ray.autoscaler.sdk import request_resources

    needed = {name: amount for name, amount in needed.items() if amount}
    if not needed:
        return count
    need = _need(who, needed)
    end = time.monotonic() + (0 if alone else ROOM_SECONDS)
    requested = False
    try:
        while True:
            room, have = _room(needed)
            if room >= count:
                return room
            if time.monotonic() >= end:
                raise UserError(f"{need}: there is room for {room} of {count} (nodes have {have}): lower what it needs")
            if not requested:
                console.print(
                    f"{need}: waiting for room, there is some for {room} of {count} ({have})", highlight=False
                )
                request_resources(bundles=[needed] * count)
                requested = True
            time.sleep(1)
    finally:
        if requested:
            request_resources(bundles=[])  # the work itself holds the nodes from here on, or nobody wants them


def cpus_each(count: int, configured_address: str | None) -> float:
    """The most CPUs, a whole number, that each of ``count`` processes can have in a session of this job alone.

    1 in a cluster that is named (by the job's address or RAY_ADDRESS), for others may use it too. Needs a session.
    """
    import ray

    if _address(configured_address) != "local":
        return 1.0
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    most = max(nodes, default=1)
    return float(next((cpus for cpus in range(most, 1, -1) if sum(node // cpus for node in nodes) >= count), 1))


def cpus_beside(gpus: float) -> float:
    """CPUs, a whole number and 1 at least, that go with GPUs where a node's, all but one, are shared out by its GPUs.

    Of the node that has the fewest; 1 where no node has a GPU yet. One is left to whatever else wants a CPU there.
    Needs a session.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    shares = [(node.get("CPU", 0) - 1) / node["GPU"] for node in nodes if node.get("GPU")]
    return float(max(1, int(min(shares, default=0) * gpus)))


def has_gpus(configured_address: str | None) -> bool:
    """Whether the session's cluster has GPUs, or is to have some.

    In one that is named (by the job's address or RAY_ADDRESS) none may be up yet. Where vLLM's build for CUDA is
    installed, which computes nowhere else, GPUs are asked for all the same, so that nothing runs on CPUs unawares.
    """
    import ray

    if ray.cluster_resources().get("GPU"):
        return True
    return _address(configured_address) != "local" and any(distributions(name="vllm"))


def about_room(who: str, count: int, needed: Mapping[str, float]) -> str | None:
    """One line where the nodes that there are have no room for ``count`` times ``needed``; None where they have."""
    needed = {name: amount for name, amount in needed.items() if amount}
    room, have = _room(needed) if needed else (count, "")
    return None if room >= count else f"{_need(who, needed)}: there is room for {room} of {count} (nodes have {have})"


def _need(who: str, needed: Mapping[str, float]) -> str:
    return f"{who} needs {', '.join(f'{amount:g} {name}' for name, amount in needed.items())}"


def _room(needed: Mapping[str, float]) -> tuple[int, str]:
    """For how many the nodes are large enough, and what each node has of what is needed."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(min(int(node.get(name, 0) / amount) for name, amount in needed.items()) for node in nodes)
    return room, "; ".join(", ".join(f"{node.get(name, 0):g} {name}" for name in needed) for node in nodes)


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
