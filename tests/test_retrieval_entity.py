"""Kind entity: the nearest mentions vote as documented, whatever the length of texts or the number of vectors."""

import re
from itertools import groupby, zip_longest

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from test_retrieval import EXAMPLES, cut, patterned, save_encoder
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from typer.testing import CliRunner

from ner_batch import retrieval
from ner_batch.cli import app
from ner_batch.data import Entity, Example
from ner_batch.io.examples import examples_table
from ner_batch.io.tables import write_table
from ner_batch.retrieval import vectors
from ner_batch.retrieval.encoder import Encoder
from ner_batch.retrieval.entity import n_grams, select_by_votes
from ner_batch.train.samples import with_neighbours
from ner_batch.train.settings import DemonstrationsConfig

FEW = EXAMPLES[:60]
PLAIN = [Example(f"plain-{n}", f"Nothing to see here, number {n}.", ()) for n in range(5)]
NEW = [example.text for example in patterned(12, seed=9)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("entity_encoder") / "e")


@pytest.fixture(scope="module")
def short(tmp_path_factory, encoder):
    """The same encoder, reading 16 tokens at a time."""
    model = SentenceTransformer(encoder, device="cpu")
    model.max_seq_length = 16
    path = tmp_path_factory.mktemp("short_encoder") / "e"
    model.save(str(path))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, encoder):
    path = tmp_path_factory.mktemp("entity_index") / "index"
    retrieval.build([*FEW, *PLAIN], "entity", path, encoder)
    return path


def ids(found):
    return [[example.id for example in near] for near in found]


