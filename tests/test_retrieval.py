"""Demonstrations: the right ones, never the text itself, the same ones every time; and what a bad index gets."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import BUCKET, point_at, s3_server
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

from ner_batch import retrieval
from ner_batch.data import Entity, Example, clean
from ner_batch.io.examples import examples_table, read_examples
from ner_batch.retrieval import ENCODED, Index
from ner_batch.retrieval.index import content_digest

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("NER_BATCH_DATA", ROOT.parent / "shared" / "data"))

PATTERNS = {
    "visit": ("{a} flew to {b} on Monday.", "PER", "LOC"),
    "work": ("The chief engineer of {b} is called {a}.", "PER", "ORG"),
    "gene": ("Mutations of the gene {b} were first described by {a}.", "PER", "GENE"),
    "简历": ("{a}先生,现任{b}董事、总经理。", "NAME", "ORG"),
    "学历": ("{a}毕业于{b},获硕士学位。", "NAME", "EDU"),
}


def word(rng: random.Random) -> str:
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(4, 9))).capitalize()


def patterned(size: int, seed: int = 0) -> list[Example]:
    """Sentences of five patterns with invented names; the id tells the pattern."""
    rng = random.Random(seed)
    made = []
    for number in range(size):
        name = rng.choice(list(PATTERNS))
        pattern, *types = PATTERNS[name]
        a, b = word(rng), word(rng)
        text = pattern.format(a=a, b=b)
        entities = tuple(
            Entity(text.index(w), text.index(w) + len(w), t, w) for w, t in zip((a, b), types, strict=True)
        )
        made.append(Example(f"{name}-{seed}-{number}", text, tuple(sorted(entities))))
    return made


EXAMPLES = patterned(300)


def save_encoder(path: Path, seed: int = 0) -> str:
    """A sentence-transformers model on disk: a BERT of two layers that has learned nothing, one token per character."""
    torch.manual_seed(seed)
    characters = sorted({c for example in EXAMPLES for c in example.text.lower() if not c.isspace()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *[f"##{c}" for c in characters]]
    path.mkdir(parents=True)
    (path / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(vocab=str(path / "vocab.txt")).save_pretrained(path / "bert")
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
        )
    ).save_pretrained(path / "bert")
    transformer = Transformer(str(path / "bert"))
    transformer.max_seq_length = 128
    SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu").save(str(path / "encoder"))
    return str(path / "encoder")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_encoder(tmp_path_factory.mktemp("encoders") / "first")


@pytest.fixture(scope="session")
def other_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_encoder(tmp_path_factory.mktemp("encoders") / "second", seed=1)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, encoder: str) -> dict[str, Path]:
    """One built index of each kind over EXAMPLES."""
    root = tmp_path_factory.mktemp("indexes")
    for kind in retrieval.KINDS:
        retrieval.build(EXAMPLES, kind, root / kind, encoder if kind in ENCODED else None)
    return {kind: root / kind for kind in retrieval.KINDS}


@pytest.fixture(scope="session", params=retrieval.KINDS)
def index(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Index:
    return retrieval.open_index(folders[request.param])


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# --- what is found ------------------------------------------------------------------------------------------------


def hits(index: Index, queries: Sequence[Example], k: int = 4) -> float:
    """Mean share of demonstrations that are of the query's own pattern."""
    found = index.nearest([query.text for query in queries], k)
    same = [d.id.split("-")[0] == q.id.split("-")[0] for q, near in zip(queries, found, strict=True) for d in near]
    return float(np.mean(same))


def test_kinds_find_the_pattern(folders: dict[str, Path]) -> None:
    """For unseen names in known patterns, lexical and sentence bring the same pattern, random the base rate."""
    queries = patterned(100, seed=1)
    assert 0.1 < hits(retrieval.open_index(folders["random"]), queries) < 0.3
    assert hits(retrieval.open_index(folders["lexical"]), queries) > 0.99
    assert hits(retrieval.open_index(folders["sentence"]), queries) > 0.9


def overlap(query: Example, near: Sequence[Example]) -> float:
    """Mean Jaccard overlap between the entity types of a text and of its demonstrations."""
    wanted = {e.type for e in query.entities}
    types = [{e.type for e in demonstration.entities} for demonstration in near]
    return float(np.mean([len(wanted & t) / max(len(wanted | t), 1) for t in types]))


