"""Processes that do not run the user's script: vLLM's, which start in programs without `if __name__ == "__main__"`."""

from __future__ import annotations

import multiprocessing.spawn
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
