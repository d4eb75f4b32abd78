"""Real gold sets and raw texts: slices that travel with the tests, and the whole sets where NER_BATCH_DATA names them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SLICES = Path(__file__).parent / "data"
NOT_SET = "NER_BATCH_DATA is not set"


def whole(name: str) -> Path:
    """A file of the folder that NER_BATCH_DATA names; skips where it is not set, fails where it is set and wrong."""
    folder = os.environ.get("NER_BATCH_DATA")
    if not folder:
        pytest.skip(f"{NOT_SET}: {name} is not at hand; a slice of it may be in tests/data")
    path = Path(folder) / name
    if not path.is_file():
        pytest.fail(f"NER_BATCH_DATA is {folder}, where {name} is not")
    return path


def real_file(name: str) -> Path:
    """``slice:SET/FILE`` out of tests/data, anything else out of the whole sets."""
    return SLICES / name.removeprefix("slice:") if name.startswith("slice:") else whole(name)
