"""Demonstrations: gold examples like the text at hand, out of an index built beforehand.

Ye et al. (2024) and GPT-NER (Wang et al., 2025) put the training sentences nearest to the input into the prompt. An
index is a folder::

    examples.parquet   the gold examples, one per distinct text (schema ``data.EXAMPLES``)
    vectors.*          L2-normalised: one per example, for ``entity`` one per mention; none for ``random``
    mentions.npy       ``entity``: whose mentions they are
    manifest.json      kind, encoder, sizes, fingerprint: :class:`IndexManifest`

Kinds: ``random`` (the papers' baseline), ``lexical`` (character n-grams, no model to fetch), ``sentence`` (any
sentence-transformers encoder), ``entity`` (GPT-NER's: the gold mentions nearest to what stands in the text vote for
their sentences; any encoder with token states, no gold for the text: :mod:`ner_batch.retrieval.entity`). Vectors are
searched exactly up to 200,000 and by inverted lists above, with their recall in the manifest.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ner_batch.data import Example, clean, examples_table
from ner_batch.errors import UserError, first_line
from ner_batch.io import storage
from ner_batch.io.examples import read_examples
from ner_batch.retrieval import entity, searches, vectors
from ner_batch.retrieval.encoder import Encoder
from ner_batch.retrieval.manifest import (
    KINDS,
    MANIFEST,
    IndexManifest,
    check_kind,
    checked_encoder,
    content_digest,
    fingerprint,
    local_encoder,
    read_manifest,
)
from ner_batch.retrieval.searches import Search

__all__ = ["KINDS", "Index", "IndexManifest", "Settings", "build", "open_index", "read_examples"]

EXAMPLES_FILE = "examples.parquet"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a build leaves alone unless told."""

    seed: int = 0
    """random, and what entity fills up with: another seed draws other demonstrations."""
    flat_up_to: int = vectors.FLAT_UP_TO
    """Vectors that are searched exactly; more are listed, see :mod:`ner_batch.retrieval.vectors`."""


@dataclass(frozen=True, slots=True)
class Index:
    """An open index. Safe to search from several threads."""

    kind: str
    fingerprint: str
    encoder: str | None
    examples: tuple[Example, ...] = field(repr=False)
    search: Search = field(repr=False)

    def nearest(self, texts: Sequence[str], k: int) -> list[list[Example]]:
        """Up to ``k`` demonstrations per text, the nearest LAST.

        Last, because models lean on what stands next to the input (the recency bias of Zhao et al. 2021, "Calibrate
        before use"), and because a prompt that is too long drops demonstrations from the front. No demonstration is
        the text itself or differs from it in outer white space only, so training prompts are leave-one-out without
        ids; and no two of them are of one text. Ties go to the earlier example.
        """
        if k == 0 or not texts:
            return [[] for _ in texts]
        cleaned = [clean(text) for text in texts]
        # One more than asked: examples are of distinct texts, so at most one of them is the text itself.
        found = self.search(cleaned, min(k + 1, len(self.examples)))
        return [self._demonstrations(text, numbers, k) for text, numbers in zip(cleaned, found, strict=True)]

    def _demonstrations(self, text: str, numbers: Iterable[int], k: int) -> list[Example]:
        near = [self.examples[number] for number in numbers]
        return [example for example in near if example.text.strip() != text.strip()][:k][::-1]


def build(
    examples: str | Path | Sequence[Example],
    kind: str,
    out: str | Path,
    encoder: str | None = None,
    settings: Settings = Settings(),
) -> IndexManifest:
    """Build an index at the local folder ``out``, replacing an index that is there; whole or not at all.

    The same arguments give the same bytes. ``examples`` is a Parquet file, a folder of them, or Examples.

    Raises:
        UserError: one line: unknown kind, bad examples, an encoder that cannot be loaded, or an ``out`` that is taken.
    """
    check_kind(kind, encoder)
    name = str(examples) if isinstance(examples, str | Path) else "examples"
    with _replacing(out) as folder:
        kept = _distinct(read_examples(name) if isinstance(examples, str | Path) else examples)
        if not kept:
            raise UserError(f"{name}: no example with text")
        if kind == "entity" and not any(example.entities for example in kept):
            raise UserError(f"{name}: no example has an entity, so kind entity finds nothing: choose another kind")
        storage.write_table(str(folder / EXAMPLES_FILE), examples_table(kept), {})
        made = _write_vectors(folder, kind, kept, (encoder, settings.flat_up_to))
        draft = IndexManifest(kind=kind, examples=len(kept), seed=settings.seed, fingerprint="", **made)
        manifest = draft.model_copy(update={"fingerprint": fingerprint(kept, draft)})
        storage.write_json(str(folder / MANIFEST), manifest.model_dump())
    return manifest


