"""Published sets become gold: every tag scheme, illegal sequences by conlleval's rule, and the digests the docs give."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_data import whole
from seqeval.metrics.sequence_labeling import get_entities

from ner_batch.cli import main
from ner_batch.errors import UserError
from ner_batch.exchange.files import ImportOptions
from ner_batch.exchange.job import import_gold
from ner_batch.exchange.json_kinds import read_cluener
from ner_batch.exchange.tags import has_end_tags, tagged_spans
from ner_batch.exchange.token_kinds import read_columns, read_w2ner
from ner_batch.io.examples import examples_digest, read_examples

# As https://github.com/leondz/emerging_entities_17 has its development set (CC-BY 4.0), its first two posts cut short.
WNUT = """Stabilized\tO
approach\tO
?\tO

Redondo\tB-location
Beach\tI-location
Blvd\tI-location
.\tO
#\tO
Gardena\tB-location
/\tO
Compton\tB-location
"""


def read(tmp_path, text, columns=None, encoding="utf-8"):
    """The examples of a file of columns, and what was repaired."""
    (tmp_path / "set.txt").write_bytes(text.encode(encoding))
    repairs = Counter()
    return read_columns(str(tmp_path / "set.txt"), columns or ImportOptions("set"), repairs), +repairs


def entities(example):
    return [(entity.text, entity.type) for entity in example.entities]


def test_words_in_tab_columns(tmp_path):
    """WNUT-17: words joined by spaces, a hash sign is a word, sentences end at empty lines."""
    (first, second), repairs = read(tmp_path, WNUT)
    assert (first.id, first.text, first.entities) == ("set-000000", "Stabilized approach ?", ())
    assert second.text == "Redondo Beach Blvd . # Gardena / Compton"
    assert entities(second) == [("Redondo Beach Blvd", "location"), ("Gardena", "location"), ("Compton", "location")]
    assert not repairs


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_characters_in_space_columns(tmp_path, end):
    """Resume: characters without spaces between them, B, M, E and S."""
    lines = ["高 B-NAME", "勇 E-NAME", "： O", "男 S-SEX", "", "\u3000 O", "中 B-CONT", "国 M-CONT", "籍 E-CONT", ""]
    (first, second), repairs = read(tmp_path, end.join(lines), encoding="utf-8-sig")
    assert (first.text, entities(first)) == ("高勇：男", [("高勇", "NAME"), ("男", "SEX")])
    assert (second.text, entities(second)) == ("\u3000中国籍", [("中国籍", "CONT")])
    assert not repairs


def test_numbered_tokens_and_named_columns(tmp_path):
    """Weibo's tokens end in their position; CoNLL-2003 has four columns and lines between documents."""
    weibo = "科0\tB-GPE.NAM\n技1\tI-GPE.NAM\n10\tO\np10\tO\n\ufffd\ufffd0\tO\n"
    (example,), _ = read(tmp_path, weibo, ImportOptions(numbered=True, joiner=""))
    assert (example.text, entities(example)) == ("科技1p\ufffd\ufffd", [("科技", "GPE.NAM")])
    conll = "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\nGerman JJ I-NP I-MISC\n"
    (example,), repairs = read(tmp_path, conll)
    assert (example.text, entities(example)) == ("EU rejects German", [("EU", "ORG"), ("German", "MISC")])
    assert not repairs  # IOB1 begins entities so


@pytest.mark.parametrize(
    ("tags", "spans", "repairs"),
    [
        ("M-A E-A O", [(0, 2, "A")], {"entities without their first tag, kept": 1}),
        ("B-A M-A O", [(0, 2, "A")], {"entities without their last tag, kept": 1}),
        ("B-A E-A E-A", [(0, 2, "A"), (2, 3, "A")], {"entities without their first tag, kept": 1}),
        ("B-A I-B", [(0, 1, "A"), (1, 2, "B")], {"entities without their first tag, kept": 1}),
        ("B-A B-A I-A", [(0, 1, "A"), (1, 3, "A")], {}),
        ("U-A B-A L-A", [(0, 1, "A"), (1, 3, "A")], {}),
        ("B I O", [(0, 2, "ENTITY")], {}),
    ],
)
def test_sequences_of_tags(tags, spans, repairs):
    """Legal ones of several schemes, and what becomes of illegal ones."""
    counted = Counter()
    assert tagged_spans(tags.split(), counted, has_ends=has_end_tags([tags.split()])) == spans
    assert +counted == repairs