# --- what is found ------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_vectors_are_searched_exactly(tmp_path_factory, rows, dimension, depth, seed):
    """Random unit vectors: the same products and numbers as a sorted full product."""
    drawn = np.random.default_rng(seed).standard_normal((rows + 3, dimension)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    base, queries, depth = drawn[:rows], drawn[rows:], min(depth, rows)
    folder = tmp_path_factory.mktemp("vectors")
    assert vectors.write(folder, base) == vectors.StoredVectors(dimension)
    scores, numbers = vectors.open_nearest(folder, (rows, dimension), None)(queries, depth)
    products = queries @ base.T
    assert np.allclose(scores, -np.sort(-products, axis=1)[:, :depth], atol=1e-5)
    assert np.allclose(np.take_along_axis(products, numbers, 1), scores, atol=1e-5)
    assert all(len(set(row)) == depth for row in numbers.tolist())


def brute_force(encoder, examples, text):
    """The documented votes, written anew: one text at a time, every similarity, plain lists."""
    model = SentenceTransformer(encoder, device="cpu")

    def read(words):
        features = model.tokenizer(words, return_offsets_mapping=True, return_tensors="pt")
        places = features.pop("offset_mapping")[0][1:-1].tolist()
        return places, model[0].auto_model(**features).last_hidden_state[0, 1:-1].detach().numpy()

    def mean(start, end, known):
        places, states = known
        inside = [s for (a, b), s in zip(places, states, strict=True) if a < end and b > start]
        vector = np.mean(inside, axis=0)
        return vector / np.linalg.norm(vector)

    reads = [(x, read(x.text)) for x in examples]
    mentions = [(mean(e.start, e.end, known), x.id, e.type) for x, known in reads for e in x.entities]
    places = [m.span() for m in re.finditer(r"[A-Za-z]+|[\u4e00-\u9fff]|[^\sA-Za-z\u4e00-\u9fff]", text)]
    known, grams = read(text), []
    for i in range(len(places)):
        for j in range(i, min(i + 3, len(places))):
            (start, _), (_, end) = places[i], places[j]
            if text[start].isalnum() and text[end - 1].isalnum():
                vector = mean(start, end, known)
                near = sorted((-round(float(v @ vector) * 1e5), n) for n, (v, _, _) in enumerate(mentions))[:8]
                grams.append((near[0][0], i, j + 1, [mentions[n][1:] for _, n in near]))
    line = []
    for gram in sorted(grams):
        if all(gram[2] <= other[1] or other[2] <= gram[1] for other in line):
            line.append(gram)
    queue = []
    for vote in (v for votes in zip_longest(*(gram[3] for gram in line)) for v in votes):
        if vote[0] not in {name for name, _ in queue}:
            queue.append(vote)
    chosen, count = [], {}
    while queue:
        room = (len(chosen) + 1) // 2 + 1
        vote = next((v for v in queue if count.get(v[1], 0) < room), queue[0])
        queue.remove(vote)
        chosen.append(vote[0])
        count[vote[1]] = count.get(vote[1], 0) + 1
    return chosen


def test_agrees_with_brute_force(folder, encoder):
    """On new sentences, English and Chinese, the demonstrations are those of the documented votes, in their order."""
    index = retrieval.open_index(folder)
    assert {re.search(r"[\u4e00-\u9fff]", text) is None for text in NEW[:6]} == {True, False}
    for text, near in zip(NEW[:6], ids(index.nearest(NEW[:6], 5)), strict=True):
        assert near == brute_force(encoder, FEW, text)[:5][::-1]


def test_leave_one_out_is_as_if_it_were_not_there(tmp_path, folder, encoder):
    """Asked for an example, the index answers as one built without it: its own mentions take no vote or quota."""
    index = retrieval.open_index(folder)
    for number in (0, 7, 31):
        rest = [*FEW[:number], *FEW[number + 1 :], *PLAIN]
        retrieval.build(rest, "entity", tmp_path / "rest", encoder)
        text = f"  {FEW[number].text}\n"
        assert index.nearest([text], 6) == retrieval.open_index(tmp_path / "rest").nearest([text], 6)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory, encoder):
    """An index with and one without lists; a text of its own has 400 mentions, each twice, under two types."""
    few = FEW[:8]
    text = " ".join(f"{example.text} {n}." for n in range(60) for example in few)
    places = [m.span() for example in few for e in example.entities for m in re.finditer(re.escape(e.text), text)]
    places = sorted(set(places))[:200]
    own = [Entity(a, b, kind, text[a:b]) for a, b in places for kind in ("ORG", "PER")]
    crowd = Example("crowd", text, tuple(own))
    assert len(own) == 400
    folder = tmp_path_factory.mktemp("crowded")
    for name, most in (("flat", 10**6), ("lists", 0)):
        retrieval.build([*FEW[8:30], crowd, *FEW[30:]], "entity", folder / name, encoder, exact_search_limit=most)
    retrieval.build([*FEW[8:30], *FEW[30:]], "entity", folder / "without", encoder)
    return folder, crowd


@pytest.mark.parametrize("kind", ["flat", "lists"])
def test_mentions_of_the_texts_own_are_not_found(crowded, kind):
    """However many there are, a text finds what an index without it finds, alone and among others."""
    folder, crowd = crowded
    index, without = (retrieval.open_index(folder / name) for name in (kind, "without"))
    texts = [NEW[0], crowd.text, FEW[40].text, NEW[1]]
    alone = ids(index.nearest([crowd.text], 6))
    assert [ids(index.nearest(texts, 6))[1]] == alone
    if kind == "flat":
        assert alone == ids(without.nearest([crowd.text], 6))


def test_an_index_of_one_crowded_text(tmp_path, encoder, crowded):
    """All mentions are the text's own: nothing is found, and the draw fills up."""
    crowd = crowded[1]
    retrieval.build([crowd, *PLAIN], "entity", tmp_path / "i", encoder)
    index = retrieval.open_index(tmp_path / "i")
    assert sorted(ids(index.nearest([crowd.text], 9))[0]) == [example.id for example in PLAIN]
    assert len(index.nearest([crowd.text, NEW[0]], 9)[1]) == 6


