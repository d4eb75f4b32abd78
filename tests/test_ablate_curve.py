"""Learning curves: the subsets, the combinations they make, what is refused before a training begins, and a real run."""

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from refusals import refused
from rich.console import Console
from tiny import TASK, gold
from typer.testing import CliRunner

from ner_batch.cli import app
from ner_batch.config import load
from ner_batch.data import Entity, Example
from ner_batch.errors import UserError
from ner_batch.experiments import job, plan
from ner_batch.experiments.grid import Combination, Subset, combinations, draw_subset, subsets
from ner_batch.experiments.plan import plan_trainings
from ner_batch.experiments.report import curves
from ner_batch.experiments.settings import AblateConfig, CurveConfig
from ner_batch.io.examples import examples_table
from ner_batch.task import load_task
from ner_batch.train.settings import TrainConfig

PLAIN = [Example(str(i), f"Nothing in {i}.", ()) for i in range(50)]
NAMED = [Example(f"n{i}", f"Anna{i} came.", (Entity(0, 5, "PER", f"Anna{i}"),)) for i in range(2)]


def test_a_subset_is_part_of_the_larger_one_of_its_seed():
    """Nested within a seed, different between seeds, nobody twice, and always with an entity in it."""
    examples = PLAIN + NAMED
    for seed in range(20):
        small, large = (draw_subset(examples, Subset(size, seed)) for size in (1, 8))
        assert small == large[:1]
        assert small[0].entities
        assert len(set(large)) == 8
    assert draw_subset(examples, Subset(8, 0)) != draw_subset(examples, Subset(8, 1))
    assert draw_subset(examples, Subset("all", 1)) == tuple(examples)
    assert [subset.name for subset in subsets(CurveConfig(sizes=(2, "all", 2), seeds=2))] == [
        "n2-s0",
        "nall-s0",
        "n2-s1",
        "nall-s1",
    ]


@pytest.mark.parametrize(("examples", "words"), [(NAMED, "has 2: write `all`"), (PLAIN, "no example has an entity")])
def test_a_subset_that_cannot_be_drawn(examples, words):
    """Too few examples, or nothing to learn."""
    with pytest.raises(ValueError, match=words):
        draw_subset(examples, Subset(8, 0))


def values(**more):
    """A config as plain values."""
    axes = {"reader": ["base", "trained", "a"], "retrieval": ["none", "lexical"], "k": [2]}
    given = {"engine": {"model": "m"}, "task": "t", "gold": {"test": "g", "examples": "e"}, "output": "o"}
    curve = {"sizes": [8, "all"], "seeds": 3, "train": "train.yaml"}
    return given | {"adapters": {"a": "x"}, "axes": axes, "curve": curve} | more


def test_combinations_depend_on_the_subsets_they_see():
    """Nothing shown and nothing trained: one combination. All examples shown: one subset. An adapter: its own for every seed."""
    grid = combinations(AblateConfig.model_validate(values()))
    count = {(r, k): sum(c.reader == r and c.k == k for c in grid) for r in ("base", "trained", "a") for k in (0, 2)}
    assert count == {("base", 0): 1, ("base", 2): 4, ("trained", 0): 6, ("trained", 2): 6, ("a", 0): 1, ("a", 2): 4}
    assert len({combination.name for combination in grid}) == len(grid)
    assert {combination.values["size"] for combination in grid} == {None, 8, "all"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"curve": None}, "curve.train: missing"),
        ({"curve": {"sizes": [8]}}, "curve.train: missing"),
        ({"adapters": {"a": "x", "trained": "y"}}, "name of a reader"),
        ({"gold": {"test": "g"}}, "gold.examples: missing"),
        ({"curve": {"sizes": [0], "train": "t"}}, "greater than or equal to 1"),
        ({"curve": {"sizes": [8, "all"], "steps": {"16": 3}, "train": "t"}}, r"curve.steps: 16: .*\(8, all\)"),
    ],
)
def test_configs_that_mean_nothing(change, words):
    """Refused by the config alone."""
    with pytest.raises(ValueError, match=words):
        AblateConfig.model_validate(values(**change))


def combination(reader, subset=None):
    """A combination that asks without demonstrations and verification."""
    return Combination(reader, "json", "auto", "none", 0, "none", subset)