@given(st.lists(st.sampled_from(["O", *(f"{p}-{t}" for p in "BIES" for t in ("PER", "LOC"))]), max_size=12))
def test_any_sequence_is_read_as_seqeval_reads_it(tags):
    """Legal or not: the same spans as conlleval's rule in seqeval's hands, which says them with inclusive ends."""
    assert tagged_spans(tags, Counter(), has_ends=True) == [
        (start, end + 1, type_) for type_, start, end in get_entities(tags)
    ]


def test_w2ner_and_cluener(tmp_path):
    """Token indexes and inclusive character offsets; gaps and rows without labels are left out, and told."""
    row = {"sentence": ["IL-2", "gene", "of", "T", "cells"], "ner": [{"index": [0, 1], "type": "DNA"}]}
    row["ner"] += [{"index": [0], "type": "protein"}, {"index": [1, 4], "type": "cell"}]
    (tmp_path / "genia.json").write_text(json.dumps([row]))
    repairs = Counter()
    (example,) = read_w2ner(str(tmp_path / "genia.json"), ImportOptions("g"), repairs)
    assert (example.text, entities(example)) == ("IL-2 gene of T cells", [("IL-2", "protein"), ("IL-2 gene", "DNA")])
    assert repairs == {"entities with gaps, left out": 1}
    lines = [{"text": "浙商银行", "label": {"company": {"浙商银行": [[0, 3]]}}}, {"id": 0, "text": "x"}]
    (tmp_path / "clue.json").write_text("\n".join(map(json.dumps, lines)))
    (example,) = read_cluener(str(tmp_path / "clue.json"), ImportOptions("c"), repairs)
    assert entities(example) == [("浙商银行", "company")]
    assert repairs["rows without label, left out"] == 1


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("EU B-ORG\rrejects O\r\rPeter B-PER\r", ["EU rejects", "Peter"]),
        ("# sent_id = 1\n# text = vitamin B\nEU\tB-ORG\n#\tO\n", ["EU #"]),
        ("# id 5 domain=en\nEU B-ORG\n\n# id 6 domain=en\nUK B-LOC\n", ["EU", "UK"]),
        ("#\tsource 12\n1\tEU\tB-ORG\n", ["EU"]),
    ],
)
def test_lines_that_are_no_tokens(tmp_path, content, texts):
    """Comments of CoNLL-U, MultiCoNER and GermEval, and line ends of any system."""
    token = 1 if content.startswith("#\t") else 0
    examples, _ = read(tmp_path, content, ImportOptions(token_column=token))
    assert [example.text for example in examples] == texts


def test_what_is_counted_is_counted_by_the_file(tmp_path):
    """A scheme with ends is known by the whole file, and so is one without beginnings."""
    _, counts = read(tmp_path, "A S-X\n\nB B-X\nC O\n")
    assert counts == {"entities without their last tag, kept": 1}
    _, counts = read(tmp_path, "A I-X\nB O\n\nC B-X\nD B-X\n")
    assert counts == {"entities without their first tag, kept": 1}


W2NER, CLUENER = '{"sentence": ["a", "b"], "ner": [%s]}', '{"text": "abc", "label": %s}'


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("columns", "EU B-ORG\nrejects\n", "line 2: 'rejects' has no tag"),
        ("columns", "EU NNP\n", "no tag like O, B-ORG"),
        ("columns", "[" * 500_000, r"line 1: .{60,70} \.\.\. has no tag"),
        ("columns", " EU NNP B-ORG\n", "line 1: ' EU NNP B-ORG' has no token in column 0"),
        ("columns", "\u3000\tB-ORG\n", "sentence 1: .* white space alone"),
        ("columns", "\n\n", "no annotated text in it"),
        ("w2ner", '{"tokens": []}', "line 1: sentence: missing"),
        ("w2ner", W2NER % '{"index": [2], "type": "T"}', "is outside of its 2 tokens"),
        ("w2ner", W2NER % '{"indices": [1]}', "ner.0.index: missing"),
        *(
            ("w2ner", W2NER % f'{{"index": {i}, "type": "T"}}', "ner.0.index")
            for i in ("1", "[0.0]", '["0"]', "[-1]", "[]")
        ),
        ("w2ner", W2NER % '{"index": [0], "type": null}', "ner.0.type"),
        ("w2ner", '{"sentence": ["a\\ud800"], "ner": []}', "half of a surrogate pair"),
        ("w2ner", "[1]", "row 0: "),
        ("w2ner", "[" * 100_000, "not JSON"),
        ("cluener", CLUENER % '{"T": {"b": [[0, 0]]}}', "reads 'a' in the text, not 'b'"),
        ("cluener", CLUENER % '{"T": {"abc": [[-3, 2]]}}', "line 1: label.T.abc.0.0"),
        ("cluener", CLUENER % '{"T": {"abc": [[0, 9]]}}', "reads None"),
        ("cluener", CLUENER % '{"T": ["b"]}', "line 1: label.T"),
        ("cluener", CLUENER % '{"T\\nerror: x": {"abc": [[0, 2]]}}', "cannot be printed"),
        ("cluener", '{"text": "a", "label": {}}\n\n{', "line 3: not JSON"),
    ],
)
def test_files_of_another_kind(tmp_path, kind, content, message):
    """One short line with the place; nothing is written."""
    (tmp_path / "set").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        import_gold(kind, str(tmp_path / "set"), str(tmp_path / "gold.parquet"), ImportOptions("set"))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    assert not (tmp_path / "gold.parquet").exists()