def _write_vectors(
    folder: Path, kind: str, examples: Sequence[Example], with_encoder: tuple[str | None, int]
) -> dict[str, Any]:
    """Write the vectors of a kind; returns the fields of the manifest that tell of them."""
    encoder, flat_up_to = with_encoder
    texts = [example.text for example in examples]
    if encoder is None:
        dimension = searches.write_lexical(folder, texts) if kind == "lexical" else 0
        return {"dimension": dimension, "encoder": None, "revision": None}
    local = local_encoder(encoder)
    model = Encoder(local or encoder)
    if kind == "sentence":
        dimension, lists = searches.write_sentence(folder, texts, model, flat_up_to)
        made = {"dimension": dimension, "lists": lists}
    else:
        dimension, mentions, lists = entity.write_entity(folder, examples, model, flat_up_to)
        made = {"dimension": dimension, "mentions": mentions, "lists": lists}
    return {**made, "encoder": local or encoder, "revision": content_digest(local) if local else model.commit()}


def open_index(path: str | Path, encoder: str | None = None, device: str | None = None) -> Index:
    """Open an index; its encoder is loaded at the first search, not here.

    ``path`` is local or ``s3://`` (copied to the local disk, gone when the process ends). ``encoder`` says where the
    encoder lies today; it must be the one the index was built with; ``device`` is torch's name of where it runs (None:
    a GPU where there is one). Vectors are memory-mapped, so replicas on one
    machine share them.

    Raises:
        UserError: one line: no such index, a broken one, or one built with another encoder.
    """
    uri = str(path)
    if not storage.exists(storage.join(uri, MANIFEST)):
        raise UserError(f"{uri}: no such index: build one with `ner-batch index`")
    local = storage.local_path(uri)
    if local is not None:
        return _open(Path(local), uri, (encoder, device))
    with tempfile.TemporaryDirectory() as copy:  # a mapped file stays readable after it is deleted
        storage.copy_folder(uri, Path(copy))
        return _open(Path(copy), uri, (encoder, device))


def _open(folder: Path, uri: str, encoder: tuple[str | None, str | None]) -> Index:
    manifest = read_manifest(folder / MANIFEST, uri)
    model = checked_encoder(manifest, uri, *encoder)
    try:
        examples = _indexed_examples(folder, manifest)
        search = _open_search(folder, manifest, examples, model)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{uri}: broken index ({first_line(error)}): build it again with `ner-batch index`") from None
    return Index(manifest.kind, manifest.fingerprint, manifest.encoder, examples, search)


def _indexed_examples(folder: Path, manifest: IndexManifest) -> tuple[Example, ...]:
    examples = tuple(read_examples(str(folder / EXAMPLES_FILE)))
    if fingerprint(examples, manifest) != manifest.fingerprint:
        raise UserError("the examples or the manifest were changed after it was built")
    return examples


def _open_search(folder: Path, manifest: IndexManifest, examples: Sequence[Example], encoder: Encoder) -> Search:
    if manifest.kind == "random":
        return searches.random_search(manifest.examples, manifest.seed)
    if manifest.kind == "lexical":
        return searches.lexical_search(folder, manifest.examples)
    if manifest.kind == "sentence":
        nearest = vectors.open_nearest(folder, (manifest.examples, manifest.dimension), manifest.lists)
        return searches.sentence_search(nearest, manifest.examples, encoder)
    mentions = entity.read_mentions(folder, (manifest.mentions or 0, manifest.dimension), manifest.lists)
    return entity.entity_search(mentions, examples, manifest.seed, encoder)


def _distinct(examples: Iterable[Example]) -> list[Example]:
    """The first example of each text that is not blank; outer white space makes no difference.

    Its entities are in order, as they will be when the index is read again: the fingerprint is of their order too.
    """
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.text.strip(), example)
    first.pop("", None)
    return [replace(example, entities=tuple(sorted(example.entities))) for example in first.values()]


@contextmanager
def _replacing(out: str | Path) -> Iterator[Path]:
    """An empty folder that takes the place of ``out`` if the block ends well, and leaves no trace if it does not."""
    local = storage.local_path(str(out))
    if local is None:
        raise UserError(f"{out}: an index is built on a local disk; copy the folder there afterwards")
    target = Path(local)
    if target.exists() and not (target / MANIFEST).is_file() and (target.is_file() or any(target.iterdir())):
        raise UserError(f"{out}: exists and is not an index: name another place")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        yield new
        if target.exists():
            target.rename(Path(temporary) / "old")
        new.rename(target)
