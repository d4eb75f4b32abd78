"""Gold out of the files that annotated sets are published in: tag columns (CoNLL, BMES), W2NER's and CLUENER's JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from ner_batch.data import Entity, Example
from ner_batch.errors import UserError
from ner_batch.io import storage
from ner_batch.io.examples import examples_digest, examples_table

_BEGINS, _ENDS = "BSUW", "ESUWL"  # B-egin, S-ingle, U-nit, W-hole; E-nd, L-ast
_TAG = re.compile(r"([BIOMESLUW])(?:[-_](.+))?")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a tag file hold what, counted from 0 (from the end where negative), and how tokens are joined.

    ``joiner`` None: nothing where nearly every token is one character, as in Chinese sets, else a space.
    ``numbered``: tokens end in their position in a word, which is no part of them (Weibo's ``科0``, ``技1``).
    """

    token: int = 0
    tag: int = -1
    joiner: str | None = None
    numbered: bool = False


def read_columns(uri: str, name: str, repairs: Counter[str], columns: Columns | None = None) -> list[Example]:
    """Sentences of a file with one token a line, its tag in a column, and empty lines between sentences.

    Columns are parted by tabs, else by spaces. Tags are those of BIO, IOB1, BIOES, BILOU and BMES (see
    :func:`tagged_spans`); one without a type is an ``ENTITY``. ``-DOCSTART-`` lines of CoNLL-2003 are passed over.

    Args:
        uri: the file, local or ``s3://``.
        name: what the examples' ids begin with; they are numbered from 0.
        repairs: counts what had to be repaired.
        columns: where tokens and tags are.

    Raises:
        UserError: unreadable, or a line without tag, with its number.
    """
    columns = columns or Columns()
    sentences: list[list[tuple[str, str]]] = [[]]
    for number, line in enumerate(_text(uri).replace("\r\n", "\n").split("\n"), 1):
        if not line.strip(" \t"):
            sentences.append([])
            continue
        cells = line.split("\t") if "\t" in line else re.split(" +", line.rstrip(" "))
        if cells[0] == "-DOCSTART-":
            continue
        try:
            token, tag = cells[columns.token] or " ", cells[columns.tag].strip()
        except IndexError:
            token = tag = ""
        if len(cells) < 2 or not _TAG.fullmatch(tag):
            raise UserError(
                f"{uri} line {number}: {line!r} has no tag like O, B-ORG or M-ORG in column {columns.tag}: "
                "name the columns (--token-column, --tag-column)"
            )
        if columns.numbered:
            token = token[0] + token[1:].rstrip("0123456789")
        sentences[-1].append((token, tag))
    sentences = [sentence for sentence in sentences if sentence]
    joiner = columns.joiner
    if joiner is None:
        lengths = Counter(min(len(token), 2) for sentence in sentences for token, _ in sentence)
        joiner = "" if lengths[1] > 9 * lengths[2] else " "
    examples = []
    for number, sentence in enumerate(sentences):
        tokens, tags = [token for token, _ in sentence], [tag for _, tag in sentence]
        spans = tagged_spans(tags, repairs)
        examples.append(_example(f"{name}-{number:06d}", tokens, joiner, spans))
    return examples


def tagged_spans(tags: Sequence[str], repairs: Counter[str]) -> list[tuple[int, int, str]]:
    """The spans (first token, token after the last, type) that tags mark, by conlleval's rule.

    An entity begins at B, S, U or W, and wherever a tag inside of one follows O, an end or another type. It ends at E,
    L, S, U or W, and wherever the next tag does not go on with it: an illegal sequence loses no token that was marked.
    What a file with ends (BIOES, BILOU, BMES) leaves open or headless is counted in ``repairs``.
    """
    spans: list[tuple[int, int, str]] = []
    closing = any(tag[0] in "EMSLUW" for tag in tags)
    start: int | None = None
    kind = ""

    def close(end: int, *, ended: bool) -> None:
        nonlocal start
        if start is not None:
            spans.append((start, end, kind))
            repairs["entities without their last tag, kept"] += closing and not ended
        start = None

    for place, tag in enumerate(tags):
        match = _TAG.fullmatch(tag)
        assert match
        prefix, type_ = match[1], match[2] or "ENTITY"
        if prefix == "O":
            close(place, ended=False)
            continue
        if prefix in _BEGINS or start is None or type_ != kind:
            close(place, ended=False)
            start, kind = place, type_
            repairs["entities without their first tag, kept"] += prefix not in _BEGINS
        if prefix in _ENDS:
            close(place + 1, ended=True)
    close(len(tags), ended=False)
    return spans


