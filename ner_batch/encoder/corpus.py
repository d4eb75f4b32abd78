"""Distinct sentences out of a corpus of any size, in bounded memory.

Of all sentences those with the smallest hashes are kept (a bottom-k sample, Cohen and Kaplan, 2007): each once, however
often it occurs and in whatever order, for a copy in a batch would be a negative of itself.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence

from ner_batch.data import clean
from ner_batch.encoder.settings import TextConfig
from ner_batch.errors import UserError
from ner_batch.io import storage
from ner_batch.io.listing import read_unit
from ner_batch.io.shards import Listing, plan_units, texts_of
from ner_batch.text import windows
from ner_batch.text.windows import Count

_UNIT_ROWS, _UNIT_BYTES = 20_000, 8_000_000


class Sample:
    """Up to ``size`` distinct sentences, uniform over all that were added; holds twice as many at most."""

    def __init__(self, size: int, seed: int) -> None:
        self.seen = 0
        self._size, self._key = size, str(seed).encode()
        self._sentences: dict[int, str] = {}
        self._limit = 1 << 64  # hashes from here on are of no use any more

    def __len__(self) -> int:
        """Sentences held at this moment."""
        return len(self._sentences)

    def add(self, sentence: str) -> None:
        """One more sentence. White space makes no difference, and one without letter or digit is passed over."""
        words = " ".join(sentence.split())
        if not any(character.isalnum() for character in words):
            return
        self.seen += 1
        digest = hashlib.blake2b(words.encode(), digest_size=8, key=self._key).digest()
        number = int.from_bytes(digest, "big")
        if number < self._limit:
            self._sentences.setdefault(number, words)
            if len(self._sentences) >= 2 * self._size:
                self._prune()

    def sentences(self) -> list[str]:
        """The sample, in an order that is random too."""
        self._prune()
        return [self._sentences[number] for number in sorted(self._sentences)]

    def _prune(self) -> None:
        for number in sorted(self._sentences)[self._size :]:
            self._limit = min(self._limit, number)
            del self._sentences[number]


def draw(listing: Listing, config: TextConfig, seed: int, progress: Callable[[str], None]) -> tuple[Sample, list[str]]:
    """Sentences of the corpus, or of a random part of about ``config.bytes``; and what is corrupt, one line each."""
    sample = Sample(config.sentences, seed)
    unreadable = [f"{corrupt.name}: {corrupt.reason}" for corrupt in listing.corrupt]
    units = [unit for unit in plan_units(listing.shards, _UNIT_ROWS, _UNIT_BYTES) if unit.rows]
    total = sum(shard.text_bytes for shard in listing.shards)
    if total > config.bytes:
        rng = random.Random(seed)  # noqa: S311 - a draw to repeat, not a secret
        unit_numbers = rng.sample(range(len(units)), max(1, len(units) * config.bytes // total))
        units = [units[number] for number in sorted(unit_numbers)]
    for number, unit in enumerate(units):
        progress(f"reading text: part {number:,} of {len(units):,}")
        with storage.explained(unit.shard.uri):
            try:
                texts, errors = texts_of(read_unit(unit, [config.text_column]), config.text_column)
            except UserError as error:
                unreadable.append(str(error))
                continue
        if errors:
            row, reason = next(iter(errors.items()))
            unreadable.append(f"{unit.shard.uri}: {len(errors):,} rows, the first is row {unit.start + row} ({reason})")
        for text in filter(None, texts):
            for sentence in windows.sentences(clean(text)):
                sample.add(sentence)
    return sample, unreadable


def fitted(sentences: Sequence[str], max_tokens: int, count: Count) -> list[str]:
    """The sentences, those over ``max_tokens`` cut; distinct, and no more than there were."""
    pieces = (window.text.strip() for window in windows.split(sentences, max_tokens, count))
    return list(dict.fromkeys(pieces))[: len(sentences)]
