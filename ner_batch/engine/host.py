"""What vLLM takes for granted of the program that it starts in, and scripts and notebooks do not have."""

from __future__ import annotations

import multiprocessing.spawn
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def without_main() -> Iterator[None]:
    """Processes that this thread spawns meanwhile do not import the file of ``__main__``.

    Else a script that starts an engine at its top level would start another one there, and end in multiprocessing's
    "bootstrapping phase". What these processes run must not be defined in that file; of vLLM's nothing is.
    """
    thread, original = threading.get_ident(), multiprocessing.spawn.get_preparation_data

    def preparation_data(name: str) -> dict[str, Any]:
        data: dict[str, Any] = original(name)
        if threading.get_ident() == thread:
            data.pop("init_main_from_name", None)
            data.pop("init_main_from_path", None)
        return data

    multiprocessing.spawn.get_preparation_data = preparation_data
    try:
        yield
    finally:
        thread = 0  # nobody's: where another thread has put its own function above this one, this one stays below it
        if multiprocessing.spawn.get_preparation_data is preparation_data:
            multiprocessing.spawn.get_preparation_data = original


@contextmanager
def stdout_descriptor() -> Iterator[None]:
    """``sys.stdout`` has a file descriptor meanwhile: the process's own, where a notebook or a test has put its stream.

    vLLM asks for it when it starts, to silence C libraries, and would end with `UnsupportedOperation: fileno`.
    """
    stream = sys.stdout
    try:
        stream.fileno()
    except (AttributeError, OSError):
        standard_output = lambda: 1  # noqa: E731 - an attribute of the stream, which goes again
    else:
        yield
        return
    with suppress(AttributeError):  # it takes no attributes: vLLM says then what it lacks
        stream.fileno = standard_output  # type: ignore[method-assign]
    try:
        yield
    finally:
        with suppress(AttributeError):
            del stream.fileno
