"""What is exported and imported again is the same, for all that each kind can say; libraries of the tools agree."""

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface
from seqeval.metrics.sequence_labeling import get_entities
from strategies import annotated

from ner_batch.data import Entity, Status
from ner_batch.exchange import json_kinds
from ner_batch.exchange.files import ExportOptions, ImportOptions, Offsets
from ner_batch.exchange.kinds import KINDS, READABLE
from ner_batch.exchange.rows import Row
from ner_batch.exchange.tags import HEADLESS, OPEN, SCHEMES, flat, tags_of, tokenize

BY_OFFSETS = ("spacy", "spacy-jsonl", "prodigy", "doccano", "label-studio", "brat", "langextract", "cluener")
BY_TOKENS = ("columns", "hf", "w2ner", "mrc")
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def rows(draw, status=None):
    """Texts with spans that begin and end with visible characters, sorted, each once."""
    texts = draw(st.lists(annotated(), min_size=1, max_size=3))
    names = draw(st.lists(ids, min_size=len(texts), max_size=len(texts), unique_by=str.casefold))
    made = []
    for id_, (text, entities) in zip(names, texts, strict=True):
        kept = {e for e in entities if e.text.strip() == e.text and not (set(text) & {"\ud800"})}
        score = {} if status is None else {"score": draw(st.sampled_from([0.25, 1.0]))}
        scored = [Entity(e.start, e.end, e.type, e.text, **score) for e in kept]
        made.append(Row(id_, text, tuple(sorted(scored, key=lambda e: (e.start, e.end, e.type))), status))
    return made


def round_trip(kind, given_rows, options=None, joiner=None, **more):
    """The examples that come back, and what was counted on both ways."""
    counts = Counter()
    with TemporaryDirectory() as folder:
        out = Path(folder) / "file"
        if kind == "brat":
            out.mkdir()
        KINDS[kind].write(given_rows, out, options or ExportOptions(), counts)
        return KINDS[kind].read(str(out), ImportOptions(joiner=joiner, **more), counts), counts


def plain(example):
    return example.id, example.text, [(e.start, e.end, e.type, e.text) for e in example.entities]


def test_every_kind_is_tried():
    """A new kind is added to a list above."""
    assert {*BY_OFFSETS, *BY_TOKENS} == set(READABLE)


@pytest.mark.parametrize("kind", BY_OFFSETS)
@settings(max_examples=15, deadline=None)
@given(rows())
def test_kinds_with_offsets_say_everything(kind, given_rows):
    """Ids, texts and entities, nested ones, astral characters, line ends and bidirectional text."""
    examples, _ = round_trip(kind, given_rows)
    assert sorted(map(plain, examples)) == sorted(map(plain, given_rows))


@pytest.mark.parametrize("unit", ["codepoint", "utf-16"])
@pytest.mark.parametrize("kind", ["spacy-jsonl", "prodigy", "doccano", "label-studio", "brat", "langextract"])
def test_either_unit(kind, unit):
    """Offsets that are written in a unit are read in it, and JavaScript's are those of UTF-16."""
    text = "👩🏻‍🚒 e\u0301 met Zoé 𠮷 in שלום"
    row = Row(
        "a",
        text,
        (Entity(text.index("𠮷"), text.index("𠮷") + 1, "X", "𠮷"), Entity(len(text) - 4, len(text), "Y", "שלום")),
    )
    examples, _ = round_trip(kind, [row], ExportOptions(offsets=unit), offsets=unit)
    assert plain(examples[0]) == plain(row)
    for position in range(len(text) + 1):
        offset = Offsets(text, "utf-16").to_unit(position)
        assert text.encode("utf-16-le")[: 2 * offset].decode("utf-16-le") == text[:position]
        assert Offsets(text, "utf-16").from_unit(offset) == position
    assert Offsets(text, "utf-16").from_unit(1) is None
    assert Offsets(text, "utf-16").from_unit(10**400) is None


