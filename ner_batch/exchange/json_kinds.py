"""Kinds that are JSON with offsets: Prodigy, spaCy's JSONL, doccano, LangExtract, CLUENER."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictInt, StrictStr

from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.exchange.rows import Row
from ner_batch.exchange.source import (
    ImportOptions,
    Label,
    Offsets,
    OffsetUnit,
    example,
    example_of_offsets,
    read_rows,
)
from ner_batch.exchange.writing import ExportOptions, write_json_lines

REJECTED_ANSWERS = ("reject", "ignore")
UNITS: Mapping[str, OffsetUnit] = {"doccano": "utf-16"}
"""What tools count offsets in; others in code points. doccano's browser counts JavaScript's units (doccano#2290)."""

Triple = tuple[StrictInt, StrictInt, Label]


class _ProdigySpan(BaseModel):
    start: StrictInt
    end: StrictInt
    label: Label


class _ProdigyRow(BaseModel):
    text: StrictStr
    spans: list[_ProdigySpan] | None = None
    answer: StrictStr | None = None
    meta: Any = None
    id: Any = None


class _SpacyRow(BaseModel):
    text: StrictStr
    entities: list[Triple]
    id: Any = None


class _DoccanoEntity(BaseModel):
    start_offset: StrictInt
    end_offset: StrictInt
    label: Label


class _DoccanoRow(BaseModel):
    text: StrictStr
    label: list[Triple] | None = None
    labels: list[Triple] | None = None  # of releases before 1.0
    entities: list[_DoccanoEntity] | None = None
    doc_id: Any = None
    id: Any = None


class _Interval(BaseModel):
    start_pos: StrictInt | None = None
    end_pos: StrictInt | None = None


class _Extraction(BaseModel):
    extraction_class: Label
    extraction_text: StrictStr
    char_interval: _Interval | None = None


class _LangextractRow(BaseModel):
    text: StrictStr
    extractions: list[_Extraction] | None = None
    document_id: Any = None


class _CluenerRow(BaseModel):
    text: StrictStr
    label: dict[Label, dict[str, list[tuple[Annotated[StrictInt, Field(ge=0)], StrictInt]]]] | None = None
    id: Any = None


def read_prodigy(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:
    """Prodigy's JSON lines, as ``db-out`` gives them: ``{"text", "spans": [{start, end, label}], "answer"}``.

    Rows whose answer is reject or ignore are left out, and those with neither answer nor ``spans``, which nobody has
    annotated; both are counted. ``meta.id`` or ``id`` is the id. Raises UserError where a row is wrong.
    """
    examples = []
    for number, (place, row) in enumerate(read_rows(uri, _ProdigyRow)):
        if row.answer in REJECTED_ANSWERS or (row.answer is None and row.spans is None):
            why = "without answer and spans" if row.answer is None else f"with the answer {row.answer}"
            counts[f"rows {why}, left out"] += 1
            continue
        if row.answer not in ("accept", None):
            raise UserError(f"{place}: answer {row.answer!r}: known are accept, reject, ignore")
        own = row.meta.get("id") if isinstance(row.meta, dict) else None
        spans = [(span.start, span.end, span.label) for span in row.spans or ()]
        unit = options.offsets or "codepoint"
        examples.append(example_of_offsets(options.id_of(number, own, row.id), row.text, spans, place, unit))
    return examples


def read_spacy_jsonl(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:  # noqa: ARG001
    """SpaCy's training data as JSON lines or an array: ``{"text", "entities": [[start, end, label]]}``."""
    unit = options.offsets or "codepoint"
    return [
        example_of_offsets(options.id_of(number, row.id), row.text, row.entities, place, unit)
        for number, (place, row) in enumerate(read_rows(uri, _SpacyRow))
    ]


def read_doccano(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:
    """Doccano's JSON lines, ``label: [[start, end, label]]`` or ``entities: [{start_offset, end_offset, label}]``.

    Rows with neither are left out and counted. The id is ``doc_id``, which an export from here has, else doccano's
    own. Raises UserError where a row is wrong.
    """
    examples = []
    for number, (place, row) in enumerate(read_rows(uri, _DoccanoRow)):
        spans: list[Triple] = [*(row.label or ()), *(row.labels or ())]
        spans += [(entity.start_offset, entity.end_offset, entity.label) for entity in row.entities or ()]
        if row.label is None and row.labels is None and row.entities is None:
            counts["rows without label or entities, left out"] += 1
            continue
        id_, unit = options.id_of(number, row.doc_id, row.id), options.offsets or UNITS["doccano"]
        examples.append(example_of_offsets(id_, row.text, spans, place, unit))
    return examples


def read_langextract(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:
    """LangExtract's JSON lines: ``{"document_id", "text", "extractions": [{extraction_class, char_interval, ...}]}``.

    Extractions without a place, and those whose words differ from the text there (its fuzzy and partial matches), are
    left out and counted. Raises UserError where a row is wrong.
    """
    unit = options.offsets or "codepoint"
    examples = []
    for number, (place, row) in enumerate(read_rows(uri, _LangextractRow)):
        offsets, spans = Offsets(row.text, unit), []
        for extraction in row.extractions or ():
            interval = extraction.char_interval
            if interval is None or interval.start_pos is None or interval.end_pos is None:
                counts["extractions without a place, left out"] += 1
                continue
            start, end = offsets.from_unit(interval.start_pos), offsets.from_unit(interval.end_pos)
            if start is not None and end is not None and row.text[start:end] != extraction.extraction_text:
                counts["extractions whose words differ from the text, left out"] += 1
                continue
            spans.append((interval.start_pos, interval.end_pos, extraction.extraction_class))
        examples.append(example_of_offsets(options.id_of(number, row.document_id), row.text, spans, place, unit))
    return examples


def read_cluener(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:
    """Sentences of CLUENER's JSON lines: ``{"text": ..., "label": {type: {surface: [[first, last], ...]}}}``.

    A line without ``label`` has nothing annotated and is left out, counted. Raises UserError where a row is wrong.
    """
    examples = []
    for number, (place, row) in enumerate(read_rows(uri, _CluenerRow)):
        if row.label is None:
            counts["rows without label, left out"] += 1
            continue
        spans = [
            {"start": first, "end": last + 1, "type": type_, "text": surface}
            for type_, surfaces in row.label.items()
            for surface, edges in surfaces.items()
            for first, last in edges
        ]
        examples.append(example(options.id_of(number, row.id), row.text, spans, place))
    return examples


def write_prodigy(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """Prodigy's JSON lines; gold has been accepted, predictions are to be answered. ``meta`` has id and lowest score.

    Prodigy adds ``tokens`` itself (``add_tokens``), as its recipes do.
    """

    def value(row: Row) -> dict[str, Any]:
        meta: dict[str, Any] = {"id": row.id}
        if scores := [entity.score for entity in row.entities if entity.score is not None]:
            meta["score"] = round(min(scores), 4)
        counts["scores of entities, of which a row's lowest is in its meta"] += len(scores)
        spans = [{"start": start, "end": end, "label": label} for start, end, label in _triples(row, options)]
        answer = {"answer": "accept"} if row.status is None else {}
        return {"text": row.text, "spans": spans, "meta": meta, **answer}

    write_json_lines(map(value, rows), out)


def write_spacy_jsonl(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """SpaCy's training data as JSON lines. No scores."""

    def value(row: Row) -> dict[str, Any]:
        _count_scores(row, counts)
        return {"id": row.id, "text": row.text, "entities": _triples(row, options)}

    write_json_lines(map(value, rows), out)


def write_doccano(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """JSON lines as doccano imports them for sequence labelling; ``doc_id`` comes back with its export. No scores."""

    def value(row: Row) -> dict[str, Any]:
        _count_scores(row, counts)
        return {"doc_id": row.id, "text": row.text, "label": _triples(row, options, UNITS["doccano"])}

    write_json_lines(map(value, rows), out)


def write_langextract(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """Annotated documents as LangExtract saves them, for its visualisation among others; scores are attributes."""

    def value(row: Row) -> dict[str, Any]:
        extractions = []
        triples = _triples(row, options)
        for number, (entity, (start, end, label)) in enumerate(zip(row.entities, triples, strict=True), 1):
            attributes = {} if entity.score is None else {"score": f"{entity.score:.4f}"}
            extractions.append(
                {
                    "extraction_class": label,
                    "extraction_text": entity.text,
                    "char_interval": {"start_pos": start, "end_pos": end},
                    "alignment_status": "match_exact",
                    "extraction_index": number,
                    "group_index": number - 1,
                    "description": None,
                    "attributes": attributes,
                }
            )
        counts["scores of entities, written as attributes"] += sum(e.score is not None for e in row.entities)
        return {"extractions": extractions, "text": row.text, "document_id": row.id}

    write_json_lines(map(value, rows), out)


def write_cluener(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:  # noqa: ARG001
    """CLUENER's JSON lines, last characters inclusive. No scores."""

    def value(row: Row) -> dict[str, Any]:
        _count_scores(row, counts)
        label: dict[str, dict[str, list[list[int]]]] = {}
        for entity in row.entities:
            label.setdefault(entity.type, {}).setdefault(entity.text, []).append([entity.start, entity.end - 1])
        return {"id": row.id, "text": row.text, "label": label}

    write_json_lines(map(value, rows), out)


def _triples(row: Row, options: ExportOptions, unit: OffsetUnit = "codepoint") -> list[tuple[int, int, str]]:
    """The entities of a row as a tool has them: start, end, type."""
    offsets = Offsets(row.text, options.offsets or unit)
    return [(offsets.to_unit(entity.start), offsets.to_unit(entity.end), entity.type) for entity in row.entities]


def _count_scores(row: Row, counts: Counter[str]) -> None:
    counts["scores of entities, left out"] += sum(entity.score is not None for entity in row.entities)
