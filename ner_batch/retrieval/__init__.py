"""Demonstrations: gold examples like the text at hand, out of an index built beforehand.

Ye et al. (2024) and GPT-NER (Wang et al., 2025) put the training sentences nearest to the input into the prompt. An
index is a folder::

    examples.parquet   the gold examples, one per distinct text (schema ``data.EXAMPLES``)
    vectors.*          one vector per example, L2-normalised, in the same order; none for ``random``
    manifest.json      kind, encoder, sizes, fingerprint: :class:`IndexManifest`

Kinds: ``random`` (the papers' baseline), ``lexical`` (character n-grams, no model to fetch), ``sentence`` (any
sentence-transformers encoder). ``entity``, the nearest mentions in context, comes later.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pyarrow import fs
from pydantic import BaseModel, ConfigDict, ValidationError

from ner_batch import storage
from ner_batch.config import explain
from ner_batch.data import Example, clean, examples_table
from ner_batch.retrieval import searches
from ner_batch.retrieval.gold import first_line, read_examples
from ner_batch.retrieval.searches import Encoder, Search

__all__ = ["KINDS", "Index", "IndexManifest", "build", "open_index", "read_examples"]

KINDS = ("random", "lexical", "sentence")
MANIFEST, EXAMPLES_FILE = "manifest.json", "examples.parquet"


class IndexManifest(BaseModel):
    """What an index is made of; the content of ``manifest.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    kind: str
    encoder: str | None
    """sentence: local folder (absolute) or hub name."""
    revision: str | None
    """Commit of a hub encoder, or ``sha256:`` digest of a local one."""
    dimension: int
    """Length of a vector; 0 for random."""
    examples: int
    """Distinct texts kept; blank and repeated ones are left out."""
    seed: int
    """random: another seed draws other demonstrations."""
    fingerprint: str
    """Digest of the examples and all of the above: same fingerprint, same demonstrations."""


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
    examples: str | Path | Sequence[Example], kind: str, out: str | Path, encoder: str | None = None, seed: int = 0
) -> IndexManifest:
    """Build an index at the local folder ``out``, replacing an index that is there; whole or not at all.

    The same arguments give the same bytes. ``examples`` is a Parquet file, a folder of them, or Examples.

    Raises:
        ValueError: one line: unknown kind, bad examples, an encoder that cannot be loaded, or an ``out`` that is taken.
    """
    _check_kind(kind, encoder)
    with _replacing(out) as folder:
        given = read_examples(str(examples)) if isinstance(examples, str | Path) else examples
        kept = _distinct(given)
        if not kept:
            raise ValueError(f"{examples if isinstance(examples, str | Path) else 'examples'}: no example with text")
        storage.write_table(str(folder / EXAMPLES_FILE), examples_table(kept), {})
        made = _write_vectors(folder, kind, [example.text for example in kept], encoder)
        draft = IndexManifest(kind=kind, examples=len(kept), seed=seed, fingerprint="", **made)
        manifest = draft.model_copy(update={"fingerprint": _fingerprint(kept, draft)})
        storage.write_json(str(folder / MANIFEST), manifest.model_dump())
    return manifest


def _write_vectors(folder: Path, kind: str, texts: Sequence[str], encoder: str | None) -> dict[str, Any]:
    """Write the vectors of a kind; returns the fields of the manifest that tell of them."""
    if encoder is None:
        dimension = searches.write_lexical(folder, texts) if kind == "lexical" else 0
        return {"dimension": dimension, "encoder": None, "revision": None}
    local = _local_encoder(encoder)
    model = Encoder(local or encoder)
    dimension = searches.write_sentence(folder, texts, model)
    return {
        "dimension": dimension,
        "encoder": local or encoder,
        "revision": _digest(local) if local else model.commit(),
    }