def test_the_command_lists_vectors(tmp_path, encoder):
    """exact_search_limit out of the config; without it few vectors are searched exactly; a negative one is refused."""
    write_table(str(tmp_path / "gold.parquet"), examples_table(FEW), {})
    config = {"examples": str(tmp_path / "gold.parquet"), "kind": "sentence", "encoder": encoder}
    (tmp_path / "index.yaml").write_text(yaml.safe_dump(config))

    def listed(name, *overrides):
        command = ["index", str(tmp_path / "index.yaml"), f"out={tmp_path / name}", *overrides]
        result = CliRunner().invoke(app, command)
        return result.exit_code, (tmp_path / name / "vectors.faiss").exists()

    assert listed("exact") == (0, False)
    assert listed("lists", "exact_search_limit=20") == (0, True)
    assert listed("none", "exact_search_limit=-1") == (2, False)


def test_a_dry_run_tells_and_writes_nothing(tmp_path, encoder):
    """Examples, repeated texts, mentions by type and vectors are told; nothing is built; all problems come at once."""
    blank, repeated = Example("b", " ", ()), Example("r", f" {FEW[0].text}", ())
    write_table(str(tmp_path / "gold.parquet"), examples_table([*FEW, blank, repeated]), {})
    config = {"examples": str(tmp_path / "gold.parquet"), "out": str(tmp_path / "out"), "kind": "entity"}
    (tmp_path / "index.yaml").write_text(yaml.safe_dump(config | {"encoder": encoder}))

    def dry_run(*overrides):
        return CliRunner().invoke(app, ["index", str(tmp_path / "index.yaml"), "--dry-run", *overrides])

    result = dry_run()
    mentions = [entity.type for example in FEW for entity in example.entities]
    assert result.exit_code == 0
    assert f"{len(FEW) + 2} examples, {len(FEW)} distinct texts (1 repeated and 1 blank" in result.stdout
    assert f"mentions: {len(mentions)} (" in result.stdout
    assert f"NAME {mentions.count('NAME')}" in result.stdout
    assert f"vectors: {len(mentions)} of 32 dimensions" in result.stdout
    assert "vectors: none" in dry_run("kind=random", "encoder=null").stdout
    (tmp_path / "taken").write_text("precious")
    wrong = dry_run(f"out={tmp_path / 'taken'}", "examples=/nowhere.parquet", f"encoder={tmp_path / 'no-model'}")
    assert wrong.exit_code == 2
    assert [word for word in ("taken", "/nowhere.parquet", "no-model") if word in wrong.stderr] == [
        "taken",
        "/nowhere.parquet",
        "no-model",
    ]
    assert len(wrong.stderr.splitlines()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gold.parquet", "index.yaml", "taken"]
    (tmp_path / "old.csv").touch()
    told = dry_run(f"examples={tmp_path}", "kind=random", "encoder=null").stdout
    assert f"{tmp_path}: passed over (hidden, links to the same, or files of another kind): index.yaml, old.csv" in told


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=4), max_size=5))
def test_rounds_and_quotas(line):
    """Every sentence once; fewer are a beginning of more; a type over its quota comes only when no other waits."""
    order = select_by_votes(line, 100)
    votes = [hit for depth in zip_longest(*line) for hit in depth if hit is not None]
    kind = dict(reversed(votes))
    assert sorted(order) == sorted(kind)
    assert all(select_by_votes(line, n) == order[:n] for n in range(len(order)))
    brought = []
    for n, example in enumerate(order, 1):
        full = {t for t in kind.values() if brought.count(t) >= n // 2 + 1}
        waiting = [e for e, _ in groupby(votes, key=lambda v: v[0]) if e not in order[: n - 1]]
        room = [e for e in waiting if kind[e] not in full]
        assert example == (room or waiting)[0]
        brought.append(kind[example])


def test_words_of_scripts_with_and_without_spaces(encoder):
    """Spaced scripts are cut at words, Han at characters; punctuation stands inside n-grams only, never at an end."""
    texts = ["Anna flew, Bob", "张三，李四"]
    (one, rows), (two, _) = (n_grams(t, r) for t, r in zip(texts, Encoder(encoder).tokens(texts), strict=True))
    assert one == [(0, 1), (0, 2), (1, 2), (1, 4), (3, 4)]
    assert two == [(0, 1), (0, 2), (1, 2), (1, 4), (3, 4), (3, 5), (4, 5)]
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_examples_without_entities_fill_up(folder):
    """They come only behind all who were voted for; a text without letters gets a draw, the same one every time."""
    index = retrieval.open_index(folder)
    near = ids(index.nearest([NEW[0]], 65))[0]
    assert len(near) == len(set(near)) == 65
    assert not [name for name in near[-8:] if name.startswith("plain")]
    drawn = index.nearest(["…!?", "🎉", ""], 4)
    assert [len(part) for part in drawn] == [4, 4, 4]
    assert drawn == [index.nearest([text], 4)[0] for text in ("…!?", "🎉", "")]
    assert index.nearest(["ᚠᚢᚦ ᚱᚲ"], 4) == index.nearest(["ᚠᚢᚦ ᚱᚲ"], 4) != [[]]


def test_long_texts_are_read_whole(short):
    """Pieces of 16 tokens: each token of a text is there once, in place, as without a limit; none is [CLS] or [SEP]."""
    model = SentenceTransformer(short, device="cpu")
    assert model.max_seq_length == 16
    texts = [" ".join(example.text for example in EXAMPLES[:8]), "Anna", "", "张三" * 50, "x" * 15, "x" * 14]
    for text, read in zip(texts, Encoder(short).tokens(texts), strict=True):
        whole = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False)
        assert read.offsets.tolist() == [list(pair) for pair in whole["offset_mapping"]]
        assert read.states.shape == (len(read.offsets), 32)
        assert np.isfinite(read.states).all()


