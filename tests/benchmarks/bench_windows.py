"""How long it takes to cut a Parquet file of long texts into windows, tokenizer and own time apart.

    python tests/benchmarks/bench_windows.py TEXTS.parquet TOKENIZER.json [MAX_TOKENS]

``TEXTS.parquet`` has a column ``text``; ``TOKENIZER.json`` is a file of the tokenizers library, as models have.
"""

import resource
import sys
import time
from collections.abc import Sequence

import pyarrow.parquet as pq
from tokenizers import Tokenizer

from ner_batch.text.windows import split


class TimedCount:
    """Counts tokens and keeps the seconds, characters and calls it took."""

    def __init__(self, path: str) -> None:
        self.tokenizer = Tokenizer.from_file(path)
        self.seconds, self.characters, self.calls = 0.0, 0, 0

    def __call__(self, texts: Sequence[str]) -> list[int]:
        started = time.perf_counter()
        counts: list[int] = []
        for start in range(0, len(texts), 10_000):  # encodings are large: not all of a corpus at once
            batch = self.tokenizer.encode_batch_fast(list(texts[start : start + 10_000]), add_special_tokens=False)
            counts += [len(encoding) for encoding in batch]
        self.seconds += time.perf_counter() - started
        self.characters += sum(map(len, texts))
        self.calls += 1
        return counts


def main(texts_path: str, tokenizer_path: str, max_tokens: int = 512) -> None:
    """Print one line of figures."""
    texts = pq.read_table(texts_path, columns=["text"])["text"].to_pylist()
    characters = sum(map(len, texts))
    count = TimedCount(tokenizer_path)
    started, cpu = time.perf_counter(), time.process_time()
    windows = split(texts, max_tokens, count)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    own, counted, calls = seconds - count.seconds, count.characters, count.calls
    tokens = count([window.text for window in windows])
    print(
        f"{len(texts)} texts, {characters:,} characters, {len(windows):,} windows of at most {max(tokens)} tokens, "
        f"{sum(tokens) / len(tokens) / max_tokens:.0%} full; {seconds:.1f} s ({cpu:.1f} s CPU), own {own:.1f} s, "
        f"counted {counted / characters:.2f} times the text in {calls} calls, "
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