@pytest.mark.parametrize("kind", BY_TOKENS)
@settings(max_examples=15, deadline=None)
@given(rows(), st.sampled_from(sorted(SCHEMES)))
def test_kinds_with_tokens_say_characters_exactly(kind, given_rows, scheme):
    """Cut at every code point, what comes back joined by nothing is the text: but for what the kind says it changes."""
    types = tuple(sorted({e.type for row in given_rows for e in row.entities})) or ("X",)
    options = ExportOptions(tokens="characters", scheme=scheme, types=types)
    examples, counts = round_trip(kind, given_rows, options, joiner="")
    expected = []
    for row in given_rows:
        entities = row.entities if kind in ("w2ner", "mrc") else flat(row.entities, Counter())
        text = row.text
        if kind == "columns":
            text = text.translate(str.maketrans("\t\n\r", "   "))
            entities = [Entity(e.start, e.end, e.type, text[e.start : e.end]) for e in entities]
        if kind == "mrc":
            places = [sum(not c.isspace() for c in text[:position]) for position in range(len(text) + 1)]
            text = "".join(c for c in text if not c.isspace())
            entities = [
                Entity(places[e.start], places[e.end], e.type, text[places[e.start] : places[e.end]]) for e in entities
            ]
        expected.append((text, sorted((e.start, e.end, e.type, e.text) for e in entities)))
    assert [plain(example)[1:] for example in examples] == expected
    assert not counts[HEADLESS] + counts[OPEN]


@pytest.mark.parametrize("kind", BY_TOKENS)
@pytest.mark.parametrize("tokens", ["words", "space"])
@settings(max_examples=10, deadline=None)
@given(rows())
def test_kinds_with_tokens_keep_every_visible_character(kind, tokens, given_rows):
    """Whatever the tokens: white space aside the texts come back, and so do the entities."""

    def visible(text, entities):
        return "".join(text.split()), Counter((e.type, "".join(e.text.split())) for e in entities)

    types = tuple(sorted({e.type for row in given_rows for e in row.entities})) or ("X",)
    examples, _ = round_trip(kind, given_rows, ExportOptions(tokens=tokens, types=types), joiner=" ")
    expected = []
    for row in given_rows:
        entities = row.entities if kind in ("w2ner", "mrc") else flat(row.entities, Counter())
        expected.append(visible(row.text, entities))
    assert [visible(example.text, example.entities) for example in examples] == expected


@settings(max_examples=20, deadline=None)
@given(rows())
def test_tags_as_seqeval_reads_them(given_rows):
    """The tags of a text, in two schemes, are its entities to seqeval, which ends them inclusively."""
    for row in given_rows:
        entities = flat(row.entities, Counter())
        places, spans = tokenize(row.text, entities, "words", Counter())
        for scheme in ("BIO", "BIOES"):
            read = get_entities(tags_of(len(places), spans, scheme))
            assert [(first, last + 1, type_) for type_, first, last in read] == spans
        for entity, (first, after, _) in zip(entities, spans, strict=True):
            assert row.text[places[first][0] : places[after - 1][1]] == entity.text


@settings(max_examples=20, deadline=None)
@given(rows())
def test_flat_keeps_the_longest_as_spacy_does(given_rows):
    """No two of the kept overlap, and they are those that spaCy's filter_spans keeps."""
    from spacy.tokens import Doc
    from spacy.util import filter_spans
    from spacy.vocab import Vocab

    vocab = Vocab()
    for row in given_rows:
        doc = Doc(vocab, words=list(row.text), spaces=[False] * len(row.text))
        spans = [doc.char_span(e.start, e.end, e.type) for e in row.entities]
        kept = [(s.start_char, s.end_char) for s in filter_spans(spans)]
        assert [(e.start, e.end) for e in flat(row.entities, Counter())] == kept


def test_a_docbin_as_spacy_reads_it(tmp_path):
    """Its ents are ours, whole tokens, in the tags that spaCy makes of offsets; nested ones are spans."""
    import spacy
    from spacy.tokens import DocBin
    from spacy.training import offsets_to_biluo_tags

    text = "Dr. Müller-Lüdenscheidt met IL-2genes in New York (USA)."
    spans = [("Müller", "PER"), ("IL-2", "GENE"), ("New York", "LOC"), ("York", "LOC"), ("USA", "LOC")]
    entities = tuple(Entity(text.index(s), text.index(s) + len(s), t, s, 0.5) for s, t in spans)
    counts = Counter()
    KINDS["spacy"].write([Row("7", text, entities)], tmp_path / "a.spacy", ExportOptions(language="en"), counts)
    (doc,) = DocBin().from_disk(tmp_path / "a.spacy").get_docs(spacy.blank("en").vocab)
    assert (doc.text, doc.user_data["id"]) == (text, "7")
    assert [(e.text, e.label_) for e in doc.ents] == [span for span in spans if span[0] != "York"]
    assert [(s.text, s.label_) for s in doc.spans["sc"]] == spans
    flat_entities = flat(entities, Counter())
    tags = offsets_to_biluo_tags(doc, [(e.start, e.end, e.type) for e in flat_entities])
    numbers = {token.idx: token.i for token in doc}
    ends = {token.idx + len(token): token.i + 1 for token in doc}
    assert tags == tags_of(len(doc), [(numbers[e.start], ends[e.end], e.type) for e in flat_entities], "BILOU")
    assert counts["entities inside or across others, in spans sc alone"] == 1
    assert counts["scores of entities, left out"] == 5


