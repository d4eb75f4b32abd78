"""The library: keywords to a recipe, any iterable of texts to predictions, an engine that comes and goes with it."""

from __future__ import annotations

import gc
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pandas as pd
import polars as pl
import psutil
import pyarrow as pa
import pytest
from tiny import ADAPTER, BASE, FILES, TASK, gold

from ner_batch import Extractor, RecipeConfig, RetrievalConfig, Task, UserError, extract, load_task
from ner_batch.extraction.api import Options
from ner_batch.extraction.recipe import make_recipe

ROOT = Path(__file__).parent.parent
PLAIN = os.environ | {"PYTHONPATH": str(ROOT)}
TEXT = "Stonehaven Group hired Petra Melado as its associate secretary!"
ENGINE = {"max_model_len": 1024, "enforce_eager": True, "cpu_kv_cache_gib": 1, "max_in_flight": 32}
READER = {"adapter": ADAPTER, "model": BASE, "engine": ENGINE, "windows": {"max_tokens": 128}}


def test_a_task_from_code_is_the_task_of_the_file():
    """The same recipe, fingerprint and all, wherever a config takes a task; a mapping in its place is read as a file is."""
    task = load_task(str(TASK))
    labels = {"PERSON": "people", "ORG": "companies, schools, offices", "PLACE": "towns, islands, lakes"}
    labels |= {"DATE": "dates", "PRODUCT": "goods and their models", "TITLE": "jobs and ranks"}
    written = Task("demo", labels)
    assert written == task
    as_mapping = {"name": "demo", "labels": labels}
    for adapter in (None, ADAPTER):
        recipes = [
            make_recipe(RecipeConfig(task=given, adapter=adapter, engine={"model": BASE}))
            for given in (str(TASK), TASK, written, as_mapping)
        ]
        assert all(recipe == recipes[0] for recipe in recipes)


def test_another_task_than_the_adapters_is_refused_from_code_as_from_a_file(tmp_path):
    """And both are told in the same words."""
    (tmp_path / "task.yaml").write_text("name: demo\nlabels: {PERSON: people}\n")
    said = []
    for task in (tmp_path / "task.yaml", Task("demo", {"PERSON": "people"})):
        with pytest.raises(UserError, match="task: the adapter was trained with") as refusal:
            extract([TEXT], task, adapter=ADAPTER, model=BASE)
        said.append(str(refusal.value))
    assert said[0] == said[1]


def test_what_a_task_in_a_config_may_not_be():
    """One line for each problem, as from a task file."""
    with pytest.raises(UserError) as refusal:
        extract([TEXT], {"nam": "t", "labels": {"PER": {"definiton": "people"}}}, model=BASE)
    assert sorted(str(refusal.value).splitlines()) == [
        "task.labels.PER.definiton: unknown field (did you mean definition?)",
        "task.nam: unknown field (did you mean name?)",
        "task.name: missing",
    ]
    with pytest.raises(UserError, match=r"^task: a task file's path, or a Task"):
        extract([TEXT], ["PER", "ORG"], model=BASE)


def test_options_are_those_of_a_recipe():
    """Whatever a config's YAML may say a keyword may say; what has a parameter of its own is none of them."""
    assert set(get_type_hints(Options)) == set(RecipeConfig.model_fields) - {"engine", "task", "adapter"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"formt": "json"}, "formt: unknown option (did you mean format?)"),
        ({"modle": "x"}, "modle: unknown option (did you mean model?)"),
        ({"max_model_len": 99}, "max_model_len: unknown option: it belongs to engine: engine={'max_model_len': ...}"),
        ({"k": 2}, "k: unknown option: it belongs to retrieval: retrieval={'k': ...}"),
        ({"format": "xml"}, "format: Input should be 'json', 'inline', 'mrc' or 'gpt-ner' (got 'xml')"),
        ({"engine": {"max_modle_len": 99}}, "engine.max_modle_len: unknown field (did you mean max_model_len?)"),
        ({"engine": "vllm"}, "engine: expected an EngineConfig or a dict of its fields, got str"),
        ({"engine": {"model": "other"}}, f"model: {BASE}, but engine.model says other: leave one out"),
        ({"model": None}, "model: missing: name a local folder or a hub name"),
        ({"adapter": "/nowhere"}, "/nowhere: no such adapter directory"),
        ({"demonstrations": []}, "examples: no example with text"),
        (
            {"demonstrations": "x", "retrieval": RetrievalConfig(index="y")},
            "demonstrations: retrieval.index is given too",
        ),
    ],
)
def test_wrong_options_are_refused_at_the_call(options, words):
    """Before anything starts, in words that name the option and the remedy."""
    with pytest.raises(UserError) as refusal:
        extract([TEXT], Task("t", ["PER"]), **({"model": BASE} | options))
    assert str(refusal.value).startswith(words)


