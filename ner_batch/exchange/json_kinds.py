"""Kinds that are JSON with offsets: Prodigy, spaCy's JSONL, doccano, LangExtract, CLUENER and Label Studio."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any
from xml.sax.saxutils import quoteattr

from pydantic import BaseModel, Field, StrictInt, StrictStr

from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.exchange.files import (
    OFFSET_UNITS,
    ExportOptions,
    ImportOptions,
    Label,
    Offsets,
    OffsetUnit,
    checked,
    example,
    example_of_offsets,
    read_rows,
    short,
    write_json_array,
    write_json_lines,
)
from ner_batch.exchange.rows import Row, count_scores

REJECTED_ANSWERS = ("reject", "ignore")
DOCCANO_UNIT: OffsetUnit = "utf-16"
"""doccano's browser counts JavaScript's units (doccano#2290); the other tools count code points."""
FROM_NAME, TO_NAME, FIELD, ID = "label", "text", "text", "doc_id"
"""Of Label Studio: a result's control and object, and the fields of a task."""

_COLLAPSED = "results that counted CR LF as one character, moved to where their words stand"
_WHITE = re.compile(r"(?:\s|\\n)+")  # Label Studio's editor writes \n for a line break within a result's words

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
        id_, unit = options.id_of(number, row.doc_id, row.id), options.offsets or DOCCANO_UNIT
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
        count_scores(row, counts)
        return {"id": row.id, "text": row.text, "entities": _triples(row, options)}

    write_json_lines(map(value, rows), out)


def write_doccano(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """JSON lines as doccano imports them for sequence labelling; ``doc_id`` comes back with its export. No scores."""

    def value(row: Row) -> dict[str, Any]:
        count_scores(row, counts)
        return {"doc_id": row.id, "text": row.text, "label": _triples(row, options, DOCCANO_UNIT)}

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
        count_scores(row, counts)
        label: dict[str, dict[str, list[list[int]]]] = {}
        for entity in row.entities:
            label.setdefault(entity.type, {}).setdefault(entity.text, []).append([entity.start, entity.end - 1])
        return {"id": row.id, "text": row.text, "label": label}

    write_json_lines(map(value, rows), out)


def _triples(row: Row, options: ExportOptions, unit: OffsetUnit = "codepoint") -> list[tuple[int, int, str]]:
    """The entities of a row as a tool has them: start, end, type."""
    offsets = Offsets(row.text, options.offsets or unit)
    return [(offsets.to_unit(entity.start), offsets.to_unit(entity.end), entity.type) for entity in row.entities]


class _LabelStudioValue(BaseModel):
    start: StrictInt
    end: StrictInt
    text: StrictStr | None = None
    labels: list[Label] = []


class _LabelStudioTask(BaseModel):
    data: dict[str, Any] | None = None
    annotations: list[dict[str, Any]] | None = None
    completions: list[dict[str, Any]] | None = None  # what annotations were called before 1.0
    predictions: list[dict[str, Any]] | None = None
    id: Any = None
    model_config = {"extra": "allow"}


def read_label_studio(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:
    """Tasks of Label Studio's export as JSON or JSON-MIN.

    Of a task the first annotation counts that was not cancelled (with ``options.predictions`` the first prediction);
    more of them, tasks without one, and results that are no labels of a text are left out, and counted. The id is
    ``doc_id`` of the data, which an export from here has, else the task's. JSON-MIN has a task's own fields at the top
    and labels under the name of their control.

    Its editor counts code points since its frontend's pull request 308 of 2021, and JavaScript's UTF-16 units before;
    ``--offsets utf-16`` reads what older releases saved. Either is checked against the words that a result states. A
    carriage return counts as a character of its own, as its documentation of the Text tag says; results in which CR LF
    is one all the same (label-studio#539, #4929) are recognised by their words, and counted.

    Raises:
        UserError: unreadable, no text, a span that is outside of it or reads otherwise than the result says.
    """
    examples = []
    for number, (place, task) in enumerate(read_rows(uri, _LabelStudioTask)):
        data = task.data if task.data is not None else task.model_extra or {}
        text = data.get(options.text_field)
        if not isinstance(text, str):
            raise UserError(f"{place}: no text in the field {options.text_field!r}: name the field (--text-field)")
        values = _results_of_row(data, counts) if task.data is None else _results_of_task(task, options, counts, place)
        if values is None:
            continue
        spans: list[dict[str, Any]] = []
        for value in values:
            span = checked(_LabelStudioValue, value, place)
            start, end = _label_studio_span(text, span, options, place, counts)
            spans += [{"start": start, "end": end, "type": label} for label in span.labels]
            counts["results without a label, left out"] += not span.labels
        examples.append(example(options.id_of(number, data.get(ID), task.id), text, spans, place))
    return examples


def _results_of_task(
    task: _LabelStudioTask, options: ImportOptions, counts: Counter[str], place: str
) -> list[Mapping[str, Any]] | None:
    """The values of a task's results; None where nobody has annotated it."""
    what = "predictions" if options.predictions else "annotations"
    every = task.predictions if options.predictions else task.annotations or task.completions
    entries = [entry for entry in every or () if not entry.get("was_cancelled")]
    if not entries:
        counts[f"tasks without {what}, left out"] += 1
        return None
    counts[f"{what} of a task after its first, left out"] += len(entries) - 1
    results = entries[0].get("result")
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise UserError(f"{place}: {what} without a list of results: is this an export as JSON?")
    values = []
    for result in results:
        if result.get("type") != "labels":
            counts[f"results of type {short(result.get('type'))}, left out"] += 1
        else:
            values.append(result.get("value"))
    return values


def _results_of_row(data: Mapping[str, Any], counts: Counter[str]) -> list[Mapping[str, Any]] | None:
    """The values in a row of JSON-MIN: what has start, end and labels, whatever its control is called."""
    if "annotation_id" not in data and "annotator" not in data:
        counts["tasks without annotations, left out"] += 1
        return None
    objects = [item for value in data.values() if isinstance(value, list) for item in value if isinstance(item, dict)]
    return [item for item in objects if {"start", "end", "labels"} <= {*item}]


def _label_studio_span(
    text: str, span: _LabelStudioValue, options: ImportOptions, place: str, counts: Counter[str]
) -> tuple[int, int]:
    """Where a result stands, in code points."""
    unit = options.offsets or "codepoint"
    offsets = Offsets(text, unit)
    start, end = offsets.from_unit(span.start), offsets.from_unit(span.end)
    if start is not None and end is not None and _reads_as(text[start:end], span.text):
        return start, end
    if span.text is not None and "\r\n" in text:
        short_text = text.replace("\r\n", "\n")
        offsets = Offsets(short_text, unit)
        start, end = offsets.from_unit(span.start), offsets.from_unit(span.end)
        if start is not None and end is not None and _reads_as(short_text[start:end], span.text):
            # Where each character of the short text stands in the long one.
            widths = (2 if pair == "\r\n" else 1 for pair in re.findall(r"\r\n|.", text, re.DOTALL))
            places = list(accumulate(widths, initial=0))
            counts[_COLLAPSED] += 1
            return places[start], places[end]
    (other,) = (candidate for candidate in OFFSET_UNITS if candidate != unit)
    offsets = Offsets(text, other)
    start, end = offsets.from_unit(span.start), offsets.from_unit(span.end)
    fits = span.text is not None and None not in (start, end) and _reads_as(text[start:end], span.text)
    remedy = f"it does in the unit {other} (--offsets {other})" if fits else "correct it"
    raise UserError(
        f"{place}: result [{short(span.start)}, {short(span.end)}) is no span of its text that reads "
        f"{short(span.text)}: {remedy}"
    )


def _reads_as(surface: str, stated: str | None) -> bool:
    """Whether a span reads as its result says, white space aside, which browsers change."""
    return stated is None or surface == stated or _WHITE.sub("", surface) == _WHITE.sub("", stated)


def write_label_studio(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """Tasks as JSON: gold as annotations, which count as done; predictions as pre-annotations with scores.

    A prediction's own score is the lowest of its entities', so that a project sorted by it begins with the doubtful.
    """

    def tasks() -> Iterator[dict[str, Any]]:
        for row in rows:
            counts["texts with carriage returns, which its editor shows as line breaks"] += "\r" in row.text
            results = _label_studio_results(row, options)
            task: dict[str, Any] = {"data": {FIELD: row.text, ID: row.id}}
            if row.status is None:
                yield task | {"annotations": [{"result": results}]}
                continue
            prediction: dict[str, Any] = {"model_version": options.model_version, "result": results}
            if scores := [entity.score for entity in row.entities if entity.score is not None]:
                prediction["score"] = min(scores)
            yield task | {"predictions": [prediction]}

    write_json_array(tasks(), out)


def _label_studio_results(row: Row, options: ExportOptions) -> list[dict[str, Any]]:
    offsets = Offsets(row.text, options.offsets or "codepoint")
    results = []
    for number, entity in enumerate(row.entities):
        start, end = offsets.to_unit(entity.start), offsets.to_unit(entity.end)
        result = {
            "id": f"e{number}",
            "from_name": FROM_NAME,
            "to_name": TO_NAME,
            "type": "labels",
            "value": {"start": start, "end": end, "text": entity.text, "labels": [entity.type]},
        }
        results.append(result if entity.score is None else result | {"score": entity.score})
    return results


def labels_config(types: Sequence[str]) -> str:
    """The labelling interface for tasks of :func:`write_label_studio`: its XML, to paste under Settings."""
    labels = "".join(f"    <Label value={quoteattr(type_)}/>\n" for type_ in types)
    return (
        f'<View>\n  <Labels name="{FROM_NAME}" toName="{TO_NAME}">\n{labels}  </Labels>\n'
        f'  <Text name="{TO_NAME}" value="${FIELD}"/>\n</View>\n'
    )