def test_a_mention_far_behind_is_found(tmp_path, short):
    """A mention beyond the encoder's length brings its sentence, and so does one in a long text that asks."""
    long = " ".join(example.text for example in EXAMPLES[100:106])
    tail = "The chief engineer of Zwickau is called Qu."
    start = len(long) + 1 + tail.index("Zwickau")
    target = Example("far", f"{long} {tail}", (Entity(start, start + 7, "ORG", "Zwickau"),))
    retrieval.build([*FEW, target], "entity", tmp_path / "i", short)
    index = retrieval.open_index(tmp_path / "i")
    assert "far" in ids(index.nearest([f"{long} {tail} Yes."], 8))[0]
    assert "far" in ids(index.nearest([tail], 8))[0]


# --- the artefact -------------------------------------------------------------------------------------------------


def test_the_same_index_twice(tmp_path, folder, encoder):
    """The same examples and encoder give the same bytes; another seed or one type changed another fingerprint."""
    retrieval.build([*FEW, *PLAIN], "entity", tmp_path / "i", encoder)
    for file in folder.iterdir():
        assert (tmp_path / "i" / file.name).read_bytes() == file.read_bytes()
    first = retrieval.open_index(folder).fingerprint
    assert retrieval.build([*FEW, *PLAIN], "entity", tmp_path / "i", encoder, seed=1).fingerprint != first


def test_older_indexes_keep_their_fingerprint(tmp_path):
    """Manifests have new fields; indexes written before there were any carry these very digests, and still open."""
    given = [
        Example("1", "Anna flew to Bonn.", (Entity(0, 4, "PER", "Anna"),)),
        Example("2", "张三毕业于清华", (Entity(0, 2, "NAME", "张三"),)),
    ]
    for kind, digest in {"random": "09838e7acab56a30", "lexical": "f4256b4d78686279"}.items():
        assert retrieval.build(given, kind, tmp_path / kind).fingerprint == digest


