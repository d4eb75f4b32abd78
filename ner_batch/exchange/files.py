"""Files of other tools: options, text and JSON rows, checked; offsets; and files written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, StrictStr, ValidationError

from ner_batch.config import explain
from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.io import storage
from ner_batch.io.examples import example_from_row

OffsetUnit = Literal["codepoint", "utf-16"]
OFFSET_UNITS: tuple[OffsetUnit, ...] = get_args(OffsetUnit)
Tokens = Literal["words", "space", "characters"]
TOKENS: tuple[Tokens, ...] = get_args(Tokens)

GAPS = "entities with gaps, left out"

_SHOWN = 60  # characters of a value that an error shows

Label = Annotated[StrictStr, Field(min_length=1)]
Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How a file is read; what belongs to one kind alone says so.

    ``name`` is what ids begin with that the file does not give, and with ``renumber`` all ids. ``offsets`` None: the
    unit that the kind's tool counts in.

    Of kinds with tokens: ``joiner`` None is nothing where there are more than nine tokens of one character for each
    longer one, as in Chinese sets, else a space. Of columns, counted from 0 (from the end where negative):
    ``token_column``, ``tag_column``; ``numbered`` tokens end in their position in a word, which is no part of them
    (Weibo's ``科0``, ``技1``). Of ``hf``: ``tag_names`` are what tags mean that are numbers. Of ``label-studio``:
    ``text_field`` of a task's data, and whether ``predictions`` are taken, not annotations. Of ``spacy``:
    ``spans_key`` of the group of spans that is read where a document has it, else its ``ents``.
    """

    name: str = "gold"
    renumber: bool = False
    joiner: str | None = None
    token_column: int = 0
    tag_column: int = -1
    numbered: bool = False
    tag_names: tuple[str, ...] = ()
    offsets: OffsetUnit | None = None
    text_field: str = "text"
    predictions: bool = False
    spans_key: str = "sc"

    def id_of(self, number: int, *own: object) -> str:
        """The id of the file's text ``number``, from 0: the first of ``own`` that is a string or a whole number."""
        for value in own:
            if not self.renumber and isinstance(value, str | int) and not isinstance(value, bool):
                return str(value)
        return f"{self.name}-{number:06d}"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a file is written; what belongs to some kinds alone says so.

    ``offsets`` None: the unit that the kind's tool counts in. Of kinds with tokens: ``tokens`` (see
    :func:`ner_batch.exchange.tags.tokenize`), and of those with tags their ``scheme``. Of ``spacy``: the ``language``
    whose tokenizer cuts. Of ``label-studio``: the ``model_version`` that predictions name. ``types`` are the
    task's, whether rows have any, and those that rows have besides for the kinds that must know all beforehand;
    ``parquet`` is whether the output's name ends so.
    """

    offsets: OffsetUnit | None = None
    tokens: Tokens = "words"
    scheme: str = "BIO"
    language: str = "xx"
    model_version: str = "ner_batch"
    types: tuple[str, ...] = ()
    parquet: bool = False


class Offsets:
    """Positions in a text, in code points, and what they are in ``unit``."""

    def __init__(self, text: str, unit: OffsetUnit) -> None:
        astral = unit == "utf-16" and not text.isascii() and max(text, default="") > "\uffff"
        widths = (1 + (character > "\uffff") for character in text)
        self._places = list(accumulate(widths, initial=0)) if astral else None
        self.length = len(text)

    def to_unit(self, position: int) -> int:
        """A position in code points, as the unit counts it."""
        return self._places[position] if self._places else position

    def from_unit(self, offset: int) -> int | None:
        """The position in code points; None where it is outside of the text or between the halves of a pair."""
        if self._places is None:
            return offset if 0 <= offset <= self.length else None
        position = bisect_left(self._places, offset)
        return position if position <= self.length and self._places[position] == offset else None


def read_text(uri: str, encoding: str = "utf-8-sig") -> str:
    """A text file. Raises UserError where it cannot be read or is not UTF-8."""
    with storage.explained(uri):
        data = storage.read_bytes(uri)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{uri} line {line}: not UTF-8 ({error.reason}): convert it first") from None


def read_rows(uri: str, kind: type[Model]) -> Iterator[tuple[str, Model]]:
    """The objects of a JSON array or of JSON lines, each with its place for errors (rows from 0, lines from 1).

    Raises:
        UserError: unreadable, not JSON, or a row that is not of the ``kind``.
    """
    text = read_text(uri)
    if text.lstrip().startswith("["):
        pieces = [(f"{uri}", text)]
    else:
        pieces = [(f"{uri} line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for place, piece in pieces:
        try:
            value = json.loads(piece)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: not JSON ({error}): is this the file?") from None
        if isinstance(value, list):
            numbered = [(f"{uri} row {number}", row) for number, row in enumerate(value)]
        else:
            numbered = [(place, value)]
        for at, row in numbered:
            yield at, checked(kind, row, at)


def checked(kind: type[Model], row: object, place: str) -> Model:
    """A value as a model. Raises UserError in one line."""
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        problem = " ".join(explain(kind, error)[0].split())[:200].encode("utf-8", "backslashreplace").decode()
        raise UserError(f"{place}: {problem}: is this the right kind of file?") from None


def example(id_: str, text: str, spans: Sequence[Mapping[str, Any]], place: str) -> Example:
    """An example that the gold reader takes, white space at edges trimmed as it does.

    Spans have start, end (code points), type and perhaps text. Raises UserError where one does not fit the text, or
    words are no Unicode.
    """
    for words in (id_, text, *(span["type"] for span in spans)):
        try:
            words.encode()
        except UnicodeEncodeError:
            raise UserError(f"{place}: {short(words)} has half of a surrogate pair: correct it") from None
    for span in spans:
        if not span["type"].isprintable():
            raise UserError(f"{place}: type {short(span['type'])} has characters that cannot be printed: correct it")
    row = {"id": id_, "text": text, "entities": [{"text": None, **span} for span in spans]}
    return example_from_row(row, place)


def example_of_offsets(
    id_: str, text: str, spans: Sequence[tuple[int, int, str]], place: str, unit: OffsetUnit
) -> Example:
    """An example from spans in the unit of a tool. Raises UserError as :func:`example`."""
    offsets = Offsets(text, unit)
    converted = []
    for start, end, type_ in spans:
        first, after = offsets.from_unit(start), offsets.from_unit(end)
        if first is None or after is None or first >= after:
            raise UserError(
                f"{place}: entity [{short(start)}, {short(end)}) {short(type_)} is no span of its "
                f"{offsets.to_unit(len(text)):,} characters (unit {unit}): correct it, or name another unit (--offsets)"
            )
        converted.append({"start": first, "end": after, "type": type_})
    return example(id_, text, converted, place)


def short(value: object) -> str:
    """A value for an error: one line, of at most some 60 characters."""
    try:
        words = repr(value)
    except ValueError:  # a whole number of more than 4,300 digits
        return "a huge number"
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]} ..."


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
