"""A node that only extracts needs no extra; a verb that does names it in one line before it starts."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from random_model import save_random_model

from ner_batch.data import Entity, Example
from ner_batch.errors import EXTRAS, UserError, require_extra
from ner_batch.retrieval import build

ROOT = Path(__file__).parent.parent
IMPORTED_AS = {"sentence-transformers": "sentence_transformers", "tensorboardx": "tensorboardX"}
"""Packages of the extras that are imported by another name than they are installed by."""


def extra_modules(extra: str) -> set[str]:
    """What an extra of pyproject.toml brings, as it is imported; ray is there anyway."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {requirement.partition(">=")[0] for requirement in extras[extra] if not requirement.startswith("ray[")}
    return {IMPORTED_AS.get(name, name) for name in names}


ABSENT = sorted(
    {"wandb", "mlflow", "bitsandbytes"} | set().union(*map(extra_modules, ("encoder", "train", "evaluate", "spacy")))
)
"""Packages that a node that only extracts does not have. safetensors stays: vLLM and transformers bring it."""
ABSENT.remove("safetensors")

# Python refuses to import what sys.modules says is None, from anywhere, and find_spec does not find it.
PREAMBLE = f"import sys\nfor name in {ABSENT}: sys.modules[name] = None\n"


def without_extras(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh Python in which no extra is installed."""
    command = [sys.executable, "-c", PREAMBLE + program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


VERBS = (
    "ablate",
    "demo",
    "evaluate",
    "export",
    "extract",
    "import",
    "index",
    "merge",
    "report",
    "train",
    "train-encoder",
)
COMMAND_LINE = "from ner_batch.cli import main\nsys.argv[0] = 'ner-batch'\nmain()"


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_is_asked_for_is_what_the_extra_brings(extra: str) -> None:
    """A module that a verb asks for must come with the extra that its message names."""
    assert set(EXTRAS[extra]) == extra_modules(extra)


def test_a_missing_module_is_one_line_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that are missing, and the command that installs them; nothing where nothing is missing."""
    require_extra("train", "json", purpose="`train`")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError) as raised:
        require_extra("train", "json", "peft", "no_such_module", purpose="`train`")
    assert str(raised.value) == "`train` needs peft, no_such_module: pip install 'ner-batch[train]'"


def test_extraction_is_imported_without_any_extra() -> None:
    """Every module of extraction, of what a replica holds and below, and the public names."""
    done = without_extras(
        "import importlib, pkgutil, ner_batch\n"
        "rooms = 'exchange extraction engine retrieval verification prompts text io jobs'.split()\n"
        "for room in rooms:\n"
        "    package = importlib.import_module('ner_batch.' + room)\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "for name in ner_batch.__all__: getattr(ner_batch, name)\n"
        "print('imported', len([name for name in sys.modules if name.startswith('ner_batch.')]))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("imported ")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a small extraction with demonstrations out of a lexical index."""
    folder = tmp_path_factory.mktemp("extraction")
    save_random_model(folder / "model")
    pq.write_table(pa.table({"text": ["Anna Berg of Acme", "Nobody"]}), folder / "in.parquet")
    gold = [Example(str(n), f"Person {n} came", (Entity(0, 8, "PER", f"Person {n}"),)) for n in range(4)]
    build(gold, "lexical", folder / "index")
    values = {
        "input": {"path": str(folder / "in.parquet")},
        "output": {"path": str(folder / "out")},
        "engine": {"model": str(folder / "model"), "max_model_len": 4096},
        "task": str(folder / "task.yaml"),
        "retrieval": {"index": str(folder / "index"), "k": 2},
    }
    (folder / "task.yaml").write_text(yaml.safe_dump({"name": "t", "labels": {"PER": "a person"}}))
    (folder / "job.yaml").write_text(yaml.safe_dump(values))
    return folder / "job.yaml"


def test_an_extraction_is_planned_without_any_extra(job: Path) -> None:
    """All that the driver checks before it starts replicas: model, task, index, input, output."""
    done = without_extras(
        "from ner_batch.config import load\nfrom ner_batch.extraction.settings import ExtractConfig\n"
        "from ner_batch.extraction.plan import prepare\n"
        "plan = prepare(load(ExtractConfig, sys.argv[1]))\n"
        "print(plan.rows)",
        str(job),
    )
    assert (done.returncode, done.stdout.strip()) == (0, "2"), done.stderr


def test_every_verb_has_help_without_any_extra() -> None:
    """`--help` is how a person learns that there is a verb to install an extra for."""
    program = (
        "from ner_batch.cli import app\n"
        "from typer.testing import CliRunner\n"
        f"for verb in {VERBS}:\n"
        "    outcome = CliRunner().invoke(app, [verb, '--help'])\n"
        "    assert outcome.exit_code == 0 and 'Usage' in outcome.stdout, (verb, outcome.output)"
    )
    done = without_extras(program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (["train", "jobs/train.yaml"], "peft", "train"),
        (["merge", "adapter", "out"], "peft", "train"),
        (["demo"], "peft", "train"),
        (["train-encoder", "jobs/train-encoder.yaml"], "sentence_transformers", "encoder"),
        (["evaluate", "jobs/evaluate.yaml"], "matplotlib", "evaluate"),
        (["ablate", "jobs/ablate.yaml"], "matplotlib", "evaluate"),
        (["import", "spacy", "pyproject.toml", "/tmp/no-such-gold.parquet"], "spacy", "spacy"),
        (["report", "out", "--gold", "gold.parquet"], "duckdb", "evaluate"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_verb_names_the_extra_that_it_lacks(arguments: list[str], missing: str, extra: str) -> None:
    """Exit code 2 and one line with the command that installs what is missing."""
    done = without_extras(COMMAND_LINE, *(str(ROOT / a) if a.endswith(".yaml") else a for a in arguments))
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert missing in line
    assert line.endswith(f"pip install 'ner-batch[{extra}]'")


def test_an_index_with_an_encoder_names_its_extra(tmp_path: Path, job: Path) -> None:
    """`index` needs the extra for the kinds with an encoder alone: lexical is built without."""
    examples = job.parent / "index" / "examples.parquet"
    for kind, encoder, code in (("lexical", None, 0), ("sentence", str(tmp_path), 2)):
        values = {"examples": str(examples), "kind": kind, "out": str(tmp_path / kind), "encoder": encoder}
        (tmp_path / "index.yaml").write_text(json.dumps(values))
        done = without_extras(COMMAND_LINE, "index", str(tmp_path / "index.yaml"))
        assert done.returncode == code, done.stderr
    assert done.stderr.strip() == (
        f"error: encoder {tmp_path} needs sentence_transformers: pip install 'ner-batch[encoder]'"
    )