@pytest.mark.parametrize("kind", ["entity", "sentence"])
def test_many_vectors_are_listed(tmp_path, encoder, kind):
    """Over the limit vectors lie in lists: recall in the manifest, most answers the exact ones, a torn file refused."""
    exact = retrieval.build(EXAMPLES, kind, tmp_path / "flat", encoder)
    listed = retrieval.build(EXAMPLES, kind, tmp_path / "lists", encoder, exact_search_limit=200)
    assert exact.lists is None
    assert listed.lists.lists > 1
    assert 0.95 <= listed.lists.recall <= 1
    assert listed.fingerprint != exact.fingerprint
    assert (tmp_path / "lists" / "vectors.faiss").exists()
    assert not (tmp_path / "lists" / "vectors.npy").exists()
    one, two = (ids(retrieval.open_index(tmp_path / name).nearest(NEW, 4)) for name in ("flat", "lists"))
    assert np.mean([len(set(a) & set(b)) for a, b in zip(one, two, strict=True)]) > 3.5
    assert len(retrieval.open_index(tmp_path / "lists").nearest(NEW[:1], 1000)[0]) == len(EXAMPLES)
    cut(tmp_path / "lists" / "vectors.faiss")
    with pytest.raises(ValueError, match=r"broken index.*build it again"):
        retrieval.open_index(tmp_path / "lists")


def test_lists_that_miss_are_told(tmp_path):
    """Recall is what it says: that of the fewest probes that reach 95 %, against a full product."""
    drawn = np.random.default_rng(0).standard_normal((6000, 48)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    lists = vectors.write(tmp_path, drawn, 5999).lists
    nearest = vectors.open_nearest(tmp_path, drawn.shape, lists)
    sample = np.arange(0, 6000, 20)
    best = np.argsort(-(drawn[sample] @ drawn.T), axis=1)[:, 1:11]
    found = nearest(drawn[sample], 11)[1][:, 1:]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(best.tolist(), found.tolist(), strict=True)])
    assert lists.probes <= lists.lists
    assert abs(recall - lists.recall) < 0.03
    assert (nearest(drawn[:3], 6000)[1] >= 0).all()


# --- bad input, and training --------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """`ner-batch index` on gold that is given; (exit code, error lines)."""

    def index(examples, encoder):
        write_table(str(tmp_path / "gold.parquet"), examples_table(examples), {})
        config = {"examples": str(tmp_path / "gold.parquet"), "out": str(tmp_path / "out"), "kind": "entity"}
        (tmp_path / "index.yaml").write_text(yaml.safe_dump({**config, "encoder": encoder}))
        result = CliRunner().invoke(app, ["index", str(tmp_path / "index.yaml")])
        assert not (tmp_path / "out").exists()
        return result.exit_code, result.stderr.splitlines()

    return index


def test_bad_input_is_one_line(run, tmp_path, encoder):
    """No encoder, none at that place, a folder that is none, one without token states, gold without any entity."""
    refused(run(FEW, None), "encoder: missing", "kind entity needs")
    refused(run(FEW, str(tmp_path / "nowhere")), "nowhere", "cannot be loaded")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    refused(run(FEW, str(tmp_path / "thesis")), "thesis", "cannot be loaded")
    static = StaticEmbedding(Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]")), embedding_dim=8)
    SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path / "static"))
    refused(run(FEW, str(tmp_path / "static")), "static", "no token states")
    refused(run(PLAIN, encoder), "gold.parquet", "no example has an entity")


def test_training_takes_it(encoder):
    """Training prompts get entity demonstrations, and nobody its own."""
    chosen = DemonstrationsConfig(kind=("entity",), encoder=encoder, k={2: 1})
    train, dev = with_neighbours(tuple(FEW[:20]), (FEW[0], EXAMPLES[70]), chosen)
    for source in (train, dev):
        for asked, near in zip(source.examples, source.neighbours[0], strict=True):
            assert len(near) == 2
            assert asked.text not in {x.text for x in near}