@pytest.mark.parametrize(
    "texts",
    [
        "a text",
        b"a text",
        5,
        None,
        {"text": TEXT},
        *(kind({"text": [TEXT]}) for kind in (pd.DataFrame, pl.DataFrame, pa.table)),
    ],
    ids=lambda texts: type(texts).__name__,
)
def test_what_is_no_list_of_texts_is_refused_at_the_call(texts):
    """A single text would be read letter by letter, a table by the names of its columns."""
    with pytest.raises(UserError, match=r"^texts: "):
        extract(texts, adapter=ADAPTER, model=BASE)


def test_an_adapter_brings_task_and_model(tmp_path):
    """The base it was trained on, where its manifest says; one that is not there is named."""
    adapter = tmp_path / "adapter"
    shutil.copytree(ADAPTER, adapter)
    manifest = json.loads((adapter / "ner_batch.json").read_text())
    (adapter / "ner_batch.json").write_text(json.dumps(manifest | {"base_model": str(BASE)}))
    extract([TEXT], adapter=adapter)
    (adapter / "ner_batch.json").write_text(json.dumps(manifest | {"base_model": "/nowhere"}))
    with pytest.raises(UserError, match="/nowhere: no such model folder"):
        extract([TEXT], adapter=adapter)


def test_nothing_heavy_is_loaded_before_the_engine_is():
    """No Ray, no vLLM: neither for the names nor for a recipe that is checked."""
    program = (
        "import sys\n"
        "from ner_batch import Extractor, extract\n"
        "print([name for name in ('ray', 'torch', 'transformers', 'vllm') if name in sys.modules])\n"
        f"extract(['x'], adapter={str(ADAPTER)!r}, model={str(BASE)!r})\n"
        "print([name for name in ('ray', 'vllm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "[]"], done.stderr


@pytest.fixture(scope="module")
def extractor():
    """The tiny model with its adapter."""
    with Extractor(**READER) as opened:
        yield opened


@pytest.mark.engine
def test_any_iterable_of_texts_gives_the_same_predictions(extractor):
    """Lists, generators and columns; what is missing in any library's way is `empty`; order is kept."""
    (first,) = extractor.predict([TEXT])
    assert [(entity.type, entity.text) for entity in first.entities] == [
        ("ORG", "Stonehaven Group"),
        ("PERSON", "Petra Melado"),
        ("TITLE", "associate secretary"),
    ]
    texts = [TEXT, None, "", TEXT]
    for column in (
        texts,
        tuple(texts),
        pd.Series(texts),
        pd.Series(texts, dtype="string"),
        pl.Series(texts),
        pa.array(texts),
        pa.chunked_array([pa.array(texts).dictionary_encode()]),
        np.array([TEXT, float("nan"), "", TEXT], dtype=object),
        (text for text in texts),
    ):
        predictions = extractor.predict(column)
        assert [prediction.status for prediction in predictions] == ["ok", "empty", "empty", "ok"], type(column)
        assert predictions[0].entities == predictions[3].entities == first.entities
    assert extractor.predict([]) == list(extractor.stream([])) == []


@pytest.mark.engine
def test_a_generator_is_read_as_its_predictions_are_taken(extractor):
    """A million texts are no more memory than some hundred, and come back in order; a bad one is named in its place."""
    numbers = itertools.count()
    stream = extractor.stream(TEXT if number % 8 == 0 else "" for number in numbers)
    statuses = [prediction.status for prediction in itertools.islice(stream, 9)]
    assert statuses == ["ok", *["empty"] * 7, "ok"]
    assert next(numbers) <= 4 * 32  # a batch for each of the three threads that `max_in_flight` makes, and one
    stream.close()
    with pytest.raises(UserError, match=r"^texts\[1\]: expected a text or None, got int"):
        list(extractor.stream([TEXT, 7]))
    with pytest.raises(UserError, match=r"^texts\[0\]: not UTF-8: invalid start byte at byte 0"):
        extractor.predict(pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")))


@pytest.mark.engine
def test_streamed_predictions_are_in_order(extractor):
    """Those of a list, although several batches are read at once."""
    texts = [example.text if number % 4 == 0 else "" for number, example in enumerate(gold("test")[:72])]
    assert list(extractor.stream(iter(texts))) == extractor.predict(texts)


@pytest.mark.engine
def test_an_engine_that_is_closed_gives_its_memory_back(extractor):
    """Closed, dropped, or left by a loop that breaks off; and another engine of this process reads on."""
    process = psutil.Process()
    before = process.memory_info().rss
    with Extractor(**READER) as second:
        (there,) = second.predict([TEXT])
        grown = process.memory_info().rss - before
    assert "closed" in repr(second)
    with pytest.raises(UserError, match="this Extractor is closed"):
        second.predict([TEXT])
    second.close()
    assert grown > 0.8 * 2**30  # most of it the cache of the engine's config, 1 GiB
    assert process.memory_info().rss - before < grown / 4
    dropped = Extractor(**READER)
    del dropped
    gc.collect()
    assert process.memory_info().rss - before < grown / 4
    examples = gold("train")[:30]
    task = Task("demo", ["PERSON", "ORG"])
    shown = extract(itertools.repeat(TEXT), task, demonstrations=examples, **(READER | {"adapter": None}))
    prediction = next(shown)
    assert prediction.prompt_tokens > 1.5 * there.prompt_tokens  # the examples stand in the prompt
    shown.close()
    assert process.memory_info().rss - before < grown / 4
    assert extractor.predict([TEXT]) == [there]


@pytest.mark.engine
def test_a_plain_script_with_the_engine_in_a_process_of_its_own(tmp_path):
    """No `if __name__ == "__main__"`, as on a GPU by default: it runs once, prints nothing but its own, and leaves nobody."""
    shutil.copytree(FILES / "base", tmp_path / "base")
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "api_use.py"), str(tmp_path), TEXT],
        env=PLAIN,  # an engine of another test has set what vLLM logs
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        "[Stonehaven Group|ORG] hired [Petra Melado|PERSON] as its [associate secretary|TITLE]!",
        "Ray runs: False",
        "generator statuses to come",
    ], done.stderr
    # Where the machine is busy Python may end before it has heard that vLLM's process has given its memory back.
    own = re.sub(r"\S*resource_tracker\.py:\d+: UserWarning: .*leaked.*\n.*warnings\.warn\(.*\n?", "", done.stderr)
    assert not own


def test_a_process_that_is_spawned_does_not_run_the_script(tmp_path):
    """Multiprocessing would import it first: here it would say so, and spawn again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "from ner_batch.engine.host import without_main\n"
        "print('runs', flush=True)\n"
        "with without_main():\n"
        "    process = multiprocessing.get_context('spawn').Process(target=print, args=('started',))\n"
        "    process.start()\n"
        "process.join()\n"
        "sys.exit(process.exitcode)\n"
    )
    for command in ([str(script)], ["-m", "script"]):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=PLAIN, capture_output=True, text=True)
        assert (done.returncode, done.stdout.splitlines()) == (0, ["runs", "started"]), done.stderr