def test_lexical_beats_random_on_resume(tmp_path: Path) -> None:
    """On the real Resume set lexical demonstrations carry far more of the text's own entity types than random ones."""
    if not (DATA / "resume").is_dir():
        pytest.skip("no Resume data")
    queries = read_examples(str(DATA / "resume" / "test.parquet"))[:200]
    means = {}
    for kind in ("random", "lexical"):
        retrieval.build(DATA / "resume" / "train.parquet", kind, tmp_path / kind)
        found = retrieval.open_index(tmp_path / kind).nearest([query.text for query in queries], 4)
        means[kind] = np.mean([overlap(query, near) for query, near in zip(queries, found, strict=True)])
    assert means["lexical"] > means["random"] + 0.25


def test_nearest_stands_last(folders: dict[str, Path]) -> None:
    """An example but for one letter is the last demonstration; similarity falls towards the front."""
    target = EXAMPLES[17]
    near = retrieval.open_index(folders["lexical"]).nearest([target.text.replace("a", "e", 1)], 5)[0]
    assert near[-1] == target
    assert len(near) == 5


def test_sentence_agrees_with_brute_force(folders: dict[str, Path], encoder: str) -> None:
    """The search is exact: the same neighbours as a full product of the encoder's own vectors."""
    model = SentenceTransformer(encoder, device="cpu")
    texts = [query.text for query in patterned(20, seed=2)]
    base = model.encode([example.text for example in EXAMPLES], normalize_embeddings=True)
    best = np.argsort(-(model.encode(texts, normalize_embeddings=True) @ base.T), axis=1, kind="stable")[:, :3]
    found = retrieval.open_index(folders["sentence"]).nearest(texts, 3)
    for numbers, near in zip(best, found, strict=True):
        assert {EXAMPLES[number].id for number in numbers} == {example.id for example in near}


# --- what is never found ------------------------------------------------------------------------------------------


def test_a_text_is_never_its_own_demonstration(index: Index) -> None:
    """Leave-one-out: asked for every example, bare or with white space around it, none brings itself; all bring k."""
    for text in ("{}", "  {}\n", "\u3000{}"):
        queries = [text.format(example.text) for example in EXAMPLES[:60]]
        for query, near in zip(queries, index.nearest(queries, 4), strict=True):
            assert len(near) == 4
            assert query.strip() not in {example.text.strip() for example in near}


@pytest.mark.parametrize("kind", retrieval.KINDS)
def test_copies_are_one_demonstration(tmp_path: Path, kind: str, encoder: str) -> None:
    """Repeated texts, white space aside, and blank ones are left out of the index; the first of a kind stays."""
    copies = [Example("copy", f" {example.text}\n", ()) for example in EXAMPLES[:20]] * 3
    blank = [Example("blank", "  ", ()), Example("empty", "", ())]
    given = [*blank, *EXAMPLES[:20], *copies]
    manifest = retrieval.build(given, kind, tmp_path / "i", encoder if kind in ENCODED else None)
    assert manifest.examples == 20
    opened = retrieval.open_index(tmp_path / "i")
    assert opened.examples == tuple(EXAMPLES[:20])
    near = opened.nearest([EXAMPLES[0].text], 50)[0]
    assert sorted(e.id for e in near) == sorted(e.id for e in EXAMPLES[1:20])


def test_k_beyond_and_below(index: Index) -> None:
    """k = 0 and no texts give nothing; a k beyond the index gives all of it, once."""
    assert index.nearest(["x", "y"], 0) == [[], []]
    assert index.nearest([], 4) == []
    assert sorted(e.id for e in index.nearest(["unseen"], 1000)[0]) == sorted(e.id for e in EXAMPLES)


# --- the same every time ------------------------------------------------------------------------------------------


def test_batches_do_not_matter(index: Index) -> None:
    """A text gets the same demonstrations alone, in a batch and in another order: a resumed run asks the same."""
    texts = [query.text for query in patterned(70, seed=3)]
    together = index.nearest(texts, 4)
    assert [index.nearest([text], 4)[0] for text in texts] == together
    assert index.nearest(texts[::-1], 4) == together[::-1]


