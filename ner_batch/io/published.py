"""Gold out of the files that annotated sets are published in: tag columns (CoNLL, BMES), W2NER's and CLUENER's JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, StrictInt, StrictStr, ValidationError

from ner_batch.config import explain
from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.io import storage
from ner_batch.io.examples import example_from_row, examples_digest, examples_table

_BEGINS, _ENDS = "BSUW", "ESUWL"  # B-egin, S-ingle, U-nit, W-hole; E-nd, L-ast
_TAG = re.compile(r"([BIOMESLUW])(?:[-_](.+))?")
_SHOWN = 60  # characters of a value that an error shows
_HEADLESS, _OPEN = "entities without their first tag, kept", "entities without their last tag, kept"

Span = tuple[int, int, str]
"""First token, token after the last, type."""

TagType = Annotated[StrictStr, Field(min_length=1)]
Row = TypeVar("Row", bound=BaseModel)


class _W2nerEntity(BaseModel):
    index: list[Annotated[StrictInt, Field(ge=0)]] = Field(min_length=1)
    type: TagType


class _W2nerRow(BaseModel):
    sentence: list[StrictStr]
    ner: list[_W2nerEntity]


class _CluenerRow(BaseModel):
    text: StrictStr
    label: dict[TagType, dict[str, list[tuple[Annotated[StrictInt, Field(ge=0)], StrictInt]]]] | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a tag file hold what, counted from 0 (from the end where negative), and how tokens are joined.

    ``joiner`` None: nothing where there are more than nine tokens of one character for each longer one, as in Chinese
    sets, else a space. ``numbered``: tokens end in their position in a word, which is no part of them (Weibo's ``科0``,
    ``技1``).
    """

    token: int = 0
    tag: int = -1
    joiner: str | None = None
    numbered: bool = False


def read_columns(uri: str, name: str, counts: Counter[str], columns: Columns) -> list[Example]:
    """Sentences of a file with one token a line, its tag in a column, and empty lines between sentences.

    Columns are parted by tabs, else by spaces. Tags are those of BIO, IOB1, BIOES, BILOU and BMES (see
    :func:`tagged_spans`); one without a type is an ``ENTITY``. ``-DOCSTART-`` lines of CoNLL-2003 are passed over, and
    so are lines before a sentence that begin with ``#`` and have no tag.

    Args:
        uri: the file, local or ``s3://``.
        name: what the examples' ids begin with; they are numbered from 0.
        counts: gains what the reading had to decide, by its words.
        columns: where tokens and tags are.

    Raises:
        UserError: unreadable, or a line without tag, with its number.
    """
    sentences = _sentences(uri, columns)
    joiner = _joiner(columns, ([token for token, _ in sentence] for sentence in sentences))
    has_ends = any(tag[0] in "EMSLUW" for sentence in sentences for _, tag in sentence)
    of_tags: Counter[str] = Counter()
    examples = []
    for number, sentence in enumerate(sentences):
        spans = tagged_spans([tag for _, tag in sentence], of_tags, has_ends=has_ends)
        tokens = [token for token, _ in sentence]
        examples.append(_of_tokens(f"{name}-{number:06d}", tokens, joiner, spans, f"{uri} sentence {number + 1}"))
    if 2 * of_tags[_HEADLESS] > sum(len(example.entities) for example in examples):
        del of_tags[_HEADLESS]  # IOB1, where B stands only between two entities of a type
    counts.update(of_tags)
    return examples


