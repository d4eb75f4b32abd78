"""spaCy's DocBin (`.spacy`), the training corpus of `spacy train`; needs the extra `spacy`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ner_batch.data import Example
from ner_batch.errors import UserError, first_line, require_extra
from ner_batch.exchange.rows import Row
from ner_batch.exchange.source import ImportOptions, example
from ner_batch.exchange.tags import CUT, flat
from ner_batch.exchange.writing import ExportOptions, batched
from ner_batch.io import storage

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

SPANS_KEY = "sc"  # of spaCy's span categorizer
SUFFIX = ".spacy"
_ID = "id"
_PART_TEXTS = 10_000  # in a file of a folder: a DocBin lies in memory as a whole


def read_docbin(uri: str, options: ImportOptions, counts: Counter[str]) -> list[Example]:
    """The documents of a DocBin: of a document that has spans under ``options.spans_key`` these, else its ``ents``.

    The id is what ``user_data`` has as ``id``. Raises UserError where the file is none, or the extra is not installed.
    """
    require_extra("spacy", "spacy", purpose="the kind spacy")
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
        id_ = options.id_of(number, document.user_data.get(_ID))
        examples.append(example(id_, document.text, edges, place))
    return examples


def write_docbin(rows: Iterable[Row], out: Path, options: ExportOptions, counts: Counter[str]) -> None:
    """Documents with all entities as spans ``sc``, and as ``ents`` those that do not overlap, the longest first.

    Tokens are the language's, cut where an entity begins or ends inside of one. Where ``out`` is a folder it gets a
    file for each 10,000 texts. No scores.

    Raises:
        UserError: spaCy has no such language, or is not installed.
    """
    require_extra("spacy", "spacy", purpose="the kind spacy")
    import spacy
    from spacy.tokens import DocBin

    try:
        language = spacy.blank(options.language)
    except ImportError as error:
        raise UserError(f"--language {options.language}: spaCy cannot load it ({first_line(error)})") from None
    documents = (_document(language, row, counts) for row in rows)
    if not out.is_dir():
        DocBin(store_user_data=True, docs=documents).to_disk(out)
        return
    for number, part in enumerate(batched(documents, _PART_TEXTS)):
        DocBin(store_user_data=True, docs=part).to_disk(out / f"part-{number:05d}{SUFFIX}")


def _document(language: Language, row: Row, counts: Counter[str]) -> Doc:
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
    kept = flat(row.entities, Counter())
    document.set_ents(filter_spans([document.char_span(e.start, e.end, e.type) for e in kept]))
    counts["entities inside or across others, in spans sc alone"] += len(row.entities) - len(kept)
    counts["scores of entities, left out"] += sum(entity.score is not None for entity in row.entities)
    document.user_data[_ID] = row.id
    return document