def test_curves():
    """Subsets of a size come together; "all" stands at its number; what depends on no subset is flat."""
    trained = {Subset(8, 0): 0.1, Subset(8, 1): 0.3, Subset("all", 0): 0.5}
    f1 = {combination("base"): 0.2} | {combination("trained", subset): value for subset, value in trained.items()}
    base, of_trained = curves(f1, 20)
    assert (base.name, base.flat, base.points) == ("base", True, {8: (0.2,), 20: (0.2,)})
    assert (of_trained.name, of_trained.flat) == ("trained", False)
    assert of_trained.points == {8: (0.1, 0.3), 20: (0.5,)}
    assert curves({combination("base"): 0.2}, 20) == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    """Gold of the demo, a training of three steps, and a curve of two sizes."""
    folder = tmp_path_factory.mktemp("curve")
    for split in ("train", "dev", "test"):
        pq.write_table(examples_table(gold(split)[:40]), folder / f"{split}.parquet")
    train = {
        "base": {"model": tiny_model, "dtype": "float32", "max_model_len": 1024},
        "task": "set-by-the-curve",
        "gold": {"train": "set-by-the-curve"},
        "output": "set-by-the-curve",
        "demonstrations": {"kind": "lexical", "k": {0: 1, 1: 1}},
        "optimiser": {"steps": 3},
        "evaluation": {"every": 3, "examples": 2},
        "run": {"report_to": "none"},
        "serving": {"prompts": 0},
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(train))
    engine = {"model": tiny_model, "dtype": "float32", "max_model_len": 1024, "max_num_seqs": 32}
    given = {
        "engine": engine | {"cpu_kv_cache_gib": 1, "enforce_eager": True},
        "task": str(TASK),
        "gold": {"test": f"{folder}/dev.parquet", "examples": f"{folder}/train.parquet", "limit": 5},
        "output": f"{folder}/out",
        "axes": {"reader": ["base", "trained"], "retrieval": ["none", "lexical"], "k": [1]},
        "curve": {"sizes": [4, "all"], "seeds": 1, "train": f"{folder}/train.yaml"},
        "windows": {"max_tokens": 200},
        "resamples": 100,
    }
    (folder / "curve.yaml").write_text(yaml.safe_dump(given))
    return folder


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("curve.sizes=[8, 500]", ("curve.sizes", "500", "has 40")),
        ("curve.sizes=[8, 40, all]", ("curve.sizes", "40 are all of gold.examples")),
        ("curve.train=/no/train.yaml", ("/no/train.yaml", "no such file")),
        ("axes.format=[mrc]", ("axes.format", "json")),
        ("axes.retrieval=[random]", ("axes.retrieval", "lexical, none")),
        ("gold.examples=/no/gold.parquet", ("/no/gold.parquet",)),
        ("axes={reader: [trained], retrieval: [none]}", ("windows.max_tokens=200", "engine.max_model_len")),
    ],
)
def test_bad_input(folder, override, words):
    """One line, exit code 2, before a training begins; nothing is written."""
    small = ["engine.max_model_len=300"] if "trained" in override else []
    told = [override, f"output={folder}/refused", *small]
    done = CliRunner().invoke(app, ["ablate", str(folder / "curve.yaml"), *told])
    refused((done.exit_code, list(dict.fromkeys(done.stderr.splitlines()))), *words)
    assert not list(Path(folder / "refused").rglob("*"))


def test_an_adapter_is_named_by_what_decides_it(folder, tmp_path):
    """Other places and what is asked of the result make no difference; the draw, the seed and the settings do."""
    config = load(AblateConfig, folder / "curve.yaml", [f"output={tmp_path}"])
    examples = gold("train")[:40]
    train, task = load(TrainConfig, folder / "train.yaml"), load_task(str(TASK))

    def names(**changed):
        return [Path(t.config.output).name for t in plan_trainings(config, changed_by(changed), task, examples, ())]

    def changed_by(changed):
        return train.model_copy(update={k: getattr(train, k).model_copy(update=v) for k, v in changed.items()})

    assert len(set(names())) == 2
    assert names(serving={"min_agreement": 0.1}, run={"storage": "elsewhere", "name": "x"}) == names()
    assert not set(names(run={"workers": 2})) & set(names())
    assert not set(names(optimiser={"steps": 4})) & set(names())


def test_steps_by_size(folder, tmp_path):
    """A size with steps of its own is trained for so many, under another name; the others stay what they were."""
    train, task = load(TrainConfig, folder / "train.yaml"), load_task(str(TASK))
    of_all, by_size = (
        plan_trainings(
            load(AblateConfig, folder / "curve.yaml", [f"output={tmp_path}", *more]), train, task, examples, ()
        )
        for examples in [gold("train")[:40]]
        for more in ([], ["curve.steps={all: 9}"])
    )
    assert [training.config.optimiser.steps for training in of_all] == [3, 3]
    assert [training.config.optimiser.steps for training in by_size] == [3, 9]
    same = [one.config.output == other.config.output for one, other in zip(of_all, by_size, strict=True)]
    assert same == [True, False]


