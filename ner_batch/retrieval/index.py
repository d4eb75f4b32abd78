"""Build an index, open it, search it.

An index is a folder::

    examples.parquet   the gold examples, one per distinct text (schema ``data.EXAMPLES``)
    vectors.*          L2-normalised: one per example, for ``entity`` one per mention; none for ``random``
    mentions.npy       ``entity``: whose mentions they are
    manifest.json      kind, encoder, sizes, fingerprint: :class:`IndexManifest`

Kinds: ``random`` (the papers' baseline), ``lexical`` (character n-grams, no model to fetch), ``sentence`` (any
sentence-transformers encoder), ``entity`` (GPT-NER's; any encoder with token states).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, assert_never, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from ner_batch.config import IndexKind, explain
from ner_batch.data import Example, clean
from ner_batch.errors import UserError, first_line
from ner_batch.io import copies, storage, tables
from ner_batch.io.examples import examples_digest, examples_table, read_examples
from ner_batch.retrieval import vectors
from ner_batch.retrieval.encoder import Encoder
from ner_batch.retrieval.entity import EntitySearch
from ner_batch.retrieval.lexical import LexicalSearch, RandomSearch
from ner_batch.retrieval.vectors import Lists, SentenceSearch, StoredVectors

KINDS: tuple[IndexKind, ...] = get_args(IndexKind)
ENCODED = ("sentence", "entity")
"""Kinds that need an encoder."""
MANIFEST = "manifest.json"
EXAMPLES_FILE = "examples.parquet"
_REMEDY = "build it again with `ner-batch index`"


class IndexManifest(BaseModel):
    """What an index is made of; the content of ``manifest.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    kind: IndexKind
    encoder: str | None
    """sentence, entity: local folder (absolute) or hub name."""
    revision: str | None
    """Commit of a hub encoder, or ``sha256:`` digest of a local one."""
    dimension: int
    """Length of a vector; 0 for random."""
    examples: int
    """Distinct texts kept; blank and repeated ones are left out."""
    seed: int
    """random: another seed draws other demonstrations. entity: likewise where examples are filled up."""
    mentions: int | None = None
    """entity: vectors, one per mention that has a token."""
    lists: Lists | None = None
    """sentence, entity: how the vectors are searched where they are too many to scan; None: exactly."""
    fingerprint: str
    """Digest of the examples and all of the above: same fingerprint, same demonstrations."""


@dataclass(frozen=True, slots=True)
class Index:
    """An open index. Safe to search from several threads."""

    kind: IndexKind
    fingerprint: str
    encoder: str | None
    examples: tuple[Example, ...] = field(repr=False)
    searcher: RandomSearch | LexicalSearch | SentenceSearch | EntitySearch = field(repr=False)

    @property
    def vector_encoder(self) -> Encoder | None:
        """What its vectors were made with; None for kinds that have none."""
        return self.searcher.encoder if isinstance(self.searcher, SentenceSearch | EntitySearch) else None

    def nearest(self, texts: Sequence[str], k: int) -> list[list[Example]]:
        """Up to ``k`` demonstrations per text, the nearest LAST; ties go to the earlier example.

        Last, because models lean on what stands next to the input (Zhao et al. 2021, "Calibrate before use"). No
        demonstration is the text itself, outer white space aside, so training prompts are leave-one-out without ids.
        """
        if k == 0 or not texts:
            return [[] for _ in texts]
        cleaned = [clean(text) for text in texts]
        # One more than asked: examples are of distinct texts, so at most one of them is the text itself.
        numbers = self.searcher.search(cleaned, min(k + 1, len(self.examples)))
        return [
            [self.examples[n] for n in nearest_first if self.examples[n].text.strip() != text.strip()][:k][::-1]
            for text, nearest_first in zip(cleaned, numbers, strict=True)
        ]


def nearest(examples: Sequence[Example], k: int) -> Sequence[Example]:
    """The ``k`` nearest of demonstrations that stand with the nearest last; all where there are fewer."""
    return examples[max(0, len(examples) - k) :]