def read_w2ner(uri: str, name: str, repairs: Counter[str]) -> list[Example]:
    """Sentences of W2NER's JSON: ``[{"sentence": [token, ...], "ner": [{"index": [0, 1], "type": "protein"}]}]``.

    Tokens are joined by spaces. Entities with gaps are left out and counted.
    """
    examples = []
    for number, row in _rows(uri):
        place = f"{uri} row {number}"
        tokens, spans = row.get("sentence"), []
        if not isinstance(tokens, list) or not isinstance(row.get("ner"), list):
            raise UserError(f"{place}: no lists `sentence` and `ner`: is this W2NER's format?")
        for entity in row["ner"]:
            if not isinstance(entity, dict) or not {"index", "type"} <= entity.keys():
                raise UserError(f"{place}: {entity} is not {{index, type}}")
            index = entity["index"]
            if not index or index[0] < 0 or index[-1] >= len(tokens):
                raise UserError(f"{place}: entity {entity} lies outside of its {len(tokens)} tokens")
            if list(index) != list(range(index[0], index[-1] + 1)):
                repairs["entities with gaps, left out"] += 1
                continue
            spans.append((index[0], index[-1] + 1, entity["type"]))
        examples.append(_example(f"{name}-{number:06d}", tokens, " ", spans))
    return examples


def read_cluener(uri: str, name: str, repairs: Counter[str]) -> list[Example]:
    """Sentences of CLUENER's JSON lines: ``{"text": ..., "label": {type: {surface: [[first, last], ...]}}}``.

    A line without ``label`` has nothing annotated and is left out, counted.
    """
    examples = []
    for number, row in _rows(uri):
        text, labels = row.get("text"), row.get("label")
        if not isinstance(text, str):
            raise UserError(f"{uri} row {number}: no string `text`: is this CLUENER's format?")
        if labels is None:
            repairs["rows without label, left out"] += 1
            continue
        try:
            places = [
                (start, last, type_, surface)
                for type_, surfaces in labels.items()
                for surface, spans in surfaces.items()
                for start, last in spans
            ]
        except (AttributeError, TypeError, ValueError):
            raise UserError(f"{uri} row {number}: label is not {{type: {{surface: [[first, last]]}}}}") from None
        for start, last, type_, surface in places:
            if text[start : last + 1] != surface:
                raise UserError(
                    f"{uri} row {number}: {type_} [{start}, {last}] reads {text[start : last + 1]!r}, not {surface!r}"
                )
        entities = [Entity(start, last + 1, type_, surface) for start, last, type_, surface in places]
        examples.append(Example(f"{name}-{number:06d}", text, tuple(sorted(entities))))
    return examples


READERS: Mapping[str, Callable[..., list[Example]]] = {
    "columns": read_columns,
    "w2ner": read_w2ner,
    "cluener": read_cluener,
}


def import_gold(kind: str, uri: str, out: str, name: str, columns: Columns) -> list[str]:
    """Write the examples of a file as one Parquet file, whole or not at all; what there is to tell, in lines.

    ``kind`` is one of :data:`READERS`; ``columns`` is of use to ``columns`` alone. Raises UserError where the file
    cannot be read or has no examples, and where there is a file at ``out`` already.
    """
    if storage.exists(out):
        raise UserError(f"{out} exists: name another file, or remove it")
    repairs: Counter[str] = Counter()
    options = (columns,) if kind == "columns" else ()
    examples = READERS[kind](uri, name, repairs, *options)
    if not examples:
        raise UserError(f"{uri}: no texts in it")
    storage.write_table(out, examples_table(examples), {})
    types = Counter(entity.type for example in examples for entity in example.entities)
    listed = ", ".join(f"{type_} {count:,}" for type_, count in sorted(types.items()))
    lines = [f"{len(examples):,} texts, {types.total():,} entities: {listed or 'none'}"]
    lines += [f"{count:,} {what}" for what, count in repairs.items() if count]
    return [*lines, f"{out}: digest {examples_digest(examples)}"]


def _example(id_: str, tokens: Sequence[str], joiner: str, spans: Sequence[tuple[int, int, str]]) -> Example:
    """Tokens joined to a text, spans of tokens as spans of it."""
    text = joiner.join(tokens)
    starts = list(accumulate((len(token) + len(joiner) for token in tokens), initial=0))
    entities = []
    for first, after, type_ in spans:
        start, end = starts[first], starts[after] - len(joiner)
        entities.append(Entity(start, end, type_, text[start:end]))
    return Example(id_, text, tuple(sorted(entities)))


def _text(uri: str) -> str:
    data = storage.read_bytes(uri)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{uri} line {line}: not UTF-8 ({error.reason}): convert it first") from None


def _rows(uri: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON array or of JSON lines, numbered from 0."""
    text = _text(uri)
    try:
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except json.JSONDecodeError as error:
        raise UserError(f"{uri}: not JSON ({error})") from None
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{uri} row {number}: {str(row)[:60]!r} is no object")
        yield number, row