def test_threads_do_not_matter(index: Index) -> None:
    """Searched from eight threads at once, an index answers as from one."""
    texts = [query.text for query in patterned(64, seed=4)]
    parts = [texts[i : i + 8] for i in range(0, 64, 8)]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda part: index.nearest(part, 4), parts))
    assert [near for part in threaded for near in part] == index.nearest(texts, 4)


def test_ties_go_to_the_earlier_example(folders: dict[str, Path]) -> None:
    """A text that shares nothing with any example gets the first ones, the first of all last."""
    near = retrieval.open_index(folders["lexical"]).nearest(["ᚠᚢᚦ"], 3)[0]
    assert near == [EXAMPLES[2], EXAMPLES[1], EXAMPLES[0]]


def test_random_depends_on_seed_and_text(tmp_path: Path, folders: dict[str, Path]) -> None:
    """Different texts draw differently, and another seed draws differently for the same text."""
    texts = [f"text {number}" for number in range(20)]
    first = retrieval.open_index(folders["random"]).nearest(texts, 4)
    assert len({tuple(e.id for e in near) for near in first}) == 20
    other = retrieval.build(EXAMPLES, "random", tmp_path / "i", seed=1)
    opened = retrieval.open_index(tmp_path / "i")
    assert opened.nearest(texts, 4) != first
    assert other.fingerprint != retrieval.open_index(folders["random"]).fingerprint


PROCESS = """
import sys
from ner_batch.retrieval import build, open_index
build(sys.argv[1], sys.argv[2], sys.argv[3])
print([[e.id for e in near] for near in open_index(sys.argv[3]).nearest(["Anna flew to Bonn.", "张三毕业于清华"], 5)])
"""


@pytest.mark.parametrize("kind", ["random", "lexical"])
def test_processes_do_not_matter(tmp_path: Path, kind: str) -> None:
    """Two processes with different hash seeds build the same bytes and find the same demonstrations."""
    pq.write_table(examples_table(EXAMPLES), tmp_path / "gold.parquet")
    said = []
    for name in ("a", "b"):
        arguments = [sys.executable, "-c", PROCESS, str(tmp_path / "gold.parquet"), kind, str(tmp_path / name)]
        environment = {**os.environ, "PYTHONHASHSEED": {"a": "1", "b": "2"}[name], "PYTHONPATH": str(ROOT)}
        done = subprocess.run(arguments, env=environment, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        said.append(done.stdout)
    assert said[0] == said[1]
    assert len(said[0]) > 100
    digests = [{p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / n).iterdir()} for n in "ab"]
    assert digests[0] == digests[1]


