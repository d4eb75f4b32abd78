"""The synthetic gold set, the raw corpus, and the tiny model's tokeniser and files."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ner_batch.data import EXAMPLES, Example
from ner_batch.demo import corpus, hostile, lexicon, patterns, recipe, tokenizer
from ner_batch.io.examples import example_from_row

SMALL = corpus.Gold(train=600, dev=60, test=200)
WORDS = tokenizer.build()


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Example]]:
    return corpus.gold(SMALL)


def test_the_same_seed_gives_the_same_texts(splits: dict[str, list[Example]]) -> None:
    """Generation depends on the seed alone; another seed gives another set."""
    assert corpus.gold(SMALL) == splits
    assert corpus.gold(corpus.Gold(train=600, dev=60, test=200, seed=1)) != splits


def test_spans_read_what_they_say(splits: dict[str, list[Example]]) -> None:
    """Every entity is its span of the text, has a known type and clean edges, and spans do not overlap."""
    for example in (x for split in splits.values() for x in split):
        last = 0
        for entity in example.entities:
            assert example.text[entity.start : entity.end] == entity.text == entity.text.strip() != ""
            assert entity.type in lexicon.TYPES and entity.start >= last
            last = entity.end


def test_held_out_names_are_new(splits: dict[str, list[Example]]) -> None:
    """No surface of dev or test is a surface of train, nor one of test a surface of dev, in any letter case."""
    folded = {name: {s.casefold() for s in corpus.surfaces(split)} for name, split in splits.items()}
    assert not folded["train"] & (folded["dev"] | folded["test"])
    assert not folded["dev"] & folded["test"]


def test_held_out_patterns_are_new() -> None:
    """Training, dev and test have patterns of their own; those of dev and of test number ten and more each."""
    for language in corpus.LANGUAGES:
        train, dev, test = (set(x[language]) for x in (patterns.TRAIN, patterns.HELD["dev"], patterns.HELD["test"]))
        assert not train & dev
        assert not test & (train | dev)
        assert min(len(dev), len(test)) >= 10


def test_variety(splits: dict[str, list[Example]]) -> None:
    """Both languages in equal parts, every type in both, texts without entities, paragraphs, and names said twice."""
    train = splits["train"]
    for language in corpus.LANGUAGES:
        part = [x for x in train if f"-{language}-" in x.id]
        assert len(part) == len(train) // 2
        assert {e.type for x in part for e in x.entities} == set(lexicon.TYPES)
        assert any(not x.entities for x in part)
        assert any(len({e.text for e in x.entities}) < len(x.entities) for x in part)
        assert any(len(x.entities) > 8 for x in part)


def test_gold_files_can_be_read_back(tmp_path: Path) -> None:
    """The files have the schema of gold examples, and every row is valid."""
    for split, path in corpus.write_gold(tmp_path, corpus.Gold(train=40, dev=10, test=20)).items():
        table = pq.read_table(path)
        assert table.schema.equals(EXAMPLES)
        assert next(example_from_row(row).id for row in table.to_pylist()).startswith(split)


def test_corpus_has_what_breaks_jobs(tmp_path: Path) -> None:
    """Uneven shards, one of them empty, null and huge texts, a nested extra column, unique ids, and gold that fits."""
    answers = corpus.write_corpus(tmp_path / "texts")
    shards = [pq.read_table(path) for path in sorted((tmp_path / "texts").glob("*.parquet"))]
    sizes = [shard.num_rows for shard in shards]
    assert len(sizes) == 4 and min(sizes) == 0 and len(set(sizes)) == 4
    rows = ds.dataset(str(tmp_path / "texts")).to_table().to_pylist()
    texts = {row["doc_id"]: row["text"] for row in rows}
    assert len(texts) == len(rows) == sum(sizes)
    assert texts["hostile-null"] is None and len(texts["huge"].encode()) >= 200_000
    gold = [example_from_row(row) for row in pq.read_table(answers).to_pylist()]
    assert len(gold) > 200 and all(texts[x.id] == x.text for x in gold)
    assert sum(len(x.text) > 3000 for x in gold) >= 6
    assert [shard.schema for shard in shards] == [corpus.TEXTS] * 4


@settings(max_examples=200, deadline=None)
@given(
    st.text()
    | st.text(alphabet='{}[]":,\\<|im_end>汉字🎉é 0123\n')
    | st.sampled_from([t or "" for _, t in hostile.ROWS])
)
def test_every_text_survives_the_tokeniser(text: str) -> None:
    """Text to ids and back is the identity, and no text becomes a special token."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        return
    ids = WORDS(text, split_special_tokens=True)["input_ids"]
    assert WORDS.decode(ids) == text
    assert not set(ids) & set(WORDS.all_special_ids)


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="abcXYZ汉字·-' 09é", min_size=1, max_size=20),
    st.sampled_from(["{}", '"{}"', " {} ", "，{}。", "({})"]),
)
def test_a_name_has_the_same_tokens_everywhere(name: str, frame: str) -> None:
    """The tokens of a name do not depend on what stands around it: what a model copies is what it read."""
    before, after = frame.split("{}")
    around = WORDS(before)["input_ids"], WORDS(after)["input_ids"]
    assert WORDS(before + name + after)["input_ids"] == around[0] + WORDS(name)["input_ids"] + around[1]


def test_joints_and_labels_are_short() -> None:
    """The joints of a JSON answer are one token each, as are the common Chinese characters."""
    assert all(len(WORDS(joint)["input_ids"]) == 1 for joint in tokenizer.JOINTS)
    characters = tokenizer.common_characters()
    assert len(characters) == 3755 == len(WORDS(characters)["input_ids"])


def test_shipped_files() -> None:
    """A plain Qwen3 with tied embeddings and the tokeniser that the code builds; 10 MB at most."""
    config = json.loads((recipe.BASE / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"] and config["tie_word_embeddings"]
    assert config["max_position_embeddings"] >= 4096 and config["vocab_size"] == len(WORDS)
    assert sum(path.stat().st_size for path in recipe.FILES.rglob("*") if path.is_file()) <= 10_000_000
    shipped = json.loads((recipe.BASE / "tokenizer.json").read_text())
    assert shipped["model"]["merges"] == json.loads(WORDS.backend_tokenizer.to_str())["model"]["merges"]
