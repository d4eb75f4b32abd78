"""Files for other tools, written whole or not at all, however long they are; and what the writers of kinds share."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ner_batch.errors import UserError
from ner_batch.exchange.source import OffsetUnit
from ner_batch.exchange.tags import Tokens
from ner_batch.io import storage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a file is written; what belongs to some kinds alone says so.

    ``offsets`` None: the unit that the kind's tool counts in. Of kinds with tokens: ``tokens`` (see
    :func:`ner_batch.exchange.tags.tokenize`), and of those with tags their ``scheme``. Of ``spacy``: the ``language``
    whose tokenizer cuts. Of ``label-studio``: the ``model_version`` that predictions name. ``types`` are all that the
    rows have, for the kinds that must know them beforehand; ``parquet`` is whether the output's name ends so.
    """

    offsets: OffsetUnit | None = None
    tokens: Tokens = "words"
    scheme: str = "BIO"
    language: str = "xx"
    model_version: str = "ner_batch"
    types: tuple[str, ...] = ()
    parquet: bool = False


def refuse_existing(uri: str) -> None:
    """Raise a UserError where there is something at ``uri``, or it cannot be asked."""
    if storage.file_type(uri) is not None:
        raise UserError(f"{uri}: is there already: name another file, or remove it")


@contextmanager
def whole(uri: str, *, folder: bool = False) -> Iterator[Path]:
    """A local path to write a file or a folder to, which becomes the one at ``uri`` at the end, and only then.

    On a disk it lies beside it under a hidden name and is renamed; elsewhere, where a folder cannot be written, it is
    uploaded. After an error or an interruption nothing is left.

    Raises:
        UserError: it cannot be written, or something came to lie there meanwhile.
    """
    local = storage.local_path(uri)
    if folder and local is None:
        raise UserError(f"{uri}: a folder of many files is written to a local disk alone: name a place there")
    with storage.explained(uri):
        if local is None:
            parent = Path(tempfile.gettempdir())
        else:
            parent = Path(local).parent
            parent.mkdir(parents=True, exist_ok=True)
        temporary = parent / f"{storage.TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        try:
            if folder:
                temporary.mkdir()
            yield temporary
            refuse_existing(uri)
            if local is None:
                _upload(temporary, uri)
            else:
                _sync(temporary)
                temporary.rename(local)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or all files of a folder, are on the disk."""
    for file in (path, *(path.iterdir() if path.is_dir() else ())):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _upload(path: Path, uri: str) -> None:
    filesystem, target = storage.open_uri(uri)
    if uri.partition("://")[0] in storage.WHOLE:
        filesystem.put_file(str(path), target)
        return
    aside = f"{target.rpartition('/')[0]}/{path.name}"
    try:
        filesystem.put_file(str(path), aside)
        filesystem.mv(aside, target)
    except BaseException:
        if filesystem.exists(aside):
            filesystem.rm_file(aside)
        raise


def write_json_lines(values: Iterable[Any], out: Path) -> None:
    """A JSON value a line."""
    with out.open("w", encoding="utf-8", newline="") as file:
        file.writelines(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values)


def write_json_array(values: Iterable[Any], out: Path) -> None:
    """A JSON array, an element a line."""
    with out.open("w", encoding="utf-8", newline="") as file:
        separator = "[\n"
        for value in values:
            file.write(separator + json.dumps(value, ensure_ascii=False, allow_nan=False))
            separator = ",\n"
        file.write("[]\n" if separator == "[\n" else "\n]\n")


def batched(values: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    """Lists of ``size`` values, the last one perhaps shorter."""
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch
