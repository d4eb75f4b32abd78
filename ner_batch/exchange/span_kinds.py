"""Kinds with offsets that are no JSON: brat's folders, spaCy's DocBin, and a flat table of mentions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from ner_batch.data import OFFSET_UNIT, Entity, Example
from ner_batch.errors import UserError, first_line, require_extra
from ner_batch.exchange.files import (
    GAPS,
    ExportOptions,
    ImportOptions,
    Offsets,
    batched,
    example,
    example_of_offsets,
    read_text,
    short,
)
from ner_batch.exchange.rows import Row, count_scores
from ner_batch.exchange.tags import CUT, flat
from ner_batch.io import storage

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

SPANS_KEY = "sc"  # of spaCy's span categorizer
SPACY_SUFFIX = ".spacy"
MENTIONS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("score", pa.float32()),
        pa.field("verified", pa.bool_()),
        pa.field("task", pa.string()),
    ],
    metadata={"ner_batch": f'{{"offset_unit": "{OFFSET_UNIT}"}}'},
)

_BRAT_ENTITY = re.compile(r"T[^\t]*\t(\S+)((?: [0-9]{1,9} [0-9]{1,9})(?:;[0-9]{1,9} [0-9]{1,9})*)(?:\t(.*))?")
_LINE = re.compile(r"[^\n]+")
_LONGEST_NAME = 240  # bytes; file systems take 255
_SPACY_ID = "id"
_PART_TEXTS = 10_000  # in a file of a folder: a DocBin lies in memory as a whole
_GROUP_MENTIONS = 20_000  # mentions of a row group: some MB, and 20 MB before they are written


def read_brat(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:
    """The texts of a folder of brat's that have an .ann beside them; ids are their names below it.

    An entity in pieces with nothing but white space between them is one, as brat parts those that go over a line's end;
    other pieces make it discontinuous: it is left out and counted. So are texts without .ann, which nobody has read,
    and annotations that are no entities.

    Raises:
        UserError: no folder, or a file in it that is wrong, with its line.
    """
    if storage.file_type(uri) != "directory":
        raise UserError(f"{uri}: not a folder of .txt and .ann files")
    names = {file.name for file in storage.list_files(uri)}
    for name in sorted(names):
        if name.endswith(".ann") and f"{name[:-4]}.txt" not in names:
            raise UserError(f"{storage.join(uri, name)}: there is no {name[:-4]}.txt beside it")
    examples: list[Example] = []
    for name in sorted(name for name in names if name.endswith(".txt")):
        if f"{name[:-4]}.ann" not in names:
            counts["texts without .ann, left out"] += 1
            continue
        text = read_text(storage.join(uri, name), "utf-8")
        place = storage.join(uri, f"{name[:-4]}.ann")
        spans = _annotated_spans(text, place, options, counts)
        id_ = options.id_of(len(examples), unquote(name[:-4]))
        examples.append(example_of_offsets(id_, text, spans, place, options.offsets or "codepoint"))
    return examples


def _annotated_spans(text: str, uri: str, options: ImportOptions, counts: Counter[str]) -> list[tuple[int, int, str]]:
    """The entities of an .ann, in the unit of the options."""
    offsets = Offsets(text, options.offsets or "codepoint")
    spans = []
    for number, line in enumerate(read_text(uri).split("\n"), 1):
        annotation = line.removesuffix("\r")
        if not annotation.startswith("T"):
            counts["annotations that are no entities, left out"] += bool(annotation.strip())
            continue
        match = _BRAT_ENTITY.fullmatch(annotation)
        if match is None:
            raise UserError(f"{uri} line {number}: {short(annotation)} is not like 'T1<tab>PER 0 4<tab>Anna'")
        pieces = [tuple(map(int, piece.split())) for piece in match[2].split(";")]
        inner = [
            text[slice(offsets.from_unit(end), offsets.from_unit(start))] for (_, end), (start, _) in pairwise(pieces)
        ]
        if any(gap.strip() for gap in inner) or sorted(pieces) != pieces:
            counts[GAPS] += 1
            continue
        start, end = pieces[0][0], pieces[-1][1]
        first, after = offsets.from_unit(start), offsets.from_unit(end)
        surface = "" if first is None or after is None else text[first:after]
        if match[3] is not None and surface and "".join(match[3].split()) != "".join(surface.split()):
            raise UserError(f"{uri} line {number}: reads {short(surface)} in the text, not {short(match[3])}")
        spans.append((start, end, match[1]))
    return spans


def write_brat(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """A .txt and an .ann for each text, named by its id, and an ``annotation.conf`` of its types and the task's.

    Ids are percent-encoded where a file's name cannot have a character. No scores; a type with white space gets ``_``.

    Raises:
        UserError: an id that is empty, repeated or too long for a file's name.
    """
    types = {"_".join(type_.split()) for type_ in options.types}
    for row in rows:
        name = quote(row.id, safe=" ()+,-_=@~").replace(".", "%2E" if row.id.startswith(".") else ".")
        if not name.strip() or len(name.encode()) > _LONGEST_NAME:
            raise UserError(f"id {short(row.id)} cannot name a file: name another column (--id-column)")
        count_scores(row, counts)
        lines = []
        offsets = Offsets(row.text, options.offsets or "codepoint")
        for number, entity in enumerate(row.entities, 1):
            type_ = "_".join(entity.type.split())
            counts["types with white space, written with _"] += type_ != entity.type
            types.add(type_)
            pieces = _line_pieces(entity)
            places = ";".join(f"{offsets.to_unit(start)} {offsets.to_unit(end)}" for start, end in pieces)
            words = " ".join(row.text[start:end] for start, end in pieces)
            lines.append(f"T{number}\t{type_} {places}\t{words}\n")
        for suffix, content in ((".txt", row.text), (".ann", "".join(lines))):
            try:
                with (out / f"{name}{suffix}").open("x", encoding="utf-8", newline="") as file:
                    file.write(content)
            except FileExistsError:
                raise UserError(f"id {short(row.id)} names two texts: name another column (--id-column)") from None
    sections = "[entities]\n" + "".join(f"{type_}\n" for type_ in sorted(types))
    (out / "annotation.conf").write_text(f"{sections}\n[relations]\n\n[events]\n\n[attributes]\n", encoding="utf-8")


def _line_pieces(entity: Entity) -> list[tuple[int, int]]:
    """The parts of an entity on its lines, without white space at their edges: brat's annotations have no line ends."""
    pieces = []
    for match in _LINE.finditer(entity.text):
        line = match[0]
        if line.strip():
            start = entity.start + match.start() + len(line) - len(line.lstrip())
            pieces.append((start, start + len(line.strip())))
    return pieces