def test_places_that_cannot_be_read_or_written(tmp_path):
    """No such file, a folder, bytes that are not UTF-8, an output below a file, one column for two: one line each."""
    (tmp_path / "bytes").write_bytes(b"EU O\n\xff\xfe O\n")
    (tmp_path / "set").write_text(WNUT)
    out = str(tmp_path / "gold.parquet")
    for file, to, columns, message in (
        ("absent", out, ImportOptions(), "absent"),
        (".", out, ImportOptions(), "directory"),
        ("bytes", out, ImportOptions(), "line 2: not UTF-8"),
        ("set", f"{tmp_path}/set/gold.parquet", ImportOptions(), "set"),
        ("set", str(tmp_path), ImportOptions(), "is there already"),
        ("set", out, ImportOptions(token_column=-1), "same column"),
        ("set", out, ImportOptions(token_column=7), "no tag"),
    ):
        with pytest.raises(UserError, match=message) as error:
            import_gold("columns", str(tmp_path / file), to, columns)
        assert "\n" not in str(error.value)
    assert not Path(out).exists()


def test_the_command(tmp_path, capsys):
    """Counts and the digest of what was written; never over a file that is there."""
    (tmp_path / "dev.conll").write_text(WNUT)
    arguments = ["import", "columns", str(tmp_path / "dev.conll"), str(tmp_path / "dev.parquet")]
    with pytest.raises(SystemExit) as end:
        main(*arguments)
    assert end.value.code == 0
    examples = read_examples(str(tmp_path / "dev.parquet"))
    output = capsys.readouterr().out
    assert "2 texts, 3 entities: location 3" in output
    assert f"digest {examples_digest(examples)}" in output
    for wrong in (arguments, ["import", "conll", *arguments[2:]]):
        with pytest.raises(SystemExit) as end:
            main(*wrong)
        assert end.value.code == 2


@pytest.mark.parametrize(("set_name", "scheme", "separator"), [("resume", "BMES", " "), ("wnut17", "BIO", "\t")])
def test_whole_sets_come_back(tmp_path, set_name, scheme, separator):
    """Gold written as its authors publish it and read again is the same, to the digest."""
    gold = read_examples(str(whole(f"{set_name}/test.parquet")))
    lines = []
    for example in gold:
        joiner = "" if scheme == "BMES" else " "
        tokens = list(example.text) if scheme == "BMES" else example.text.split(" ")
        tags, start = [], 0
        for token in tokens:
            end = start + len(token)
            entity = next((e for e in example.entities if e.start <= start and end <= e.end), None)
            if entity is None:
                prefix = "O"
            elif scheme == "BIO":
                prefix = "B" if start == entity.start else "I"
            else:
                first, last = start == entity.start, end == entity.end
                prefix = {(True, True): "S", (True, False): "B", (False, False): "M", (False, True): "E"}[first, last]
            tags.append(f"{prefix}-{entity.type}" if entity else "O")
            start = end + len(joiner)
        lines += [f"{token}{separator}{tag}" for token, tag in zip(tokens, tags, strict=True)] + [""]
    (tmp_path / "set").write_text("\n".join(lines))
    repairs = Counter()
    examples = read_columns(str(tmp_path / "set"), ImportOptions(f"{set_name}-test"), repairs)
    assert not +repairs
    assert examples_digest(examples) == examples_digest(gold)