def _sentences(uri: str, columns: Columns) -> list[list[tuple[str, str]]]:
    """The (token, tag) pairs of each sentence of a file; see :func:`read_columns`."""
    sentences: list[list[tuple[str, str]]] = [[]]
    lines = _text(uri).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    tabs = any("\t" in line for line in lines)
    for number, line in enumerate(lines, 1):
        if not line.strip(" \t"):
            sentences.append([])
            continue
        cells = line.split("\t") if "\t" in line else re.split(" +", line.rstrip(" "))
        place = f"{uri} line {number}"
        try:
            word, tag = cells[columns.token], cells[columns.tag].strip()
        except IndexError:
            word = tag = ""
        is_tagged = len(cells) > 1 and _TAG.fullmatch(tag) is not None
        if line.startswith("#") and not sentences[-1] and (not is_tagged or (tabs and "\t" not in line)):
            continue
        if not is_tagged:
            raise UserError(
                f"{place}: {_short(line)} has no tag like O, B-ORG or M-ORG in column {columns.tag}: name the columns "
                "(--token-column, --tag-column)"
            )
        if columns.token % len(cells) == columns.tag % len(cells):
            raise UserError(f"{place}: token and tag would be the same column: name two (--token-column, --tag-column)")
        if word == "-DOCSTART-":
            continue
        if not word and len(cells) > 2:
            raise UserError(f"{place}: {_short(line)} has no token in column {columns.token}: remove what is before it")
        word = word or " "  # a space, parted from its tag by another
        if columns.numbered:
            word = word[0] + word[1:].rstrip("0123456789")
        sentences[-1].append((word, tag))
    return [sentence for sentence in sentences if sentence]


def tagged_spans(tags: Sequence[str], counts: Counter[str], *, has_ends: bool | None = None) -> list[Span]:
    """The spans that tags mark, by conlleval's rule.

    An entity begins at B, S, U or W, and wherever a tag inside of one follows O, an end or another type. It ends at E,
    L, S, U or W, and wherever the next tag does not go on with it: an illegal sequence loses no token that was marked.
    Entities without a first tag are counted, and where ``has_ends`` (BIOES, BILOU, BMES; None: by these tags alone)
    those without a last one.
    """
    spans: list[Span] = []
    if has_ends is None:
        has_ends = any(tag[0] in "EMSLUW" for tag in tags)
    start: int | None = None
    kind = ""

    def close(end: int, *, ended: bool) -> None:
        nonlocal start
        if start is not None:
            spans.append((start, end, kind))
            counts[_OPEN] += has_ends and not ended
        start = None

    for position, tag in enumerate(tags):
        match = _TAG.fullmatch(tag)
        assert match
        prefix, type_ = match[1], match[2] or "ENTITY"
        if prefix == "O":
            close(position, ended=False)
            continue
        if prefix in _BEGINS or start is None or type_ != kind:
            close(position, ended=False)
            start, kind = position, type_
            counts[_HEADLESS] += prefix not in _BEGINS
        if prefix in _ENDS:
            close(position + 1, ended=True)
    close(len(tags), ended=False)
    return spans


def read_w2ner(uri: str, name: str, counts: Counter[str], columns: Columns) -> list[Example]:
    """Sentences of W2NER's JSON: ``[{"sentence": [token, ...], "ner": [{"index": [0, 1], "type": "protein"}]}]``.

    Of ``columns`` the joiner counts. Entities with gaps are left out and counted. Raises UserError as
    :func:`read_columns`.
    """
    rows = list(_rows(uri, _W2nerRow))
    joiner = _joiner(columns, (row.sentence for _, row in rows))
    examples = []
    for number, (place, row) in enumerate(rows):
        spans = []
        for entity in row.ner:
            first, last = min(entity.index), max(entity.index)
            if last >= len(row.sentence):
                raise UserError(f"{place}: entity {_short(entity.index)} is outside of its {len(row.sentence)} tokens")
            if sorted(entity.index) != list(range(first, last + 1)):
                counts["entities with gaps, left out"] += 1
                continue
            spans.append((first, last + 1, entity.type))
        examples.append(_of_tokens(f"{name}-{number:06d}", row.sentence, joiner, spans, place))
    return examples


def read_cluener(uri: str, name: str, counts: Counter[str], _columns: Columns) -> list[Example]:
    """Sentences of CLUENER's JSON lines: ``{"text": ..., "label": {type: {surface: [[first, last], ...]}}}``.

    A line without ``label`` has nothing annotated and is left out, counted. Raises UserError as :func:`read_columns`.
    """
    examples = []
    for number, (place, row) in enumerate(_rows(uri, _CluenerRow)):
        if row.label is None:
            counts["rows without label, left out"] += 1
            continue
        spans = [
            {"start": first, "end": last + 1, "type": type_, "text": surface}
            for type_, surfaces in row.label.items()
            for surface, edges in surfaces.items()
            for first, last in edges
        ]
        examples.append(_example(f"{name}-{number:06d}", row.text, spans, place))
    return examples