@settings(max_examples=10, deadline=None)
@given(rows(Status.OK))
def test_pre_annotations_are_valid_to_label_studio(given_rows):
    """Its SDK accepts tasks and predictions under the config that is written, and its JSON-MIN is read back alike."""
    types = sorted({e.type for row in given_rows for e in row.entities} | {'A & "B"'})
    config = json_kinds.labels_config(types)
    interface = LabelInterface(config)
    interface.validate()
    with TemporaryDirectory() as folder:
        out = Path(folder) / "tasks.json"
        KINDS["label-studio"].write(given_rows, out, ExportOptions(model_version="m"), Counter())
        tasks = json.loads(out.read_text(encoding="utf-8"))
        for row, task in zip(given_rows, tasks, strict=True):
            (prediction,) = task["predictions"]
            assert interface.validate_task({"data": task["data"]})
            assert interface.validate_prediction(prediction, return_errors=True) == []
            assert prediction.get("score") == min((e.score for e in row.entities), default=None)
        read = KINDS["label-studio"].read(str(out), ImportOptions(predictions=True), Counter())
        assert list(map(plain, read)) == list(map(plain, given_rows))
        # A person accepts them: what Label Studio then exports as JSON-MIN, by its own converter.
        for number, task in enumerate(tasks):
            result = task.pop("predictions")[0]["result"]
            task |= {"id": number, "annotations": [{"id": 1, "completed_by": {"email": "a@b.c"}, "result": result}]}
        out.write_text(json.dumps(tasks))
        Converter(config, folder).convert_to_json_min(str(out), folder, is_dir=False)
        read = KINDS["label-studio"].read(str(Path(folder) / "result.json"), ImportOptions(), Counter())
        assert sorted(map(plain, read)) == sorted(map(plain, given_rows))


def test_hugging_face_reads_the_parquet(tmp_path):
    """`datasets` gives tags as classes whose names are ours; tags that are numbers come back by these names."""
    from datasets import load_dataset

    row = Row("a", "Ana lives in Old York", (Entity(0, 3, "PER", "Ana"), Entity(13, 21, "LOC", "Old York")))
    options = ExportOptions(parquet=True, types=("LOC", "PER"))
    KINDS["hf"].write([row], tmp_path / "a.parquet", options, Counter())
    data = load_dataset("parquet", data_files=str(tmp_path / "a.parquet"), split="train", cache_dir=str(tmp_path / "c"))
    names = data.features["ner_tags"].feature.names
    assert [names[tag] for tag in data[0]["ner_tags"]] == ["B-PER", "O", "O", "B-LOC", "I-LOC"]
    data.to_parquet(str(tmp_path / "b.parquet"))
    for file in ("a.parquet", "b.parquet"):
        (example,) = KINDS["hf"].read(str(tmp_path / file), ImportOptions(), Counter())
        assert plain(example) == plain(row)


def test_tags_that_are_numbers(tmp_path):
    """Names are an option where the file has none; without them, and outside of them, a number is refused."""
    table = pa.table({"tokens": [["a", "b"]], "ner_tags": [[1, 0]]})
    pq.write_table(table, tmp_path / "a.parquet")
    (example,) = KINDS["hf"].read(
        str(tmp_path / "a.parquet"), ImportOptions(tag_names=("O", "B-X"), joiner=""), Counter()
    )
    assert plain(example) == ("gold-000000", "ab", [(0, 1, "X", "a")])
    for names, message in (((), "does not name its tags"), (("O",), "there are 1 names"), (("O", "?"), "no tag")):
        with pytest.raises(ValueError, match=message):
            KINDS["hf"].read(str(tmp_path / "a.parquet"), ImportOptions(tag_names=names), Counter())
