"""brat's standoff: a folder of texts (.txt) and their annotations (.ann), in code points."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote, unquote

from ner_batch.data import Entity, Example
from ner_batch.errors import UserError
from ner_batch.exchange.rows import Row
from ner_batch.exchange.source import ImportOptions, Offsets, example_of_offsets, read_text, short
from ner_batch.exchange.writing import ExportOptions
from ner_batch.io import storage

DISCONTINUOUS = "entities with gaps, left out"
_ENTITY = re.compile(r"T[^\t]*\t(\S+)((?: [0-9]{1,9} [0-9]{1,9})(?:;[0-9]{1,9} [0-9]{1,9})*)(?:\t(.*))?")
_LINE = re.compile(r"[^\n]+")
_LONGEST_NAME = 240  # bytes; file systems take 255


def read_brat(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:
    """The texts of a folder that have an .ann beside them; ids are their names below it.

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
        spans = _spans(text, place, options, counts)
        id_ = options.id_of(len(examples), unquote(name[:-4]))
        examples.append(example_of_offsets(id_, text, spans, place, options.offsets or "codepoint"))
    return examples


def _spans(text: str, uri: str, options: ImportOptions, counts: Counter[str]) -> list[tuple[int, int, str]]:
    """The entities of an .ann, in the unit of the options."""
    offsets = Offsets(text, options.offsets or "codepoint")
    spans = []
    for number, line in enumerate(read_text(uri).split("\n"), 1):
        annotation = line.removesuffix("\r")
        if not annotation.startswith("T"):
            counts["annotations that are no entities, left out"] += bool(annotation.strip())
            continue
        match = _ENTITY.fullmatch(annotation)
        if match is None:
            raise UserError(f"{uri} line {number}: {short(annotation)} is not like 'T1<tab>PER 0 4<tab>Anna'")
        pieces = [tuple(map(int, piece.split())) for piece in match[2].split(";")]
        inner = [
            text[slice(offsets.from_unit(end), offsets.from_unit(start))] for (_, end), (start, _) in pairwise(pieces)
        ]
        if any(gap.strip() for gap in inner) or sorted(pieces) != pieces:
            counts[DISCONTINUOUS] += 1
            continue
        start, end = pieces[0][0], pieces[-1][1]
        first, after = offsets.from_unit(start), offsets.from_unit(end)
        surface = "" if first is None or after is None else text[first:after]
        if match[3] is not None and surface and "".join(match[3].split()) != "".join(surface.split()):
            raise UserError(f"{uri} line {number}: reads {short(surface)} in the text, not {short(match[3])}")
        spans.append((start, end, match[1]))
    return spans


def write_brat(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """A .txt and an .ann for each text, named by its id, and an ``annotation.conf`` of the types.

    Ids are percent-encoded where a file's name cannot have a character. No scores; a type with white space gets ``_``.

    Raises:
        UserError: an id that is empty, repeated or too long for a file's name.
    """
    types: set[str] = set()
    for row in rows:
        name = quote(row.id, safe=" ()+,-_=@~").replace(".", "%2E" if row.id.startswith(".") else ".")
        if not name.strip() or len(name.encode()) > _LONGEST_NAME:
            raise UserError(f"id {short(row.id)} cannot name a file: name another column (--id-column)")
        lines = []
        offsets = Offsets(row.text, options.offsets or "codepoint")
        for number, entity in enumerate(row.entities, 1):
            type_ = "_".join(entity.type.split())
            counts["types with white space, written with _"] += type_ != entity.type
            counts["scores of entities, left out"] += entity.score is not None
            types.add(type_)
            pieces = _pieces(entity)
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


def _pieces(entity: Entity) -> list[tuple[int, int]]:
    """The parts of an entity on its lines, without white space at their edges: brat's annotations have no line ends."""
    pieces = []
    for match in _LINE.finditer(entity.text):
        line = match[0]
        if line.strip():
            start = entity.start + match.start() + len(line) - len(line.lstrip())
            pieces.append((start, start + len(line.strip())))
    return pieces
