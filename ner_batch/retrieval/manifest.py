"""What an index is made of: its manifest, its fingerprint, and whether today's encoder is the one it was built with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ner_batch.config import explain
from ner_batch.data import Example
from ner_batch.errors import UserError, first_line
from ner_batch.io import storage
from ner_batch.io.examples import examples_digest
from ner_batch.retrieval.encoder import Encoder
from ner_batch.retrieval.vectors import Lists

KINDS = ("random", "lexical", "sentence", "entity")
ENCODED = ("sentence", "entity")
MANIFEST = "manifest.json"


class IndexManifest(BaseModel):
    """What an index is made of; the content of ``manifest.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    kind: str
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


_LATER = ("mentions", "lists")  # fields that came later: left out of the digest where unset, so old indexes still open


def read_manifest(path: Path, uri: str) -> IndexManifest:
    """The manifest of an index. Raises UserError in one line that names the index."""
    try:
        manifest = IndexManifest.model_validate(storage.read_json(str(path)))
        check_kind(manifest.kind, manifest.encoder)
    except ValidationError as error:
        reason = "; ".join(explain(IndexManifest, error))
    except ValueError as error:
        reason = first_line(error)
    else:
        return manifest
    raise UserError(f"{uri}: {MANIFEST} is broken ({reason}): build it again with `ner-batch index`")


def check_kind(kind: str, encoder: str | None) -> None:
    """Raise a UserError in one line for a kind that does not exist, or does not go with its encoder."""
    if kind not in KINDS:
        raise UserError(f"kind: no {kind!r}; there are {', '.join(KINDS)}")
    if kind in ENCODED and not encoder:
        model = {"sentence": "sentence-transformers", "entity": "sentence-transformers or Hugging Face"}[kind]
        raise UserError(f"encoder: missing; kind {kind} needs a {model} model, local folder or hub name")
    if kind not in ENCODED and encoder:
        raise UserError(f"encoder: kind {kind} has none; remove it or choose kind sentence or entity")


def fingerprint(examples: Iterable[Example], manifest: IndexManifest) -> str:
    """Sixteen hex digits over the examples and the manifest; an encoder is what it holds, not where it lies."""
    unset = {name for name in _LATER if getattr(manifest, name) is None}
    identity = manifest.model_dump(exclude={"fingerprint", "encoder", *unset})
    hub_name = None if _is_digest(manifest.revision) else manifest.encoder
    return examples_digest(examples, after=json.dumps([identity, hub_name], sort_keys=True))


def checked_encoder(manifest: IndexManifest, uri: str, asked: str | None, device: str | None) -> Encoder:
    """The encoder to search with: the one asked for, else where the manifest says, if it is still the same."""
    name = asked or manifest.encoder or ""
    if manifest.kind not in ENCODED:
        if asked:
            raise UserError(f"{uri}: built as {manifest.kind}, without an encoder, config asks for {asked}: remove it")
        return Encoder(name)
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
    """SHA-256 over a folder's files, names and contents: some 0.6 s for an encoder of 1 GB."""
    total = hashlib.sha256()
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\0{content}\0".encode())
    return f"sha256:{total.hexdigest()[:16]}"


def _is_digest(revision: str | None) -> bool:
    return (revision or "").startswith("sha256:")