def test_a_dev_set_that_is_not_there_is_named_with_its_file(folder):
    """It stands in the training's config, not in this one."""
    wrong = yaml.safe_load((folder / "train.yaml").read_text())
    wrong["gold"]["dev"] = "/no/dev.parquet"
    (folder / "dev.yaml").write_text(yaml.safe_dump(wrong))
    told = [f"curve.train={folder}/dev.yaml", f"output={folder}/refused"]
    done = CliRunner().invoke(app, ["ablate", str(folder / "curve.yaml"), *told])
    refused((done.exit_code, done.stderr.splitlines()), "dev.yaml: gold.dev", "/no/dev.parquet")


def test_a_training_that_cannot_be_run_is_refused_beforehand(folder):
    """Every fault of the training's config is found before the first adapter is trained, and names its file."""
    wrong = yaml.safe_load((folder / "train.yaml").read_text())
    wrong["lora"] = {"targets": ["nothing_like_it"]}
    (folder / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    done = CliRunner().invoke(
        app, ["ablate", str(folder / "curve.yaml"), f"curve.train={folder}/wrong.yaml", f"output={folder}/refused"]
    )
    refused((done.exit_code, done.stderr.splitlines()), "wrong.yaml", "nothing_like_it")
    assert not list(Path(folder / "refused").rglob("*"))


@pytest.mark.ray
def test_a_training_that_fails_for_what_the_user_can_mend(folder, tmp_path):
    """Every such problem comes at the end with the training's file, once for all trainings, and the exit code is 2."""
    overrides = [f"output={tmp_path}", "axes={reader: [trained], retrieval: [none]}"]
    prepared = plan.prepare(load(AblateConfig, folder / "curve.yaml", overrides))
    (tmp_path / "adapters").write_text("a file where adapters were to lie")
    printed = io.StringIO()
    with pytest.raises(UserError) as refusal:
        job.run(prepared, Console(file=printed, width=200))
    problems = str(refusal.value).splitlines()
    assert len(problems) == 2
    for problem, training in zip(problems, prepared.trainings, strict=True):
        assert problem.startswith(f"{folder}/train.yaml: ")
        assert training.config.output in problem
    assert "2 adapters, 2 to train" in printed.getvalue()


def test_a_dry_run(folder, tmp_path):
    """Adapters to train are told with their sizes; none is trained, nothing is written."""
    done = CliRunner().invoke(app, ["ablate", str(folder / "curve.yaml"), "--dry-run", f"output={tmp_path}/out"])
    assert done.exit_code == 0, done.output
    assert "adapters to train, 0 of them done; examples: " in done.output
    assert not list(tmp_path.iterdir())


def run(folder, *overrides):
    """The curve to its end, in this process; what it printed."""
    printed = io.StringIO()
    work = plan.prepare(load(AblateConfig, folder / "curve.yaml", overrides))
    assert job.run(work, Console(file=printed, width=200)) == job.OK
    return printed.getvalue()


@pytest.mark.engine
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_curve_and_its_resumption(folder):
    """An adapter per draw sees that draw alone; all cells are read; a second run trains and reads only what is missing."""
    printed = run(folder)
    assert "2 adapters, 2 to train" in printed
    assert "7 cells of 5 texts, 7 to read" in printed
    adapters = sorted((folder / "out" / "adapters").iterdir())
    assert [path.name.rsplit("-", 1)[0] for path in adapters] == ["n4-s0", "nall-s0"]
    one, two = ((path / "adapter_model.safetensors").read_bytes() for path in adapters)
    assert one != two
    seen = {path.stem.rsplit("-", 1)[0]: pq.read_table(path).num_rows for path in (folder / "out" / "draws").iterdir()}
    assert seen == {"n4-s0": 4, "nall-s0": 40}
    assert not list((folder / "out" / "runs").glob("*"))

    found = json.loads((folder / "out" / "report.json").read_text())
    assert {(line["name"], line["flat"]) for line in found["curves"]} == {
        ("base no demonstrations", True),
        ("base 1 lexical", False),
        ("trained no demonstrations", False),
        ("trained 1 lexical", False),
    }
    assert all(set(line["points"]) == {"4", "40"} for line in found["curves"])
    assert all(cell["not_ok"] < 5 for cell in found["cells"])
    assert "## F1 by the number of annotated examples" in (folder / "out" / "report.md").read_text()
    assert (folder / "out" / "curve.png").read_bytes().startswith(b"\x89PNG")

    (folder / "out" / "cells" / "base_json_auto_lexical_k1_verify-none_n4-s0.parquet").unlink()
    printed = run(folder)
    assert "2 adapters, 0 to train" in printed
    assert "7 cells of 5 texts, 1 to read" in printed