def read_docbin(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:
    """The documents of a DocBin: of a document that has spans under ``options.spans_key`` these, else its ``ents``.

    The id is what ``user_data`` has as ``id``. Raises UserError where the file is none, or the extra is not installed.
    """
    require_extra("spacy", purpose="the kind spacy")
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    with storage.explained(uri):
        data = storage.read_bytes(uri)
    try:
        documents = list(DocBin().from_bytes(data).get_docs(Vocab()))
    except Exception as error:  # noqa: BLE001 - zlib, msgpack, numpy and spaCy each have their own
        raise UserError(f"{uri}: not a DocBin of spaCy ({first_line(error)})") from None
    examples = []
    for number, document in enumerate(documents):
        grouped = options.spans_key in document.spans
        spans = document.spans[options.spans_key] if grouped else document.ents
        counts[f"texts whose spans {options.spans_key!r} were read, not their ents"] += grouped
        place = f"{uri} document {number}"
        edges = []
        for span in spans:
            if not span.label_:
                counts["spans without a label, left out"] += 1
                continue
            edges.append({"start": span.start_char, "end": span.end_char, "type": span.label_})
        id_ = options.id_of(number, document.user_data.get(_SPACY_ID))
        examples.append(example(id_, document.text, edges, place))
    return examples


def write_docbin(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """Documents with all entities as spans ``sc``, and as ``ents`` those that do not overlap, the longest first.

    Tokens are the language's, cut where an entity begins or ends inside of one. Where ``out`` is a folder it gets a
    file for each 10,000 texts. No scores.

    Raises:
        UserError: spaCy has no such language, or is not installed.
    """
    require_extra("spacy", purpose="the kind spacy")
    import spacy
    from spacy.tokens import DocBin

    try:
        language = spacy.blank(options.language)
    except ImportError as error:
        raise UserError(f"--language {options.language}: spaCy cannot load it ({first_line(error)})") from None
    documents = (_spacy_document(language, row, counts) for row in rows)
    if not out.is_dir():
        DocBin(store_user_data=True, docs=documents).to_disk(out)
        return
    for number, part in enumerate(batched(documents, _PART_TEXTS)):
        DocBin(store_user_data=True, docs=part).to_disk(out / f"part-{number:05d}{SPACY_SUFFIX}")


def _spacy_document(language: Language, row: Row, counts: Counter[str]) -> Doc:
    """A document of the very text, its tokens cut so that every entity is made of whole ones."""
    from spacy.tokens import Doc
    from spacy.util import filter_spans

    edges = {edge for entity in row.entities for edge in (entity.start, entity.end)}
    words, spaces = [], []
    for token in language.make_doc(row.text):
        end = token.idx + len(token.text)
        cuts = [token.idx, *sorted(edge for edge in edges if token.idx < edge < end), end]
        counts[CUT] += len(cuts) > 2
        words += [row.text[first:after] for first, after in pairwise(cuts)]
        spaces += [False] * (len(cuts) - 2) + [bool(token.whitespace_)]
    document = Doc(language.vocab, words=words, spaces=spaces)
    spans = [document.char_span(entity.start, entity.end, entity.type) for entity in row.entities]
    assert document.text == row.text and None not in spans, f"{row.id}: tokens do not make up the text"
    document.spans[SPANS_KEY] = [span for span in spans if span is not None]
    outermost = flat(row.entities, Counter())
    document.set_ents(filter_spans([document.char_span(e.start, e.end, e.type) for e in outermost]))
    counts["entities inside or across others, in spans sc alone"] += len(row.entities) - len(outermost)
    count_scores(row, counts)
    document.user_data[_SPACY_ID] = row.id
    return document


def write_mentions(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:  # noqa: ARG001
    """A row of Parquet for each entity, in the order of texts, rejected ones too; a text without entities has none."""
    values = (
        {"id": row.id, **{name: getattr(entity, name) for name in MENTIONS.names[1:]}}
        for row in rows
        for entity in row.entities
    )
    with pq.ParquetWriter(out, MENTIONS, compression="zstd") as writer:
        for batch in batched(values, _GROUP_MENTIONS):
            writer.write_table(pa.Table.from_pylist(list(batch), schema=MENTIONS))
