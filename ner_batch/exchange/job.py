"""The two jobs: a file of another tool becomes gold, and gold or an extraction becomes files of another tool."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ner_batch.errors import UserError
from ner_batch.exchange import json_kinds, select, span_kinds
from ner_batch.exchange.files import ExportOptions, ImportOptions, refuse_existing, short, whole
from ner_batch.exchange.kinds import KINDS
from ner_batch.exchange.rows import Row, Rows
from ner_batch.exchange.select import Selection
from ner_batch.io import storage, tables
from ner_batch.io.examples import examples_digest, examples_table
from ner_batch.io.listing import kind_of

SUFFIXES = {"spacy": (span_kinds.SPACY_SUFFIX,), "mentions": (".parquet", ".parq", ".pq")}


def import_gold(kind: str, uri: str, out: str, options: ImportOptions) -> list[str]:
    """Write the examples of a file as one Parquet file, whole or not at all; lines that say what was read and decided.

    ``kind`` is one of :data:`ner_batch.exchange.kinds.READABLE`. Raises UserError where the file cannot be read, has no
    examples or an id twice, and where there is a file at ``out`` already, none can be written, or its name is one of
    another kind of file.
    """
    read = KINDS[kind].read
    assert read
    refuse_existing(out)
    if kind_of(out) not in {None, "parquet"}:
        raise UserError(f"{out}: gold is written as Parquet, and read by the end of its name: let it end in .parquet")
    counts: Counter[str] = Counter()
    examples = read(uri, options, counts)
    if not examples:
        left_out = "".join(f"; {line}" for line in _count_lines(counts))
        raise UserError(f"{uri}: no annotated text in it: is this the file, and of the kind {kind}?{left_out}")
    numbers: dict[str, int] = {}
    for number, example in enumerate(examples):
        if (first := numbers.setdefault(example.id, number)) != number:
            raise UserError(
                f"{uri}: texts {first} and {number} (from 0) have the id {short(example.id)}: correct it, or let "
                "ids be numbered (--renumber)"
            )
    with storage.explained(out):
        tables.write_table(out, examples_table(examples), {})
    types = Counter(entity.type for example in examples for entity in example.entities)
    return [*_count_lines(counts), f"{out}: {_summary(len(examples), types)}; digest {examples_digest(examples)}"]


def export(kind: str, rows: Rows, out: str, options: ExportOptions, selection: Selection | None = None) -> list[str]:
    """Write rows as a file of a kind, or a folder of files, whole or not at all; lines that say what became of them.

    Rows pass one unit at a time, so memory does not depend on how many there are; with a ``selection`` the rows that it
    takes are held. Of ``spacy`` an ``out`` that ends in .spacy is one file, which spaCy holds in memory, and else a
    folder of files; of ``hf`` one that ends in .parquet is Parquet. Beside the file of ``label-studio`` lies its
    labelling config.

    Raises:
        UserError: something is at ``out``, it cannot be written, a row is wrong, or no row is left.
    """
    config_uri = _check_places(kind, out)
    if kind == "mentions":  # which say of each entity whether it was rejected, and of which task it is
        rows = replace(rows, tasks_may_mix=True, keep_rejected=True)
    counts: Counter[str] = Counter()
    types: Counter[str] = Counter()
    lines = list(rows.report)
    if selection is None:
        source: Iterable[Row] = rows.read(counts)
    else:
        selected, more = select.select(rows, selection, counts)
        source, lines = selected, [*lines, *more]
    options = replace(options, parquet=out.endswith(SUFFIXES["mentions"]), types=rows.task_types)
    if KINDS[kind].types or (kind == "hf" and options.parquet):
        types_in_rows = rows.types() if selection is None else {e.type for row in selected for e in row.entities}
        options = replace(options, types=_all_types(rows, types_in_rows))
    texts = 0

    def counted() -> Iterator[Row]:
        nonlocal texts
        for row in source:
            texts += 1
            types.update(entity.type for entity in row.entities)
            yield row

    is_folder = kind == "brat" or (kind == "spacy" and not out.endswith(SUFFIXES[kind]))
    with whole(out, folder=is_folder) as path:
        KINDS[kind].write(counted(), path, options, counts)
        if not texts:
            left_out = "".join(f"; {line}" for line in _count_lines(counts))
            raise UserError(f"nothing to export: no row is left{left_out}")
    written = []
    if config_uri:
        try:
            with whole(config_uri) as path:
                path.write_text(json_kinds.labels_config(_all_types(rows, types)), encoding="utf-8")
        except BaseException:  # tasks without their config are half of what was asked for
            storage.remove(out)
            raise
        written.append(f"{config_uri}: the labelling config")
    return [*lines, *_count_lines(counts), *written, f"{out}: {_summary(texts, types)}"]


def _all_types(rows: Rows, types_in_rows: Iterable[str]) -> tuple[str, ...]:
    """The task's types, those included that the model has missed: who corrects it needs them. Then others."""
    return (*rows.task_types, *sorted({*types_in_rows} - {*rows.task_types}))


def _check_places(kind: str, out: str) -> str | None:
    """Where something is written beside ``out``: Label Studio's config; None for other kinds.

    Raises UserError where something is at one of the places, or the name of ``out`` does not suit the kind.
    """
    config_uri = f"{posixpath.splitext(out)[0]}.xml" if kind == "label-studio" else None
    if out == config_uri:
        raise UserError(f"{out}: this name is taken for the labelling config: let it end in .json")
    if kind == "mentions" and not out.endswith(SUFFIXES[kind]):
        raise UserError(f"{out}: mentions are written as Parquet: let its name end in .parquet")
    for uri in (out, config_uri):
        if uri:
            refuse_existing(uri)
    return config_uri


def _summary(texts: int, types: Counter[str]) -> str:
    listed = ", ".join(f"{type_} {count:,}" for type_, count in sorted(types.items()))
    return f"{texts:,} texts, {types.total():,} entities: {listed or 'none'}"


def _count_lines(counts: Counter[str]) -> list[str]:
    return [f"{count:,} {words}" for words, count in counts.items() if count]