def build(
    examples: str | Path | Sequence[Example],
    kind: str,
    out: str | Path,
    encoder: str | None = None,
    *,
    seed: int = 0,
    exact_search_limit: int | None = None,
) -> IndexManifest:
    """Build an index, whole or not at all; the same arguments give the same bytes.

    Args:
        examples: a Parquet file, a folder of them, or Examples.
        kind: one of ``KINDS``.
        out: local folder; an index that is there is replaced.
        encoder: local folder or hub name, for the kinds that need one.
        seed: of kind random, and of what kind entity fills up with: another one draws other demonstrations.
        exact_search_limit: more vectors than these are searched by inverted lists; None: 200,000.

    Raises:
        UserError: one line: unknown kind, bad examples, an encoder that cannot be loaded, or an ``out`` that is taken.
    """
    checked_kind = check_kind(kind, encoder)
    source = str(examples) if isinstance(examples, str | Path) else "examples"
    with storage.explained(str(out)), _replacing(out) as folder:
        gold = read_examples(source) if isinstance(examples, str | Path) else examples
        distinct = usable_examples(gold, checked_kind, source)
        tables.write_table(str(folder / EXAMPLES_FILE), examples_table(distinct), {})
        local = local_encoder(encoder) if encoder else None
        model = Encoder(local or encoder or "")
        limit = vectors.EXACT_SEARCH_LIMIT if exact_search_limit is None else exact_search_limit
        stored = StoredVectors()
        match checked_kind:
            case "lexical":
                stored = LexicalSearch.write(folder, distinct)
            case "sentence":
                stored = SentenceSearch.write(folder, distinct, model, limit)
            case "entity":
                stored = EntitySearch.write(folder, distinct, model, limit)
        draft = IndexManifest(
            kind=checked_kind,
            encoder=local or encoder,
            revision=content_digest(local) if local else model.commit() if encoder else None,
            examples=len(distinct),
            seed=seed,
            fingerprint="",
            **asdict(stored),
        )
        manifest = draft.model_copy(update={"fingerprint": fingerprint(distinct, draft)})
        storage.write_json(str(folder / MANIFEST), manifest.model_dump())
    return manifest


def open_index(path: str | Path, encoder: str | None = None, device: str | None = None) -> Index:
    """Open an index. Its vectors are memory-mapped, and its encoder is loaded at the first search.

    Args:
        path: local or ``s3://`` (copied to the local disk, one copy for the processes of a machine).
        encoder: where the encoder that the index was built with lies today; None: where the manifest says.
        device: torch's name of where the encoder runs; None: a GPU where there is one.

    Raises:
        UserError: one line: no such index, a broken one, or one built with another encoder.
    """
    uri = str(path)
    if not storage.exists(storage.join(uri, MANIFEST)):
        raise UserError(f"{uri}: no such index: build one with `ner-batch index`")
    folder = Path(copies.fetched(uri))
    with _intact(uri):
        manifest = IndexManifest.model_validate(storage.read_json(str(folder / MANIFEST)))
    model = checked_encoder(manifest, uri, encoder, device)
    stored = StoredVectors(manifest.dimension, manifest.mentions, manifest.lists)
    searcher: RandomSearch | LexicalSearch | SentenceSearch | EntitySearch
    with _intact(uri):
        examples = tuple(read_examples(str(folder / EXAMPLES_FILE)))
        if fingerprint(examples, manifest) != manifest.fingerprint:
            raise UserError("the examples or the manifest were changed after it was built")
        match manifest.kind:
            case "random":
                searcher = RandomSearch(len(examples), manifest.seed)
            case "lexical":
                searcher = LexicalSearch(folder, len(examples))
            case "sentence":
                searcher = SentenceSearch(folder, len(examples), stored, model)
            case "entity":
                searcher = EntitySearch(folder, examples, stored, manifest.seed, model)
            case unknown:
                assert_never(unknown)
    return Index(manifest.kind, manifest.fingerprint, manifest.encoder, examples, searcher)


@contextmanager
def _intact(uri: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        lines = "; ".join(explain(IndexManifest, error))
        raise UserError(f"{uri}: {MANIFEST} is broken ({lines}): {_REMEDY}") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{uri}: broken index ({first_line(error)}): {_REMEDY}") from None


def usable_examples(examples: Iterable[Example], kind: IndexKind, source: str) -> list[Example]:
    """The first example of each text that is not blank, outer white space aside; entities in order, as they are read.

    Raises:
        UserError: there is none, or none with an entity for kind entity; one line that begins with ``source``.
    """
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.text.strip(), example)
    first.pop("", None)
    if not first:
        raise UserError(f"{source}: no example with text")
    if kind == "entity" and not any(example.entities for example in first.values()):
        raise UserError(f"{source}: no example has an entity, so kind entity finds nothing: choose another kind")
    return [replace(example, entities=tuple(sorted(example.entities))) for example in first.values()]