THREADS = """
from pathlib import Path
names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
print(sum(not name.startswith("jemalloc") for name in names))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in Linux's /proc")
@pytest.mark.parametrize("kind", ["random", "lexical"])
def test_an_index_leaves_no_thread_behind(tmp_path: Path, kind: str) -> None:
    """Building, opening and searching use no worker of Arrow's pool.

    One that still held the bytes of the gold when the interpreter ended aborted the process, or kept it from ending.
    """
    pq.write_table(examples_table(EXAMPLES), tmp_path / "gold.parquet")
    arguments = [sys.executable, "-c", PROCESS + THREADS, str(tmp_path / "gold.parquet"), kind, str(tmp_path / "index")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1"


def test_sentence_builds_the_same_index_twice(tmp_path: Path, folders: dict[str, Path], encoder: str) -> None:
    """The same examples and encoder give the same fingerprint and the same vectors."""
    retrieval.build(EXAMPLES, "sentence", tmp_path / "i", encoder)
    for file in folders["sentence"].iterdir():
        assert (tmp_path / "i" / file.name).read_bytes() == file.read_bytes()


def test_fingerprint_follows_content(tmp_path: Path, folders: dict[str, Path], other_encoder: str) -> None:
    """Another kind, another encoder, one example less or one other type: another fingerprint each."""
    retyped = [*EXAMPLES[1:], Example(EXAMPLES[0].id, EXAMPLES[0].text, ())]
    built = {
        retrieval.build(EXAMPLES[1:], "lexical", tmp_path / "fewer").fingerprint,
        retrieval.build(retyped, "lexical", tmp_path / "retyped").fingerprint,
        retrieval.build(EXAMPLES, "sentence", tmp_path / "encoder", other_encoder).fingerprint,
    }
    assert len(built | {retrieval.open_index(folder).fingerprint for folder in folders.values()}) == 7


HOSTILE = [
    "",
    " ",
    "\ud83d",
    "a\ud800b",
    "👩‍👩‍👧‍👦" * 50,
    "<|im_end|>",
    "e\u0301" * 30,
    "𠀀𠀁",
    "ไทย" * 40,
    "\0\n\t",
    "x" * 20_000,
]


def test_hostile_texts_are_answered(index: Index) -> None:
    """No text, however odd, goes without its demonstrations."""
    assert [len(near) for near in index.nearest(HOSTILE, 3)] == [3] * len(HOSTILE)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=30), min_size=1, max_size=12), st.integers(1, 6), st.sampled_from(["random", "lexical"])
)
def test_any_gold_any_text(tmp_path_factory: pytest.TempPathFactory, texts: list[str], k: int, kind: str) -> None:
    """Whatever the texts are, each example is answered by distinct others, as many as there are up to k."""
    given_examples = [Example(str(number), clean(text), ()) for number, text in enumerate(texts)]
    distinct = {example.text.strip() for example in given_examples} - {""}
    folder = tmp_path_factory.mktemp("any") / "index"
    if not distinct:
        with pytest.raises(ValueError, match="no example with text"):
            retrieval.build(given_examples, kind, folder)
        return
    retrieval.build(given_examples, kind, folder)
    for text, near in zip(texts, retrieval.open_index(folder).nearest(texts, k), strict=True):
        found = [example.text.strip() for example in near]
        others = distinct - {clean(text).strip()}
        assert len(found) == len(set(found)) == min(k, len(others))
        assert set(found) <= others


# --- the artefact -------------------------------------------------------------------------------------------------


def test_an_existing_index_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    """Building again replaces an index; a file or a folder of other things is refused and left alone; no litter stays."""
    retrieval.build(EXAMPLES, "lexical", tmp_path / "i")
    retrieval.build(EXAMPLES, "random", tmp_path / "i")
    assert retrieval.open_index(tmp_path / "i").kind == "random"
    assert not (tmp_path / "i" / "vectors.npz").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    (tmp_path / "thesis" / "manifest.json").write_text("{}")
    (tmp_path / "file").write_text("precious")
    for taken in ("thesis", "file"):
        with pytest.raises(ValueError, match="not an index") as error:
            retrieval.build(EXAMPLES, "random", tmp_path / taken)
        one_line(error)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == (tmp_path / "file").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    retrieval.build(EXAMPLES, "random", tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "i", "thesis"]


def test_a_link_is_followed_and_a_mount_is_refused(tmp_path: Path) -> None:
    """An index may lie on another disk; a mount point itself cannot be replaced, which is known before the build."""
    (tmp_path / "big disk").mkdir()
    (tmp_path / "index").symlink_to(tmp_path / "big disk")
    retrieval.build([Example("1", "Anna.", ())], "lexical", tmp_path / "index")
    assert (tmp_path / "index").is_symlink()
    assert len(retrieval.open_index(tmp_path / "index").examples) == 1
    assert any((tmp_path / "big disk").iterdir())
    with pytest.raises(ValueError, match="/proc: a mount point cannot be replaced"):
        retrieval.build([Example("1", "Anna.", ())], "lexical", "/proc")


def test_the_order_of_entities_does_not_matter(tmp_path: Path) -> None:
    """An index of examples whose entities are in no order opens: two types of one span, a later one first."""
    entities = (Entity(5, 9, "B", "Bern"), Entity(0, 4, "X", "Anna"), Entity(0, 4, "A", "Anna"))
    retrieval.build([Example("1", "Anna Bern", entities)], "lexical", tmp_path / "index")
    (example,) = retrieval.open_index(tmp_path / "index").examples
    assert example.entities == tuple(sorted(entities))


def test_a_failed_build_leaves_the_old_index(tmp_path: Path) -> None:
    """Bad gold or a bad encoder: the old index still opens, and no half of a new one lies about."""
    before = retrieval.build(EXAMPLES, "lexical", tmp_path / "i").fingerprint
    with pytest.raises(ValueError, match=r"no\.parquet: no such file") as error:
        retrieval.build(tmp_path / "no.parquet", "lexical", tmp_path / "i")
    one_line(error)
    with pytest.raises(ValueError, match=r"encoder .* cannot be loaded") as error:
        retrieval.build(EXAMPLES, "sentence", tmp_path / "i", str(tmp_path / "no" / "model"))
    one_line(error)
    assert retrieval.open_index(tmp_path / "i").fingerprint == before
    assert [p.name for p in tmp_path.iterdir()] == ["i"]


def test_an_index_on_s3_is_opened(tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """An index copied to a bucket answers like the local one; building there is refused."""
    texts = [query.text for query in patterned(10, seed=5)]
    with s3_server() as (endpoint, client):
        point_at(monkeypatch, endpoint)
        for kind, folder in folders.items():
            for file in folder.iterdir():
                client.upload_file(str(file), BUCKET, f"indexes/{kind}/{file.name}")
            opened = retrieval.open_index(f"s3://{BUCKET}/indexes/{kind}")
            assert opened.nearest(texts, 3) == retrieval.open_index(folder).nearest(texts, 3)
        with pytest.raises(ValueError, match="no such index") as error:
            retrieval.open_index(f"s3://{BUCKET}/nowhere")
        assert f"s3://{BUCKET}/nowhere" in one_line(error)
    with pytest.raises(ValueError, match="local disk"):
        retrieval.build(EXAMPLES, "random", f"s3://{BUCKET}/new")


@pytest.mark.parametrize(
    ("kind", "with_encoder", "said"),
    [
        ("semantic", False, "random, lexical, sentence, entity"),
        ("entity", False, "encoder: missing"),
        ("sentence", False, "encoder: missing"),
        ("lexical", True, "kind lexical has none"),
    ],
)
def test_kinds_are_checked_first(tmp_path: Path, kind: str, with_encoder: bool, said: str) -> None:
    """A kind that does not exist, or does not go with its encoder, is one line, before anything is read or written."""
    with pytest.raises(ValueError, match=said) as error:
        retrieval.build("never-read.parquet", kind, tmp_path / "i", "some/encoder" if with_encoder else None)
    one_line(error)
    assert not (tmp_path / "i").exists()


def spoil_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


SPOILT: dict[str, tuple[str, Callable[[Path], object]]] = {
    "manifest torn": ("random", lambda folder: cut(folder / "manifest.json")),
    "manifest empty": ("random", lambda folder: (folder / "manifest.json").write_text("{}")),
    "manifest of a later version": ("random", lambda folder: spoil_manifest(folder, version=2)),
    "manifest of an unknown kind": ("random", lambda folder: spoil_manifest(folder, kind="semantic")),
    "manifest edited": ("random", lambda folder: spoil_manifest(folder, seed=5)),
    "examples torn": ("random", lambda folder: cut(folder / "examples.parquet")),
    "examples gone": ("random", lambda folder: (folder / "examples.parquet").unlink()),
    "examples exchanged": (
        "lexical",
        lambda folder: pq.write_table(examples_table(EXAMPLES[::-1]), folder / "examples.parquet"),
    ),
    "postings torn": ("lexical", lambda folder: cut(folder / "vectors.npz")),
    "postings gone": ("lexical", lambda folder: (folder / "vectors.npz").unlink()),
    "weights torn": ("lexical", lambda folder: cut(folder / "idf.npy")),
    "weights of another size": ("lexical", lambda folder: np.save(folder / "idf.npy", np.ones(3, np.float32))),
    "vectors torn": ("sentence", lambda folder: cut(folder / "vectors.npy")),
    "vectors empty": ("sentence", lambda folder: (folder / "vectors.npy").write_bytes(b"")),
    "mentions torn": ("entity", lambda folder: cut(folder / "mentions.npy")),
    "mentions of another number": (
        "entity",
        lambda folder: np.save(folder / "mentions.npy", np.ones((3, 2), np.int32)),
    ),
    "mentions not counted": ("entity", lambda folder: spoil_manifest(folder, mentions=None)),
    "vectors of another shape": (
        "sentence",
        lambda folder: np.save(folder / "vectors.npy", np.ones((3, 32), np.float32)),
    ),
}


@pytest.mark.parametrize("damage", SPOILT)
def test_a_broken_index_is_one_line(tmp_path: Path, folders: dict[str, Path], damage: str) -> None:
    """Any part torn, gone, exchanged or edited: one line that names the index and says to build it again."""
    kind, spoil = SPOILT[damage]
    folder = Path(shutil.copytree(folders[kind], tmp_path / "index"))
    spoil(folder)
    with pytest.raises(ValueError, match=r"broken.*build it again") as error:
        retrieval.open_index(folder)
    assert str(folder) in one_line(error)


def test_no_index_is_one_line(tmp_path: Path) -> None:
    """A wrong path, and a folder without a manifest, say how an index is made."""
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match=r"no such index.*ner-batch index") as error:
            retrieval.open_index(path)
        assert str(path) in one_line(error)


def test_another_encoder_is_refused(folders: dict[str, Path], encoder: str, other_encoder: str) -> None:
    """Another encoder, local or on the hub, is an error that names both; none belongs to a lexical index."""
    for asked in (other_encoder, "some/encoder"):
        with pytest.raises(ValueError, match="built with encoder") as error:
            retrieval.open_index(folders["sentence"], asked)
        assert encoder in one_line(error)
        assert asked in one_line(error)
    with pytest.raises(ValueError, match="built as lexical"):
        retrieval.open_index(folders["lexical"], encoder)


def test_a_moved_encoder_is_accepted_and_a_changed_one_not(tmp_path: Path, encoder: str) -> None:
    """An encoder is what its files hold: named at its new place it works; gone or changed it is an error."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(encoder, old)
    retrieval.build(EXAMPLES[:20], "sentence", tmp_path / "i", str(old))
    expected = retrieval.open_index(tmp_path / "i").nearest(["Anna flew to Bonn."], 3)
    old.rename(new)
    assert retrieval.open_index(tmp_path / "i", str(new)).nearest(["Anna flew to Bonn."], 3) == expected
    with pytest.raises(ValueError, match="is not here: say where") as error:
        retrieval.open_index(tmp_path / "i")
    assert str(old) in one_line(error)
    with (new / "1_Pooling" / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match="built with encoder"):
        retrieval.open_index(tmp_path / "i", str(new))