def open_index(path: str | Path, encoder: str | None = None, device: str | None = None) -> Index:
    """Open an index; its encoder is loaded at the first search, not here.

    ``path`` is local or ``s3://`` (copied to the local disk, gone when the process ends). ``encoder`` says where the
    encoder lies today; it must be the one the index was built with; ``device`` is torch's name of where it runs (None:
    a GPU where there is one). Vectors are memory-mapped, so replicas on one
    machine share them.

    Raises:
        ValueError: one line: no such index, a broken one, or one built with another encoder.
    """
    uri = str(path)
    if not storage.exists(storage.join(uri, MANIFEST)):
        raise ValueError(f"{uri}: no such index: build one with `ner-batch index`")
    filesystem, inner = storage.open_uri(uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        return _open(Path(inner), uri, (encoder, device))
    with tempfile.TemporaryDirectory() as copy:  # a mapped file stays readable after it is deleted
        fs.copy_files(inner, copy, source_filesystem=filesystem, destination_filesystem=fs.LocalFileSystem())
        return _open(Path(copy), uri, (encoder, device))


def _open(folder: Path, uri: str, encoder: tuple[str | None, str | None]) -> Index:
    manifest = _read_manifest(folder / MANIFEST, uri)
    model = _checked_encoder(manifest, uri, *encoder)
    try:
        examples = _indexed_examples(folder, manifest)
        search = _open_search(folder, manifest, model)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{uri}: broken index ({first_line(error)}): build it again with `ner-batch index`") from None
    return Index(manifest.kind, manifest.fingerprint, manifest.encoder, examples, search)


def _indexed_examples(folder: Path, manifest: IndexManifest) -> tuple[Example, ...]:
    examples = tuple(read_examples(str(folder / EXAMPLES_FILE)))
    if _fingerprint(examples, manifest) != manifest.fingerprint:
        raise ValueError("the examples or the manifest were changed after it was built")
    return examples


def _open_search(folder: Path, manifest: IndexManifest, encoder: Encoder) -> Search:
    if manifest.kind == "random":
        return searches.random_search(manifest.examples, manifest.seed)
    if manifest.kind == "lexical":
        return searches.lexical_search(folder, manifest.examples)
    return searches.sentence_search(folder, (manifest.examples, manifest.dimension), encoder)


def _checked_encoder(manifest: IndexManifest, uri: str, asked: str | None, device: str | None) -> Encoder:
    """The encoder to search with: the one asked for, else where the manifest says, if it is still the same."""
    name = asked or manifest.encoder or ""
    if manifest.kind != "sentence":
        if asked:
            raise ValueError(f"{uri}: built as {manifest.kind}, without an encoder, config asks for {asked}: remove it")
        return Encoder(name)
    local = _local_encoder(name)
    revision = _digest(local) if local else manifest.revision
    if revision != manifest.revision or (not local and name != manifest.encoder):
        built, now = f"{manifest.encoder} ({manifest.revision})", f"{name} ({revision})" if local else name
        raise ValueError(f"{uri}: built with encoder {built}, config asks for {now}: build it again")
    if not local and _is_digest(revision):
        raise ValueError(f"{uri}: its encoder {name} is not here: say where it lies with retrieval.encoder")
    return Encoder(local or name, None if local else revision, device)


def _local_encoder(name: str) -> str | None:
    """The absolute path of an encoder that is a folder here; None for a hub name."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else None


def _digest(folder: str) -> str:
    """SHA-256 over a folder's files, names and contents: some 0.6 s for an encoder of 1 GB."""
    total = hashlib.sha256()
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\0{content}\0".encode())
    return f"sha256:{total.hexdigest()[:16]}"


def _is_digest(revision: str | None) -> bool:
    return (revision or "").startswith("sha256:")


def _check_kind(kind: str, encoder: str | None) -> None:
    if kind == "entity":
        raise ValueError(f"kind: entity comes later; today there are {', '.join(KINDS)}")
    if kind not in KINDS:
        raise ValueError(f"kind: no {kind!r}; there are {', '.join(KINDS)}")
    if kind == "sentence" and not encoder:
        raise ValueError(
            "encoder: missing; kind sentence needs a sentence-transformers model, local folder or hub name"
        )
    if kind != "sentence" and encoder:
        raise ValueError(f"encoder: kind {kind} has none; remove it or choose kind sentence")


def _read_manifest(path: Path, uri: str) -> IndexManifest:
    try:
        manifest = IndexManifest.model_validate(storage.read_json(str(path)))
        _check_kind(manifest.kind, manifest.encoder)
    except ValidationError as error:
        reason = "; ".join(explain(IndexManifest, error))
    except ValueError as error:
        reason = first_line(error)
    else:
        return manifest
    raise ValueError(f"{uri}: {MANIFEST} is broken ({reason}): build it again with `ner-batch index`")


def _fingerprint(examples: Iterable[Example], manifest: IndexManifest) -> str:
    identity = manifest.model_dump(exclude={"fingerprint", "encoder"})  # an encoder is what it holds, not where it lies
    hub_name = None if _is_digest(manifest.revision) else manifest.encoder
    digest = hashlib.sha256(json.dumps([identity, hub_name], sort_keys=True).encode())
    for example in examples:
        spans = [[entity.start, entity.end, entity.type] for entity in example.entities]
        digest.update(json.dumps([example.id, example.text, spans]).encode())
    return digest.hexdigest()[:16]


def _distinct(examples: Iterable[Example]) -> list[Example]:
    """The first example of each text that is not blank; outer white space makes no difference."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.text.strip(), example)
    first.pop("", None)
    return list(first.values())


@contextmanager
def _replacing(out: str | Path) -> Iterator[Path]:
    """An empty folder that takes the place of ``out`` if the block ends well, and leaves no trace if it does not."""
    if str(out).startswith("s3://"):
        raise ValueError(f"{out}: an index is built on a local disk; copy the folder there afterwards")
    target = Path(storage.open_uri(str(out))[1])
    if target.exists() and not (target / MANIFEST).is_file() and (target.is_file() or any(target.iterdir())):
        raise ValueError(f"{out}: exists and is not an index: name another place")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        yield new
        if target.exists():
            target.rename(Path(temporary) / "old")
        new.rename(target)