def check_place(out: str | Path) -> Path:
    """The local path of a place where an index can be built: free, empty, or an index to replace.

    Raises:
        UserError: one line: not a local place, or taken by something else.
    """
    local = storage.local_path(str(out))
    if local is None:
        raise UserError(f"{out}: an index is built on a local disk; copy the folder there afterwards")
    target = Path(local).resolve()  # what a link points to is replaced, not the link
    if target.is_mount():
        raise UserError(f"{out}: a mount point cannot be replaced: name a folder in it")
    is_index = all((target / name).is_file() for name in (MANIFEST, EXAMPLES_FILE))  # others have a manifest.json too
    if target.exists() and not is_index and (target.is_file() or any(target.iterdir())):
        raise UserError(f"{out}: exists and is not an index: name another place")
    storage.check_writable(str(target.parent))
    return target


@contextmanager
def _replacing(out: str | Path) -> Iterator[Path]:
    """An empty folder that takes the place of ``out`` if the block ends well, and leaves no trace if it does not."""
    target = check_place(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        yield new
        if target.exists():
            target.rename(Path(temporary) / "old")
        new.rename(target)


def check_kind(kind: str, encoder: str | None) -> IndexKind:
    """The kind; raises a UserError in one line where it does not exist, or does not go with its encoder."""
    checked = next((name for name in KINDS if name == kind), None)
    if checked is None:
        raise UserError(f"kind: no {kind!r}; there are {', '.join(KINDS)}")
    if kind in ENCODED and not encoder:
        raise UserError(f"encoder: missing; kind {kind} needs a sentence-transformers model, local folder or hub name")
    if kind not in ENCODED and encoder:
        raise UserError(f"encoder: kind {kind} has none; remove it or choose kind sentence or entity")
    return checked


def fingerprint(examples: Iterable[Example], manifest: IndexManifest) -> str:
    """Sixteen hex digits over the examples and the manifest; an encoder is what it holds, not where it lies."""
    # These fields came later: left out where unset, so that old indexes still open.
    unset = {name for name in ("mentions", "lists") if getattr(manifest, name) is None}
    identity = manifest.model_dump(exclude={"fingerprint", "encoder", *unset})
    hub_name = None if _is_digest(manifest.revision) else manifest.encoder
    return examples_digest(examples, after=json.dumps([identity, hub_name], sort_keys=True))


def checked_encoder(manifest: IndexManifest, uri: str, configured: str | None, device: str | None) -> Encoder:
    """The encoder to search with: the one configured, else where the manifest says, if it is still the same."""
    if manifest.kind not in ENCODED:
        if configured:
            built = f"built as {manifest.kind}, without an encoder"
            raise UserError(f"{uri}: {built}, config asks for {configured}: remove it")
        return Encoder("")
    name = configured or manifest.encoder or ""
    local = local_encoder(name)
    revision = content_digest(local) if local else manifest.revision
    if revision != manifest.revision or (not local and name != manifest.encoder):
        built, now = f"{manifest.encoder} ({manifest.revision})", f"{name} ({revision})" if local else name
        raise UserError(f"{uri}: built with encoder {built}, config asks for {now}: build it again")
    if not local and _is_digest(revision):
        raise UserError(f"{uri}: its encoder {name} is not here: say where it lies with retrieval.encoder")
    return Encoder(local or name, None if local else revision, device)


def local_encoder(name: str) -> str | None:
    """The absolute path of an encoder that is a folder here; None for a hub name."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else None


def content_digest(folder: str) -> str:
    """SHA-256 over a folder's files, names and contents: some 0.6 s for an encoder of 1 GB.

    What is hidden is left out: `hf download --local-dir` leaves time stamps in `.cache`.
    """
    total = hashlib.sha256()
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    for path in sorted(path for path in files if not any(p.startswith(".") for p in path.relative_to(folder).parts)):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\0{content}\0".encode())
    return f"sha256:{total.hexdigest()[:16]}"


def _is_digest(revision: str | None) -> bool:
    return (revision or "").startswith("sha256:")
