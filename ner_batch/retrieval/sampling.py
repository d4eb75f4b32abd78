"""Kind random, the papers' baseline: demonstrations drawn by text and seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence


class RandomSearch:
    """A draw out of ``size`` that depends on seed and text alone, so that a resumed run asks the same prompts."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    def search(self, texts: Sequence[str], count: int) -> list[list[int]]:
        """For each text the numbers of ``count`` examples."""
        digests = [hashlib.sha256(f"{self.seed}\0{text}".encode()).digest() for text in texts]
        return [random.Random(digest).sample(range(self.size), count) for digest in digests]  # noqa: S311 - repeatable
