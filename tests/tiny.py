"""The tiny model of the tests (3 million parameters), its adapter, its task, its gold and a corpus: see data/tiny."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ner_batch.data import Example
from ner_batch.io.examples import read_examples

FILES = Path(__file__).parent / "data" / "tiny"
BASE, ADAPTER, TASK = FILES / "base", FILES / "adapter", FILES / "task.yaml"
CORPUS, ANSWERS = FILES / "corpus", FILES / "corpus-gold.parquet"


@cache
def gold(split: str) -> list[Example]:
    """The gold of a split: train, dev or test."""
    return read_examples(str(FILES / "gold" / f"{split}.parquet"))
