"""Kind random, the papers' baseline: demonstrations drawn by text and seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence


class RandomSearch:
    """A draw that depends on seed and text alone, so that a run that was resumed asks the same prompts.

    Args:
        size: examples to draw from.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed

    def search(self, texts: Sequence[str], count: int) -> list[list[int]]:
        """For each text the numbers of ``count`` examples."""
        return [self._draw(text, count) for text in texts]

    def _draw(self, text: str, count: int) -> list[int]:
        digest = hashlib.sha256(f"{self.seed}\0{text}".encode()).digest()
        return random.Random(digest).sample(range(self.size), count)  # noqa: S311 - a draw to repeat, not a secret
