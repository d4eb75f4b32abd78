"""The ablation runner: which combinations there are, what is refused before an engine starts, and a real run that resumes."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from refusals import refused
from rich.console import Console
from tiny import ADAPTER, TASK, gold
from typer.testing import CliRunner

from ner_batch.cli import app
from ner_batch.config import load
from ner_batch.experiments import job, plan
from ner_batch.experiments.grid import combinations, index_kinds, recipe_config
from ner_batch.experiments.settings import AblateConfig
from ner_batch.io.examples import examples_table

BASE = {"engine": {"model": "m"}, "task": "t", "gold": {"test": "g", "examples": "e"}, "output": "o"}


def config(**axes):
    """A config with these axes and two adapters."""
    return AblateConfig.model_validate(BASE | {"adapters": {"a": "x/a", "b": "x/b"}, "axes": axes})


def test_every_combination_once():
    """The product of the axes, but no k where nothing is shown; names differ."""
    every = combinations(
        config(
            reader=["base", "a", "b"],
            format=["json", "mrc"],
            retrieval=["none", "lexical", "random"],
            k=[1, 4],
            verification=["none", "few-shot"],
        )
    )
    assert len(every) == 3 * 2 * (1 + 2 * 2) * 2
    assert len({combination.name for combination in every}) == len(every)
    assert {combination.k for combination in every if combination.retrieval == "none"} == {0}
    assert every[0].values == {
        "reader": "base",
        "format": "json",
        "decoding": "auto",
        "retrieval": "none",
        "k": 0,
        "verification": "none",
        "size": None,
        "seed": None,
    }


def test_values_given_twice_are_read_once():
    """Names are file names, so no two combinations may share one."""
    assert len(combinations(config(decoding=["auto", "auto"], retrieval=["none", "none"]))) == 1


def test_a_combination_is_a_run_of_extract():
    """Adapter, index, k and verification arrive where extract reads them."""
    given = config(reader=["a"], retrieval=["random"], k=[3], verification=["few-shot"])
    (combination,) = combinations(given)
    recipe = recipe_config(combination, given, "x/a", {"random": "/index"})
    assert (recipe.adapter, recipe.format, recipe.task) == ("x/a", "json", "t")
    assert (recipe.retrieval.index, recipe.retrieval.k) == ("/index", 3)
    assert (recipe.verify.k, recipe.verify.threshold) == (4, None)
    few_shot_alone = config(verification=["few-shot"])
    (combination,) = combinations(few_shot_alone)
    assert index_kinds(few_shot_alone) == ("lexical",)
    recipe = recipe_config(combination, few_shot_alone, None, {"lexical": "/index"})
    assert (recipe.retrieval.index, recipe.retrieval.k, recipe.adapter) == ("/index", 0, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    """Gold of the demo, and a config on the shipped model."""
    folder = tmp_path_factory.mktemp("ablation")
    for split in ("train", "dev", "test"):
        examples = gold(split)
        named = [replace(x, id="the same") for x in examples] if split == "dev" else examples
        pq.write_table(examples_table(named), folder / f"{split}.parquet")
    engine = {"model": tiny_model, "dtype": "float32", "max_model_len": 1024, "max_num_seqs": 32}
    values = {
        "engine": engine | {"cpu_kv_cache_gib": 1, "enforce_eager": True},
        "task": str(TASK),
        "gold": {"test": f"{folder}/dev.parquet", "examples": f"{folder}/train.parquet", "limit": 10},
        "output": f"{folder}/out",
        "adapters": {"demo": str(ADAPTER)},
        "axes": {
            "reader": ["demo", "base"],
            "format": ["json", "mrc"],
            "retrieval": ["none", "lexical"],
            "k": [1],
            "verification": ["none", "zero-shot"],
        },
        "windows": {"max_tokens": 200},
        "resamples": 200,
    }
    (folder / "ablate.yaml").write_text(yaml.safe_dump(values))
    return folder


def ablate(folder, *overrides):
    """The command; (exit code, output lines, error lines)."""
    result = CliRunner().invoke(app, ["ablate", str(folder / "ablate.yaml"), *overrides])
    assert not isinstance(result.exception, ValueError), result.exception
    return result.exit_code, result.stdout.splitlines(), result.stderr.splitlines()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("gold.test=/no/gold.parquet", ("/no/gold.parquet",)),
        ("gold.examples=null", ("gold.examples", "missing")),
        ("axes.reader=[basse]", ("axes.reader", "basse", "demo")),
        ("axes.formats=[json]", ("axes.formats", "did you mean format?")),
        ("adapters={demo: /no/adapter}", ("/no/adapter",)),
        ("engine.model=/no/model", ("/no/model",)),
        ("axes={reader: [demo], format: [mrc]}", ("no combination", "trained with json")),
        ("output=s3://bucket/x", ("output", "local folder")),
        ("verify_k=100", ("verify_k",)),
        ("adapters={a/b: x}", ("adapters",)),
        ("engine.extra={bogus: 1}", ("bogus",)),
    ],
)
def test_bad_input(folder, override, words):
    """One line that names the field, exit code 2, no engine."""
    code, _, errors = ablate(folder, override)
    assert not Path("s3:").exists()
    refused((code, list(dict.fromkeys(errors))), *words)


def test_a_dry_run(folder):
    """Cells, those left out and what is checked later are told; nothing is written, not even an index."""
    code, output, _ = ablate(folder, "--dry-run", f"output={folder}/dry")
    assert code == 0
    text = " ".join(output)
    assert "14 cells of 10 texts; of 6 without index and training 0 are done" in text
    assert "left out: demo_mrc_auto_none_k0_verify-none: " in text
    assert "8 cells search an index (lexical; 4,000 examples)" in text
    assert not (folder / "dry").exists()
    code, _, errors = ablate(folder, "--dry-run", "gold.test=nowhere")
    refused((code, errors), "nowhere")


def run(folder, *overrides):
    """The ablation to its end, in this process; what it printed."""
    printed = io.StringIO()
    work = plan.prepare(load(AblateConfig, folder / "ablate.yaml", overrides))
    assert job.run(work, Console(file=printed, width=200)) == job.OK
    return printed.getvalue().splitlines()


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_a_run_its_report_and_its_resumption(folder):
    """Every cell is read once; what contradicts the adapter is left out by name; a second run reads what is missing."""
    lines = run(folder)
    left_out = [line for line in lines if line.startswith("left out: ")]
    assert len(left_out) == 4
    assert all("demo_mrc" in line and "trained with json" in line for line in left_out)
    found = json.loads((folder / "out" / "report.json").read_text())
    assert found["texts"] == 10
    assert len(found["cells"]) == 12
    first, verified = found["cells"][:2]
    assert first["strict"]["micro"]["f1"]["value"] > 0.3
    assert verified["prompt_tokens"] > first["prompt_tokens"]
    base = next(c for c in found["cells"] if c["name"].startswith("base_json_auto_none_k0_verify-none"))
    assert base["difference"]["difference"] < -0.2
    assert base["difference"]["p"] < 0.05
    per_type = [c for c in found["cells"] if c["cell"]["format"] == "mrc"]
    assert all(c["prompt_tokens"] > 3 * base["prompt_tokens"] for c in per_type if c["cell"]["verification"] == "none")
    report = (folder / "out" / "report.md").read_text()
    assert "| demo json no demonstrations |" in report
    assert "| base mrc 1 lexical + zero-shot verification |" in report
    for plot in ("f1.png", "cost.png"):
        assert (folder / "out" / plot).read_bytes().startswith(b"\x89PNG")

    one = folder / "out" / "cells" / "base_json_auto_none_k0_verify-none.parquet"
    pq.write_table(pq.read_table(one).replace_schema_metadata(None), one)
    lines = run(folder)
    assert any("12 cells of 10 texts, 1 to read" in line for line in lines)
    again = json.loads((folder / "out" / "report.json").read_text())
    assert [c["strict"] for c in again["cells"]] == [c["strict"] for c in found["cells"]]
    lines = run(folder, "axes={reader: [demo], retrieval: [none, lexical], k: [1]}", "windows.max_tokens=150")
    assert any("2 cells of 10 texts, 2 to read" in line for line in lines)
