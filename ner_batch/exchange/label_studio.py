r"""Label Studio's tasks: annotations in, gold as annotations and predictions as pre-annotations out, with the config.

Its editor counts code points since its frontend's pull request 308 of 2021, and JavaScript's UTF-16 units before;
``--offsets utf-16`` reads what older releases saved. Either is checked against the words that a result states. A
carriage return counts as a character of its own, as its documentation of the Text tag says; results in which ``\r\n``
is one all the same (label-studio#539, #4929) are recognised by their words, and counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from pydantic import BaseModel, StrictInt, StrictStr

from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.exchange.rows import Row
from ner_batch.exchange.source import OFFSET_UNITS, ImportOptions, Label, Offsets, checked, example, read_rows, short
from ner_batch.exchange.writing import ExportOptions, write_json_array

FROM_NAME, TO_NAME, FIELD, ID = "label", "text", "text", "doc_id"
_COLLAPSED = "results that counted CR LF as one character, moved to where their words stand"
_WHITE = re.compile(r"(?:\s|\\n)+")  # its editor writes \n for a line break within a result's words


class _Value(BaseModel):
    start: StrictInt
    end: StrictInt
    text: StrictStr | None = None
    labels: list[Label] = []


class _Task(BaseModel):
    data: dict[str, Any] | None = None
    annotations: list[dict[str, Any]] | None = None
    completions: list[dict[str, Any]] | None = None  # what annotations were called before 1.0
    predictions: list[dict[str, Any]] | None = None
    id: Any = None
    model_config = {"extra": "allow"}


def read_label_studio(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:
    """Tasks of an export as JSON or JSON-MIN.

    Of a task the first annotation counts that was not cancelled (with ``options.predictions`` the first prediction);
    more of them, tasks without one, and results that are no labels of a text are left out, and counted. The id is
    ``doc_id`` of the data, which an export from here has, else the task's. JSON-MIN has a task's own fields at the top
    and labels under the name of their control.

    Raises:
        UserError: unreadable, no text, a span that is outside of it or reads otherwise than the result says.
    """
    examples = []
    for number, (place, task) in enumerate(read_rows(uri, _Task)):
        data = task.data if task.data is not None else task.model_extra or {}
        text = data.get(options.text_field)
        if not isinstance(text, str):
            raise UserError(f"{place}: no text in the field {options.text_field!r}: name the field (--text-field)")
        values = _minimal(data, counts) if task.data is None else _results(task, options, counts, place)
        if values is None:
            continue
        spans: list[dict[str, Any]] = []
        for value in values:
            span = checked(_Value, value, place)
            start, end = _place(text, span, options, place, counts)
            spans += [{"start": start, "end": end, "type": label} for label in span.labels]
            counts["results without a label, left out"] += not span.labels
        examples.append(example(options.id_of(number, data.get(ID), task.id), text, spans, place))
    return examples


def _results(task: _Task, options: ImportOptions, counts: Counter[str], place: str) -> list[Mapping[str, Any]] | None:
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


def _minimal(data: Mapping[str, Any], counts: Counter[str]) -> list[Mapping[str, Any]] | None:
    """The values in a row of JSON-MIN: what has start, end and labels, whatever its control is called."""
    if "annotation_id" not in data and "annotator" not in data:
        counts["tasks without annotations, left out"] += 1
        return None
    objects = [item for value in data.values() if isinstance(value, list) for item in value if isinstance(item, dict)]
    return [item for item in objects if {"start", "end", "labels"} <= {*item}]


def _place(text: str, span: _Value, options: ImportOptions, place: str, counts: Counter[str]) -> tuple[int, int]:
    """Where a result stands, in code points."""
    unit = options.offsets or "codepoint"
    offsets = Offsets(text, unit)
    start, end = offsets.from_unit(span.start), offsets.from_unit(span.end)
    if start is not None and end is not None and _reads(text[start:end], span.text):
        return start, end
    if span.text is not None and "\r\n" in text:
        short_text = text.replace("\r\n", "\n")
        offsets = Offsets(short_text, unit)
        start, end = offsets.from_unit(span.start), offsets.from_unit(span.end)
        if start is not None and end is not None and _reads(short_text[start:end], span.text):
            # Where each character of the short text stands in the long one.
            widths = (2 if pair == "\r\n" else 1 for pair in re.findall(r"\r\n|.", text, re.DOTALL))
            places = list(accumulate(widths, initial=0))
            counts[_COLLAPSED] += 1
            return places[start], places[end]
    (other,) = (candidate for candidate in OFFSET_UNITS if candidate != unit)
    offsets = Offsets(text, other)
    start, end = offsets.from_unit(span.start), offsets.from_unit(span.end)
    fits = span.text is not None and None not in (start, end) and _reads(text[start:end], span.text)
    remedy = f"it does in the unit {other} (--offsets {other})" if fits else "correct it"
    raise UserError(
        f"{place}: result [{short(span.start)}, {short(span.end)}) is no span of its text that reads "
        f"{short(span.text)}: {remedy}"
    )


def _reads(surface: str, stated: str | None) -> bool:
    """Whether a span reads as its result says, white space aside, which browsers change."""
    return stated is None or surface == stated or _WHITE.sub("", surface) == _WHITE.sub("", stated)


def write_label_studio(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """Tasks as JSON: gold as annotations, which count as done; predictions as pre-annotations with scores.

    A prediction's own score is the lowest of its entities', so that a project sorted by it begins with the doubtful.
    """

    def tasks() -> Iterator[dict[str, Any]]:
        for row in rows:
            counts["texts with carriage returns, which its editor shows as line breaks"] += "\r" in row.text
            results = _results_of(row, options)
            task: dict[str, Any] = {"data": {FIELD: row.text, ID: row.id}}
            if row.status is None:
                yield task | {"annotations": [{"result": results}]}
                continue
            prediction: dict[str, Any] = {"model_version": options.model_version, "result": results}
            if scores := [entity.score for entity in row.entities if entity.score is not None]:
                prediction["score"] = min(scores)
            yield task | {"predictions": [prediction]}

    write_json_array(tasks(), out)


def _results_of(row: Row, options: ExportOptions) -> list[dict[str, Any]]:
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
