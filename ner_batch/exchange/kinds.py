"""The kinds of files by name: who reads and writes each, and the options that belong to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.exchange import json_kinds, span_kinds, token_kinds
from ner_batch.exchange.files import OFFSET_UNITS, TOKENS, ExportOptions, ImportOptions
from ner_batch.exchange.rows import Row
from ner_batch.exchange.tags import SCHEMES

Reader = Callable[[str, ImportOptions, Counter[str]], list[Example]]
Writer = Callable[[Iterable[Row], Path, ExportOptions, Counter[str]], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file. Options of every kind are not named; ``types`` says that its writer must know all types."""

    write: Writer
    read: Reader | None = None
    import_options: frozenset[str] = frozenset()
    export_options: frozenset[str] = frozenset()
    types: bool = False


def _kind(write: Writer, read: Reader | None, into: str = "", out_of: str = "", *, types: bool = False) -> Kind:
    return Kind(write, read, frozenset(into.split()), frozenset(out_of.split()), types)


KINDS: Mapping[str, Kind] = {
    "columns": _kind(
        token_kinds.write_columns,
        token_kinds.read_columns,
        "token_column tag_column join numbered",
        "tokens scheme",
    ),
    "hf": _kind(token_kinds.write_hf, token_kinds.read_hf, "join tag_names", "tokens scheme"),
    "spacy": _kind(span_kinds.write_docbin, span_kinds.read_docbin, "spans_key", "language"),
    "spacy-jsonl": _kind(json_kinds.write_spacy_jsonl, json_kinds.read_spacy_jsonl, "offsets", "offsets"),
    "prodigy": _kind(json_kinds.write_prodigy, json_kinds.read_prodigy, "offsets", "offsets"),
    "doccano": _kind(json_kinds.write_doccano, json_kinds.read_doccano, "offsets", "offsets"),
    "label-studio": _kind(
        json_kinds.write_label_studio,
        json_kinds.read_label_studio,
        "offsets text_field predictions",
        "offsets model_version",
    ),
    "brat": _kind(span_kinds.write_brat, span_kinds.read_brat, "offsets", "offsets"),
    "mrc": _kind(token_kinds.write_mrc, token_kinds.read_mrc, "join", "tokens", types=True),
    "langextract": _kind(json_kinds.write_langextract, json_kinds.read_langextract, "offsets", "offsets"),
    "w2ner": _kind(token_kinds.write_w2ner, token_kinds.read_w2ner, "join", "tokens"),
    "cluener": _kind(json_kinds.write_cluener, json_kinds.read_cluener),
    "mentions": _kind(span_kinds.write_mentions, None),
}
READABLE = tuple(name for name, kind in KINDS.items() if kind.read)

_JOINERS = {"auto": None, "space": " ", "nothing": ""}
_CHOICES = {"join": tuple(_JOINERS), "offsets": OFFSET_UNITS, "tokens": TOKENS, "scheme": tuple(SCHEMES)}


def import_options(kind: str, name: str, given: Mapping[str, Any], *, renumber: bool = False) -> ImportOptions:
    """Options out of what a person gave, None where nothing. Raises UserError as :func:`_checked`."""
    values = _checked(kind, given, {name: KINDS[name].import_options for name in READABLE})
    if (join := values.pop("join", None)) is not None:
        values["joiner"] = _JOINERS[join]
    if (names := values.pop("tag_names", None)) is not None:
        values["tag_names"] = tuple(part.strip() for part in names.split(","))
    return ImportOptions(name, renumber, **values)


def export_options(kind: str, given: Mapping[str, Any]) -> ExportOptions:
    """Options out of what a person gave, None where nothing. Raises UserError as :func:`_checked`."""
    return ExportOptions(**_checked(kind, given, {name: kind.export_options for name, kind in KINDS.items()}))


def _checked(kind: str, given: Mapping[str, Any], allowed: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    """The options that were given. Raises UserError: an unknown kind or value, an option of other kinds."""
    if kind not in allowed:
        raise UserError(f"{kind}: known kinds of file are {', '.join(allowed)}")
    values = {option: value for option, value in given.items() if value is not None and value is not False}
    for option, value in values.items():
        flag = f"--{option.replace('_', '-')}"
        if option not in allowed[kind]:
            owners = [name for name, options in allowed.items() if option in options]
            raise UserError(f"{flag}: not an option of the kind {kind}, but of {', '.join(owners)}: leave it out")
        if option in _CHOICES and value not in _CHOICES[option]:
            raise UserError(f"{flag} {value}: known are {', '.join(_CHOICES[option])}")
    return values
