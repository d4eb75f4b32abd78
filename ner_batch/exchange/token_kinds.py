"""Kinds that are tokens: columns of tags (CoNLL, BMES), Hugging Face's, W2NER's JSON, and MRC-NER's questions."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, StrictInt, StrictStr

from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.exchange.files import (
    GAPS,
    ExportOptions,
    ImportOptions,
    Label,
    batched,
    checked,
    read_rows,
    read_text,
    short,
    write_json_array,
    write_json_lines,
)
from ner_batch.exchange.rows import Row
from ner_batch.exchange.tags import (
    CUT,
    TAG,
    Span,
    choose_joiner,
    example_of_tokens,
    flat,
    has_end_tags,
    tagged_spans,
    tags_of,
    tokenize,
    without_iob1,
)
from ner_batch.io import storage, tables

NO_TOKENS = "texts without a token, left out"
_DOCUMENT = "-DOCSTART-"
_PARQUET_ROWS = 10_000  # of a row group
_BLANKS = str.maketrans("\t\n\r", "   ")


class _W2nerEntity(BaseModel):
    index: list[Annotated[StrictInt, Field(ge=0)]] = Field(min_length=1)
    type: Label


class _W2nerRow(BaseModel):
    sentence: list[StrictStr]
    ner: list[_W2nerEntity]


class _HfRow(BaseModel):
    id: Any = None
    tokens: list[StrictStr]
    ner_tags: list[StrictStr | StrictInt] | None = None
    tags: list[StrictStr | StrictInt] | None = None
    labels: list[StrictStr | StrictInt] | None = None


class _MrcRow(BaseModel):
    context: StrictStr
    entity_label: Label
    start_position: list[StrictInt] = []
    end_position: list[StrictInt] = []
    span_position: list[Annotated[StrictStr, Field(pattern=r"^[0-9]{1,9}[;,][0-9]{1,9}$")]] = []
    qas_id: StrictStr | None = None


def read_columns(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:
    """Sentences of a file with one token a line, its tag in a column, and empty lines between sentences.

    Columns are parted by tabs, else by spaces, in each line as it is, or by both (see :func:`_mixes`). Tags are those
    of BIO, IOB1, BIOES, BILOU and BMES (see :func:`ner_batch.exchange.tags.tagged_spans`); one without a type is an
    ``ENTITY``. ``-DOCSTART-`` lines of CoNLL-2003 are passed over, and so are lines before a sentence that begin with
    ``#`` and have no tag. ``counts`` gains what the reading had to decide, by its words.

    Raises:
        UserError: unreadable, or a line without tag, with its number.
    """
    sentences = list(_sentences(uri, options, counts))
    joiner = choose_joiner(options.joiner, ([token for token, _ in sentence] for sentence in sentences))
    has_ends = has_end_tags((tag for _, tag in sentence) for sentence in sentences)
    of_tags: Counter[str] = Counter()
    examples = []
    for number, sentence in enumerate(sentences):
        spans = tagged_spans([tag for _, tag in sentence], of_tags, has_ends=has_ends)
        tokens = [token for token, _ in sentence]
        place = f"{uri} sentence {number + 1}"
        examples.append(example_of_tokens(options.id_of(number), tokens, joiner, spans, place))
    counts.update(without_iob1(of_tags, examples))
    return examples


def _sentences(uri: str, options: ImportOptions, counts: Counter[str]) -> Iterator[list[tuple[str, str]]]:
    """The (token, tag) pairs of each sentence of a file; see :func:`read_columns`."""
    sentence: list[tuple[str, str]] = []
    lines = read_text(uri).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    tabs, mixed = any("\t" in line for line in lines), _mixes(lines, options)
    for number, line in enumerate(lines, 1):
        if not line.strip(" \t"):
            if sentence:
                yield sentence
            sentence = []
            continue
        width, word, tag = _cells(line, options, mixed=mixed)
        if line.startswith("#") and not sentence and (not tag or (tabs and "\t" not in line)):
            continue
        counts["lines parted at tabs and at spaces alike"] += mixed
        _check_cells(f"{uri} line {number}", line, (width, word, tag), options)
        if word == _DOCUMENT:
            continue
        word = word or " "  # a space, parted from its tag by another
        if options.numbered:
            word = word[0] + word[1:].rstrip("0123456789")
        sentence.append((word.strip(" ") or " ", tag))
    if sentence:
        yield sentence


def _check_cells(place: str, line: str, cells: tuple[int, str, str], options: ImportOptions) -> None:
    """Raise a UserError where a line of so many cells has no tag or no token."""
    width, word, tag = cells
    if not tag:
        raise UserError(
            f"{place}: {short(line)} has no tag like O, B-ORG or M-ORG in column {options.tag_column}: name the "
            "columns (--token-column, --tag-column)"
        )
    if options.token_column % width == options.tag_column % width:
        raise UserError(f"{place}: token and tag would be the same column: name two (--token-column, --tag-column)")
    if not word and width > 2:
        raise UserError(
            f"{place}: {short(line)} has no token in column {options.token_column}: remove what is before it"
        )


def _cells(line: str, options: ImportOptions, *, mixed: bool) -> tuple[int, str, str]:
    """How many cells a line has, its token, and its tag, which is empty where there is none."""
    if mixed:
        cells = re.split("[ \t]+", line.rstrip(" \t"))
    else:
        cells = line.split("\t") if "\t" in line else re.split(" +", line.rstrip(" "))
    try:
        word, tag = cells[options.token_column], cells[options.tag_column].strip()
    except IndexError:
        return len(cells), "", ""
    return len(cells), word, tag if len(cells) > 1 and TAG.fullmatch(tag) else ""


def _mixes(lines: Sequence[str], options: ImportOptions) -> bool:
    """Whether tabs and spaces part cells alike: tabs alone leave lines without a tag, and both give all as many cells.

    Else a space within a tab's cell is the token's own.
    """
    tagged = [line for line in lines if line.strip(" \t") and not line.startswith(("#", _DOCUMENT))]
    if all(_cells(line, options, mixed=False)[2] for line in tagged if "\t" in line):
        return False
    cells = [_cells(line, options, mixed=True) for line in tagged]
    return len({width for width, _, _ in cells}) == 1 and all(tag for _, _, tag in cells)


def read_hf(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:
    """Sentences of Hugging Face's token classification: ``tokens`` and ``ner_tags`` (or ``tags``, ``labels``).

    JSON lines, a JSON array, or Parquet (by the file's first bytes). Tags are strings, or numbers whose names are
    ``options.tag_names`` or stand in Parquet's metadata as `datasets` writes it. Raises UserError as
    :func:`read_columns`.
    """
    names = options.tag_names
    with storage.explained(uri):
        is_parquet = storage.read_ranges(uri, [(0, 4)]) == [b"PAR1"]
    if is_parquet:
        table = tables.read_table(uri)
        columns = [name for name in ("ner_tags", "tags", "labels") if name in table.column_names]
        names = names or (_class_names(table.schema.metadata or {}, columns[0]) if columns else ())
        columns_read = [name for name in ("id", "tokens", *columns[:1]) if name in table.column_names]
        with tables.parsed(uri):
            values = table.select(columns_read).to_pylist()
        rows = [(f"{uri} row {n}", checked(_HfRow, row, f"{uri} row {n}")) for n, row in enumerate(values)]
    else:
        rows = list(read_rows(uri, _HfRow))
    tagged = [(place, row, _named_tags(row, names, place)) for place, row in rows]
    joiner = choose_joiner(options.joiner, (row.tokens for _, row, _ in tagged))
    has_ends = has_end_tags(tags for _, _, tags in tagged)
    of_tags: Counter[str] = Counter()
    examples = []
    for number, (place, row, tags) in enumerate(tagged):
        spans = tagged_spans(tags, of_tags, has_ends=has_ends)
        examples.append(example_of_tokens(options.id_of(number, row.id), row.tokens, joiner, spans, place))
    counts.update(without_iob1(of_tags, examples))
    return examples


def _class_names(metadata: dict[bytes, bytes], column: str) -> tuple[str, ...]:
    """The names of a column's classes as `datasets` writes them into Parquet; none where it does not."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        inner = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        names = inner["names"]
    except (KeyError, ValueError, TypeError, AttributeError, IndexError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _named_tags(row: _HfRow, names: Sequence[str], place: str) -> list[str]:
    """A row's tags as strings."""
    tags = next((tags for tags in (row.ner_tags, row.tags, row.labels) if tags is not None), None)
    if tags is None:
        raise UserError(f"{place}: no ner_tags, tags or labels: is this the right kind of file?")
    if len(tags) != len(row.tokens):
        raise UserError(f"{place}: {len(row.tokens)} tokens and {len(tags)} tags: every token needs one")
    named = []
    for tag in tags:
        if isinstance(tag, int):
            if not 0 <= tag < len(names):
                about_names = f"there are {len(names)} names" if names else "the file does not name its tags"
                raise UserError(
                    f"{place}: tag {short(tag)}: {about_names}: give them in order (--tag-names O,B-PER,I-PER)"
                )
            tag = names[tag]  # noqa: PLW2901 - the same tag, by its name
        if not TAG.fullmatch(tag):
            raise UserError(f"{place}: {short(tag)} is no tag like O, B-ORG or M-ORG")
        named.append(tag)
    return named


def read_w2ner(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:
    """Sentences of W2NER's JSON: ``[{"sentence": [token, ...], "ner": [{"index": [0, 1], "type": "protein"}]}]``.

    Entities with gaps are left out and counted. Raises UserError as :func:`read_columns`.
    """
    rows = list(read_rows(uri, _W2nerRow))
    joiner = choose_joiner(options.joiner, (row.sentence for _, row in rows))
    examples = []
    for number, (place, row) in enumerate(rows):
        spans = []
        for entity in row.ner:
            first, last = min(entity.index), max(entity.index)
            if last >= len(row.sentence):
                raise UserError(f"{place}: entity {short(entity.index)} is outside of its {len(row.sentence)} tokens")
            if sorted(entity.index) != list(range(first, last + 1)):
                counts[GAPS] += 1
                continue
            spans.append((first, last + 1, entity.type))
        examples.append(example_of_tokens(options.id_of(number), row.sentence, joiner, spans, place))
    return examples


def read_mrc(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:  # noqa: ARG001 - decides nothing
    """Sentences of MRC-NER's JSON (Li et al. 2020; GPT-NER): a row for each text and type, last words inclusive.

    Rows that follow each other belong to one text where the part of ``qas_id`` before the last dot is the same; without
    one, where the ``context`` is. That part is the id. Raises UserError as :func:`read_columns`.
    """
    rows = list(read_rows(uri, _MrcRow))
    joiner = choose_joiner(options.joiner, (row.context.split() for _, row in rows))
    examples = []
    for number, (key, group) in enumerate(groupby(rows, key=lambda pair: _mrc_key(pair[1]))):
        spans: list[Span] = []
        words: list[str] = []
        for place, row in group:
            if words and row.context.split() != words:
                raise UserError(f"{place}: qas_id {short(row.qas_id)} has another context than the row before it")
            words = row.context.split()
            positions = [tuple(map(int, re.split("[;,]", position))) for position in row.span_position]
            if not positions:
                if len(row.start_position) != len(row.end_position):
                    raise UserError(f"{place}: {len(row.start_position)} starts and {len(row.end_position)} ends")
                positions = list(zip(row.start_position, row.end_position, strict=True))
            for first, last in positions:
                if not 0 <= first <= last < len(words):
                    raise UserError(
                        f"{place}: entity {short(first)};{short(last)} is outside of its {len(words)} words"
                    )
                spans.append((first, last + 1, row.entity_label))
        id_ = options.id_of(number, key if row.qas_id is not None else None)
        examples.append(example_of_tokens(id_, words, joiner, spans, place))
    return examples


def _mrc_key(row: _MrcRow) -> str:
    return row.context if row.qas_id is None else row.qas_id.rpartition(".")[0] or row.qas_id


def write_columns(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """A token and its tag a line, parted by a tab; an empty line after each text.

    No ids, no white space but that between tokens, nothing nested. What is left out or changed is counted.
    """
    with out.open("w", encoding="utf-8", newline="") as file:
        for row in rows:
            entities = flat(row.entities, counts)
            places, spans = tokenize(row.text, entities, options.tokens, counts)
            tags = tags_of(len(places), spans, options.scheme)
            lines = []
            for (start, end), tag in zip(places, tags, strict=True):
                token = row.text[start:end].translate(_BLANKS)
                counts["tabs and line breaks, written as spaces"] += token != row.text[start:end]
                if token == _DOCUMENT:
                    counts[CUT] += 1
                    lines += [f"{part}\tO\n" for part in ("-DOCSTART", "-")]
                    continue
                lines.append(f"{token}\t{tag}\n")
            if not lines:
                counts[NO_TOKENS] += 1
                continue
            if file.tell() == 0 and lines[0].startswith("\ufeff"):
                file.write("\n")  # or a reader would take it for the file's byte order mark
            file.writelines([*lines, "\n"])


def write_hf(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """``id``, ``tokens`` and ``ner_tags``: JSON lines with tags as strings, or Parquet as `datasets` writes it.

    In Parquet tags are numbers, and its metadata has their names, made of all ``options.types``.
    """

    def values() -> Iterator[dict[str, Any]]:
        for row in rows:
            places, spans = tokenize(row.text, flat(row.entities, counts), options.tokens, counts)
            tags = tags_of(len(places), spans, options.scheme)
            yield {"id": row.id, "tokens": [row.text[start:end] for start, end in places], "ner_tags": tags}

    if not options.parquet:
        write_json_lines(values(), out)
        return
    names = ["O", *dict.fromkeys(tag for type_ in options.types for tag in _tags_of_type(type_, options.scheme))]
    numbers = {name: number for number, name in enumerate(names)}
    string = {"dtype": "string", "_type": "Value"}
    features = {
        "id": string,
        "tokens": {"feature": string, "_type": "Sequence"},
        "ner_tags": {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"},
    }
    schema = pa.schema(
        [("id", pa.string()), ("tokens", pa.list_(pa.string())), ("ner_tags", pa.list_(pa.int64()))],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for batch in batched(values(), _PARQUET_ROWS):
            coded = [row | {"ner_tags": [numbers[tag] for tag in row["ner_tags"]]} for row in batch]
            writer.write_table(pa.Table.from_pylist(coded, schema=schema))


def _tags_of_type(type_: str, scheme: str) -> list[str]:
    """Every tag that a scheme has for a type."""
    return [*tags_of(3, [(0, 3, type_)], scheme), *tags_of(1, [(0, 1, type_)], scheme)]


def write_w2ner(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """W2NER's JSON array; nested entities stand in it like others. No ids."""

    def values() -> Iterator[dict[str, Any]]:
        for row in rows:
            places, spans = tokenize(row.text, row.entities, options.tokens, counts)
            ner = [{"index": list(range(first, after)), "type": type_} for first, after, type_ in spans]
            yield {"sentence": [row.text[start:end] for start, end in places], "ner": ner}

    write_json_array(values(), out)


def write_mrc(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """MRC-NER's JSON array: for each text a row of every type in ``options.types``, whose name is the query.

    ``qas_id`` numbers texts from 0 and types from 1, since its readers take both for numbers: no ids.
    """

    def values() -> Iterator[dict[str, Any]]:
        number = 0
        for row in rows:
            places, spans = tokenize(row.text, row.entities, options.tokens, counts)
            visible = [place for place in places if not row.text[slice(*place)].isspace()]
            if len(visible) < len(places):  # characters, of which white ones cannot be words
                counts["white space characters, left out"] += len(places) - len(visible)
                places, spans = _only_visible(places, visible, spans)
            if not places:
                counts[NO_TOKENS] += 1
                continue
            context = " ".join(row.text[start:end] for start, end in places)
            for question, type_ in enumerate(options.types, 1):
                of_type = [(first, after - 1) for first, after, other in spans if other == type_]
                yield {
                    "context": context,
                    "end_position": [last for _, last in of_type],
                    "entity_label": type_,
                    "impossible": not of_type,
                    "qas_id": f"{number}.{question}",
                    "query": type_,
                    "span_position": [f"{first};{last}" for first, last in of_type],
                    "start_position": [first for first, _ in of_type],
                }
            number += 1

    write_json_array(values(), out)


def _only_visible(
    places: Sequence[tuple[int, int]], visible: Sequence[tuple[int, int]], spans: Sequence[Span]
) -> tuple[list[tuple[int, int]], list[Span]]:
    """Tokens without white ones, and spans of the tokens that stay; both ends of a span are visible."""
    number = {place: position for position, place in enumerate(visible)}
    moved = [(number[places[first]], number[places[after - 1]] + 1, type_) for first, after, type_ in spans]
    return list(visible), moved
