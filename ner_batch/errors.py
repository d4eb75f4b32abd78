"""A user's faults, told apart from ours, and collected so that a person meets all of them at once."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "encoder": ("accelerate", "datasets", "sentence_transformers"),
    "evaluate": ("duckdb", "matplotlib"),
    "qlora": ("bitsandbytes",),
    "spacy": ("spacy",),
    "train": ("accelerate", "matplotlib", "peft", "safetensors", "tensorboardX"),
}
"""What the optional dependency groups of pyproject.toml bring, as it is imported; who only extracts needs none."""


class UserError(ValueError):
    """Something the user can mend: one line each for every problem, naming file, field or row and the remedy.

    The command line prints it without a traceback and exits 2. Any other exception is a bug of ours.
    """


class JobError(RuntimeError):
    """A job cannot go on; the message is one line for a person. What is finished stays finished. Exit code 1."""


class Problems:
    """Collects the :class:`UserError` of several checks; lines noted through this object begin with ``place``."""

    def __init__(self, lines: list[str] | None = None, place: str = "") -> None:
        self.lines = [] if lines is None else lines
        self.place = place

    def under(self, place: str) -> Problems:
        """The same collection with another place."""
        return Problems(self.lines, place)

    def check(self, step: Callable[[], T]) -> T | None:
        """The step's value, or None with its problems noted."""
        try:
            return step()
        except UserError as error:
            self.lines += [self.place + line for line in str(error).splitlines()]
            return None

    def stop_if_any(self) -> None:
        """Raise a UserError with every problem, one line each."""
        if self.lines:
            raise UserError("\n".join(dict.fromkeys(self.lines)))


def first_line(error: BaseException) -> str:
    """What an exception says, in one line; its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def require_extra(extra: str, *modules: str, purpose: str) -> None:
    """Raise a UserError where modules of an optional dependency group cannot be found; nothing is imported.

    ``extra`` is one of :data:`EXTRAS`; ``modules`` are those that are needed, by default all of it; ``purpose``, what
    they are needed for, begins the message.
    """
    missing = [module for module in modules or EXTRAS[extra] if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"{purpose} needs {', '.join(missing)}: pip install 'ner-batch[{extra}]'")