READERS: Mapping[str, Callable[[str, str, Counter[str], Columns], list[Example]]] = {
    "columns": read_columns,
    "w2ner": read_w2ner,
    "cluener": read_cluener,
}


def import_gold(kind: str, uri: str, out: str, name: str, columns: Columns) -> list[str]:
    """Write the examples of a file as one Parquet file, whole or not at all; lines that say what was read and decided.

    ``kind`` is one of :data:`READERS`. Raises UserError where the file cannot be read or has no examples, and where
    there is a file at ``out`` already, or none can be written.
    """
    with storage.explained(out):
        if storage.file_type(out) is not None:
            raise UserError(f"{out}: is there already: name another file, or remove it")
    counts: Counter[str] = Counter()
    examples = READERS[kind](uri, name, counts, columns)
    if not examples:
        raise UserError(f"{uri}: no annotated text in it: is this the file, and of the kind {kind}?")
    with storage.explained(out):
        storage.write_table(out, examples_table(examples), {})
    types = Counter(entity.type for example in examples for entity in example.entities)
    listed = ", ".join(f"{type_} {count:,}" for type_, count in sorted(types.items()))
    lines = [f"{len(examples):,} texts, {types.total():,} entities: {listed or 'none'}"]
    lines += [f"{count:,} {words}" for words, count in counts.items() if count]
    return [*lines, f"{out}: digest {examples_digest(examples)}"]


def _joiner(columns: Columns, sentences: Iterator[list[str]]) -> str:
    """What tokens are joined by: as ``columns`` says, else by the tokens' lengths."""
    if columns.joiner is not None:
        return columns.joiner
    lengths = Counter(min(len(token), 2) for sentence in sentences for token in sentence)
    return "" if lengths[1] > 9 * lengths[2] else " "


def _of_tokens(id_: str, tokens: Sequence[str], joiner: str, spans: Sequence[Span], place: str) -> Example:
    """Tokens joined to a text, spans of tokens as spans of it."""
    text = joiner.join(tokens)
    starts = list(accumulate((len(token) + len(joiner) for token in tokens), initial=0))
    edges = [
        {"start": starts[first], "end": starts[after] - len(joiner), "type": type_} for first, after, type_ in spans
    ]
    return _example(id_, text, edges, place)


def _example(id_: str, text: str, spans: Sequence[Mapping[str, Any]], place: str) -> Example:
    """An example that the gold reader takes, white space at edges trimmed as it does."""
    for words in (id_, text, *(span["type"] for span in spans)):
        try:
            words.encode()
        except UnicodeEncodeError:
            raise UserError(f"{place}: {_short(words)} has half of a surrogate pair: correct it") from None
    for span in spans:
        if not span["type"].isprintable():
            raise UserError(f"{place}: type {_short(span['type'])} has characters that cannot be printed: correct it")
    row = {"id": id_, "text": text, "entities": [{"text": None, **span} for span in spans]}
    return example_from_row(row, place)


def _short(value: object) -> str:
    """A value for an error: one line, of at most some 60 characters."""
    words = repr(value)
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]} ..."


def _text(uri: str) -> str:
    with storage.explained(uri):
        data = storage.read_bytes(uri)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{uri} line {line}: not UTF-8 ({error.reason}): convert it first") from None


def _rows(uri: str, kind: type[Row]) -> Iterator[tuple[str, Row]]:
    """The objects of a JSON array or of JSON lines, each with its place for errors (rows from 0, lines from 1)."""
    text = _text(uri)
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
            try:
                yield at, kind.model_validate(row)
            except ValidationError as error:
                problem = " ".join(explain(kind, error)[0].split())[:200]
                raise UserError(f"{at}: {problem}: is this the right kind of file?") from None
