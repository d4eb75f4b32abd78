"""What an index of 50,000 examples costs: building it, opening it, and a query. Run by hand.

`python tests/benchmarks/bench_retrieval.py [EXAMPLES [DIMENSION]]`. Gold sets in NER_BATCH_DATA (else ../shared/data),
if there are any, give the texts; otherwise they are generated. Sentence vectors are random: searching them costs the same.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ner_batch import retrieval
from ner_batch.data import Example
from ner_batch.io.examples import read_examples
from ner_batch.retrieval.vectors import SentenceSearch, StoredVectors

QUERIES, K = 1000, 8
DATA = Path(os.environ.get("NER_BATCH_DATA", Path(__file__).parents[3] / "shared" / "data"))


def texts(count: int) -> tuple[str, list[str]]:
    """Distinct real sentences, Chinese and English, as far as there are; then generated ones."""
    files = [DATA / name / "train.parquet" for name in ("gum_named", "msra", "cluener", "wnut17", "ncbi_disease")]
    found = {x.text.strip() for file in files if file.exists() for x in read_examples(str(file))}
    rng = random.Random(0)
    real = sorted(found)
    rng.shuffle(real)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    made = [" ".join(rng.choices(words, k=15)) for _ in range(max(count - len(real), 0))]
    return f"{min(count, len(real)):,} real, {len(made):,} generated", [*real, *made][:count]


def timed(name: str, call: Callable[[], Any], per: int = 0) -> Any:
    """Run, print wall and CPU time in seconds (or in milliseconds per query), hand on the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    unit, scale = ("ms/query", 1000 / per) if per else ("s", 1)
    print(f"  {name:<44}{wall * scale:8.2f} {unit}, {cpu * scale:.2f} of CPU", flush=True)
    return result


class Vectors:
    """Stands where an encoder stands, with vectors made beforehand: what is timed is the search."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = vectors

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As many vectors as texts."""
        return self.vectors[: len(texts)]


def unit_vectors(rows: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """Random directions, shape (rows, dimension)."""
    drawn = np.random.default_rng(seed).standard_normal((rows, dimension), np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def bench_lexical(folder: Path, examples: list[Example], queries: list[str]) -> None:
    """Build, open, search in batches of 256 and one by one."""
    timed("lexical build", lambda: retrieval.build(examples, "lexical", folder))
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    index = timed(f"lexical open ({size:.0f} MB)", lambda: retrieval.open_index(folder))
    batches = [queries[i : i + 256] for i in range(0, len(queries), 256)]
    timed(f"lexical k={K}, batches of 256", lambda: [index.nearest(batch, K) for batch in batches], len(queries))
    timed(f"lexical k={K}, one by one", lambda: [index.nearest([query], K) for query in queries[:100]], 100)


def bench_sentence(folder: Path, count: int, dimension: int) -> None:
    """Search of a flat memory-mapped matrix, in batches of 256 and one by one; encoding is not in it."""
    folder.mkdir()
    np.save(folder / "vectors.npy", unit_vectors(count, dimension, 0))
    encoder: Any = Vectors(unit_vectors(256, dimension, 1))
    search = timed(
        f"sentence open ({count * dimension * 4 / 1e6:.0f} MB)",
        lambda: SentenceSearch(folder, count, StoredVectors(dimension), encoder).search,
    )
    batch = ["query"] * 250
    search(batch, K + 1)  # the pages of the file come in once
    timed(f"sentence k={K}, d={dimension}, batches of 250", lambda: [search(batch, K + 1) for _ in range(4)], QUERIES)
    timed(f"sentence k={K}, d={dimension}, one by one", lambda: [search(["query"], K + 1) for _ in range(100)], 100)


def main() -> None:
    """Print the table."""
    given = [int(argument) for argument in sys.argv[1:]]
    count, dimension = [*given, *(50_000, 768)[len(given) :]]
    origin, drawn = texts(count + QUERIES)
    examples = [Example(str(number), text, ()) for number, text in enumerate(drawn[:count])]
    print(
        f"{count:,} examples, {QUERIES:,} queries ({origin}, {sum(map(len, drawn)) / len(drawn):.0f} characters on average)"
    )
    with tempfile.TemporaryDirectory() as folder:
        bench_lexical(Path(folder) / "lexical", examples, drawn[count:])
        bench_sentence(Path(folder) / "sentence", count, dimension)


if __name__ == "__main__":
    main()
