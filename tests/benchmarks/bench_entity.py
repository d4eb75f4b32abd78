"""What an entity index of 100,000 mentions costs beside its encoder: writing it, and a text. Run by hand.

`python tests/benchmarks/bench_entity.py [MENTIONS [DIMENSION [TEXTS]]]`. Token states are made up (5,000 random
directions, each token one of them plus noise of half its length, as surfaces recur in contexts), so encoding is not in
it; texts have 30 words, some 87 n-grams.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ner_batch.data import Entity, Example
from ner_batch.retrieval.encoder import TokenStates
from ner_batch.retrieval.entity import EntitySearch

WORDS, PER_TEXT, K = 30, 4, 9
TEXT = " ".join(["name"] * WORDS)
OFFSETS = np.array([[5 * i, 5 * i + 4] for i in range(WORDS)])


class States:
    """Stands where an encoder stands: what is timed is the rest."""

    def __init__(self, dimension: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.surfaces = np.random.default_rng(0).standard_normal((5000, dimension)).astype(np.float32)

    def tokens(self, texts: Sequence[str]) -> list[TokenStates]:
        """Thirty tokens for any text."""
        shape = (WORDS, self.surfaces.shape[1])
        noise = [self.random.standard_normal(shape, np.float32) / 2 for _ in texts]
        ids = [self.random.integers(0, len(self.surfaces), WORDS) for _ in texts]
        return [TokenStates(OFFSETS, self.surfaces[i] + n) for i, n in zip(ids, noise, strict=True)]


def bench(folder: Path, examples: list[Example], dimension: int, texts: int, exact_search_limit: int) -> None:
    """Write, open, search."""
    folder.mkdir()
    wall, cpu = time.perf_counter(), time.process_time()
    made: Any = States(dimension, 1)
    stored = EntitySearch.write(folder, examples, made, exact_search_limit)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"  {stored.lists or 'exact'}: {size:.0f} MB, built in {time.process_time() - cpu:.1f} CPU-s", end="")
    print(f" ({time.perf_counter() - wall:.1f} s)", flush=True)
    asking: Any = States(dimension, 2)
    search = EntitySearch(folder, examples, stored, 0, asking).search
    wall, cpu = time.perf_counter(), time.process_time()
    search([f"{TEXT} {n}" for n in range(texts)], K)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"  {texts} texts: {1000 * cpu / texts:.1f} CPU-ms a text ({1000 * wall / texts:.1f} ms)", flush=True)


def main() -> None:
    """Exact and in lists."""
    given = [int(argument) for argument in sys.argv[1:]]
    mentions, dimension, texts = [*given, *(100_000, 768, 128)[len(given) :]]
    entities = tuple(Entity(5 * i, 5 * i + 4, "ABCD"[i % 4], "name") for i in range(0, 4 * PER_TEXT, 4))
    examples = [Example(str(n), f"{TEXT} {n}!", entities) for n in range(mentions // PER_TEXT)]
    print(f"{mentions:,} mentions, {dimension} dimensions")
    with tempfile.TemporaryDirectory() as folder:
        for name, limit in (("exact", mentions), ("lists", 0)):
            bench(Path(folder) / name, examples, dimension, texts, limit)


if __name__ == "__main__":
    main()