HUB = """
import sys
from pathlib import Path
from ner_batch.retrieval import build, open_index
from ner_batch.data import Example
examples = [Example(str(n), t, ()) for n, t in enumerate(["Anna flew to Bonn.", "Bob flew to Rome.", "任董事、总经理"])]
print(build(examples, "sentence", sys.argv[1], "lab/encoder").revision)
Path(sys.argv[2]).write_text("f" * 40)  # the name moves on to a commit that is not here
print(open_index(sys.argv[1], "lab/encoder").nearest(["Eve flew to Rome."], 1)[0][0].id)
"""


def test_time_stamps_of_a_download_do_not_change_an_encoder(tmp_path: Path) -> None:
    """`hf download --local-dir` leaves them in `.cache`."""
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "model.safetensors").write_bytes(b"weights")
    before = content_digest(str(tmp_path / "encoder"))
    (tmp_path / "encoder" / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / "encoder" / ".cache" / "huggingface" / "model.metadata").write_text("1732600000.1")
    assert content_digest(str(tmp_path / "encoder")) == before
    (tmp_path / "encoder" / "config.json").write_text("{}")
    assert content_digest(str(tmp_path / "encoder")) != before


def test_a_hub_encoder_is_pinned_to_its_commit(tmp_path: Path, encoder: str) -> None:
    """A hub name is recorded with the commit it stood for, and searched with that commit wherever the name moves."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub" / "models--lab--encoder"
    shutil.copytree(encoder, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", HUB, str(tmp_path / "i"), str(cache / "refs" / "main")]
    done = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True, timeout=180)
    assert done.stdout.split() == [commit, "1"]
