"""The synthetic gold set: sentences in English and Chinese whose every name is made up, with exact spans.

Test surfaces never occur in the training split and half of the test sentences follow patterns that never occur
there, so a model that learnt names or patterns by heart scores badly on it. Everything follows from
``Gold.seed``; no file is read.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ner_batch.data import Entity, Example
from ner_batch.demo import hostile, lexicon, patterns
from ner_batch.io.examples import examples_table

LANGUAGES = ("en", "zh")
_SLOT = re.compile(r"\{([A-Za-z])(\d?)\}")
_FULL_WIDTH = str.maketrans(",;!", "\uff0c\uff1b\uff01")


@dataclass(frozen=True, slots=True)
class Gold:
    """How much is generated: ``paragraphs`` (2 to ``longest`` sentences) and ``empty`` sentences are shares."""

    train: int = 4000
    dev: int = 300
    test: int = 600
    seed: int = 20270
    paragraphs: float = 0.08
    longest: int = 3
    empty: float = 0.1
    second: float = 0.12


@dataclass(frozen=True, slots=True)
class Raw:
    """The raw-text corpus: ``long`` documents of ``characters`` each, one of ``huge`` characters with few names.

    As it stands: 267 rows, some 1,200 windows of 64 tokens, half of them the huge row's.
    """

    sentences: int = 240
    long: int = 6
    characters: int = 4000
    huge: int = 200_000
    second: float = 0.12
    seed: int = 20271


DEFAULT = Gold()
RAW = Raw()


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes texts of one language and split, without the names ``taken``; a share ``second`` has a second clause."""

    rng: random.Random
    language: str
    split: str
    taken: frozenset[str] = field(default_factory=frozenset)
    second: float = 0.3

    def name(self, kind: str) -> str:
        """A new surface of a type that is not taken."""
        while True:
            surface = lexicon.surface(self.rng, self.language, kind, self.split != "train")
            if surface not in self.taken:
                return surface

    def filler(self, letter: str) -> str:
        """An adjunct (a), common noun (c) or number (n); none of them is an entity."""
        return self.rng.choice(patterns.FILLERS[self.language][letter])

    def sentence(self, empty: float) -> Piece:
        """One or two clauses and an end mark; with probability ``empty`` a sentence without entities."""
        clauses = [self._clause(empty)]
        if self.rng.random() < self.second:
            clauses.append(self._clause(0.2))
        joined = join(clauses, self._mark(patterns.JOINS))
        text = joined.text[0].upper() + joined.text[1:] if self.language == "en" else joined.text
        return Piece(text + self._mark(patterns.ENDS), joined.spans)

    def _clause(self, empty: float) -> Piece:
        none = self.rng.random() < empty
        own = self.split in patterns.HELD and self.rng.random() < 0.5
        pool = patterns.EMPTY if none else patterns.HELD[self.split] if own else patterns.TRAIN
        pattern = self.rng.choice(pool[self.language])
        return fill(pattern.translate(_FULL_WIDTH) if self.language == "zh" else pattern, self.name, self.filler)

    def _mark(self, marks: dict[str, tuple[str, ...]]) -> str:
        mark = self.rng.choice(marks[self.language])
        return mark.translate(_FULL_WIDTH) if self.language == "zh" else mark


@dataclass(frozen=True, slots=True)
class Piece:
    """A text and its typed spans (start, end, type)."""

    text: str
    spans: tuple[tuple[int, int, str], ...]

    def example(self, name: str) -> Example:
        """The same as a gold example."""
        return Example(name, self.text, tuple(Entity(s, e, kind, self.text[s:e]) for s, e, kind in sorted(self.spans)))


def fill(pattern: str, name: Callable[[str], str], filler: Callable[[str], str]) -> Piece:
    """Fill a pattern. Upper-case slots are entities, by :data:`patterns.SLOT_TYPES`; lower-case ones are not."""
    known: dict[str, str] = {}
    text, spans, last = "", [], 0
    for slot in _SLOT.finditer(pattern):
        text += pattern[last : slot.start()]
        last = slot.end()
        letter = slot[1]
        if letter.islower():
            text += filler(letter)
            continue
        kind = patterns.SLOT_TYPES[letter]
        surface = known.setdefault(slot[0], name(kind)) if slot[2] else name(kind)
        spans.append((len(text), len(text) + len(surface), kind))
        text += surface
    return Piece(text + pattern[last:], tuple(spans))


def join(pieces: Sequence[Piece], between: str) -> Piece:
    """Pieces one after another with ``between`` in the gaps; spans move along."""
    text, spans = "", []
    for index, piece in enumerate(pieces):
        text += between if index else ""
        spans += [(s + len(text), e + len(text), kind) for s, e, kind in piece.spans]
        text += piece.text
    return Piece(text, tuple(spans))


def paragraph(writer: Writer, sentences: int, empty: float = 0.1) -> Piece:
    """Some sentences as running text: joined by a space in English, by nothing in Chinese."""
    return join([writer.sentence(empty) for _ in range(sentences)], " " if writer.language == "en" else "")


def surfaces(examples: Iterable[Example]) -> frozenset[str]:
    """Every surface form that is an entity somewhere."""
    return frozenset(entity.text for example in examples for entity in example.entities)


def gold(config: Gold = DEFAULT) -> dict[str, list[Example]]:
    """The splits train, dev and test. English and Chinese alternate; ids read ``train-en-000012``."""
    train = _split("train", config.train, config, frozenset())
    taken = surfaces(train)
    dev = _split("dev", config.dev, config, taken)
    return {"train": train, "dev": dev, "test": _split("test", config.test, config, taken | surfaces(dev))}


def _split(name: str, count: int, config: Gold, taken: frozenset[str]) -> list[Example]:
    rng = random.Random(f"{config.seed}-{name}")
    writers = [Writer(rng, language, name, taken, config.second) for language in LANGUAGES]
    examples = []
    for index in range(count):
        writer = writers[index % len(writers)]
        sentences = rng.randint(2, config.longest) if rng.random() < config.paragraphs else 1
        examples.append(paragraph(writer, sentences, config.empty).example(f"{name}-{writer.language}-{index:06d}"))
    return examples


def write_gold(out_dir: str | Path, config: Gold = DEFAULT) -> dict[str, Path]:
    """Write train.parquet, dev.parquet and test.parquet (schema ``data.EXAMPLES``); returns their paths by split."""
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for split, examples in gold(config).items():
        paths[split] = folder / f"{split}.parquet"
        pq.write_table(examples_table(examples), paths[split])
    return paths


TEXTS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("text", pa.string()),
        ("meta", pa.struct([("source", pa.string()), ("tags", pa.list_(pa.string()))])),
    ]
)


def write_corpus(out_dir: str | Path, config: Raw = RAW, gold_config: Gold = DEFAULT) -> Path:
    """Write the shards ``part-*.parquet`` (schema :data:`TEXTS`) into ``out_dir`` and their gold beside the folder.

    Four shards: long documents, one without rows, short gold sentences, hostile rows. Returns the path of the gold,
    ``<out_dir>-gold.parquet`` (schema ``data.EXAMPLES``, id = doc_id), which covers the first and the third.
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    splits = gold(gold_config)
    short = splits["test"][: config.sentences]
    long = _long_documents(config, surfaces(splits["train"]))
    odd = [_row(f"hostile-{name}", text, "hostile") for name, text in hostile.ROWS]
    # The huge row comes first: it keeps one replica busy while the other reads everything else.
    shards = [[_row(x.id, x.text, "long") for x in long], [], [_row(x.id, x.text, "sentence") for x in short], odd]
    for number, rows in enumerate(shards):
        pq.write_table(pa.Table.from_pylist(rows, schema=TEXTS), folder / f"part-{number:05d}.parquet")
    answers = folder.with_name(f"{folder.name}-gold.parquet")
    pq.write_table(examples_table([*short, *long]), answers)
    return answers


def _row(doc_id: str, text: str | None, source: str) -> dict[str, object]:
    tags = [source, "zh" if text and any("\u4e00" <= c <= "\u9fff" for c in text) else "en"] if text else []
    return {"doc_id": doc_id, "text": text, "meta": {"source": source, "tags": tags}}


def _long_documents(config: Raw, taken: frozenset[str]) -> list[Example]:
    """Long documents of test-side sentences, by turns English and Chinese, the huge one first."""
    rng = random.Random(config.seed)
    writers = [Writer(rng, language, "test", taken, config.second) for language in LANGUAGES]
    sizes = [("huge", config.huge, 0.95)] + [(f"long-{n:02d}", config.characters, 0.1) for n in range(config.long)]
    return [_document(writers[n % 2], size, empty).example(name) for n, (name, size, empty) in enumerate(sizes)]


def _document(writer: Writer, size: int, empty: float) -> Piece:
    """Paragraphs with a blank line between them, until ``size`` characters are reached."""
    pieces: list[Piece] = []
    length = 0
    while length < size:
        pieces.append(paragraph(writer, writer.rng.randint(3, 7), empty))
        length += len(pieces[-1].text) + 2
    return join(pieces, "\n\n")
