"""The README is true: its commands exist, its overrides fit the configs, the map of files is current."""

import re
import runpy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ner_batch.cli import app
from ner_batch.config import load
from ner_batch.encoder.settings import TrainEncoderConfig
from ner_batch.evaluate.settings import EvaluateConfig
from ner_batch.experiments.settings import AblateConfig
from ner_batch.extraction.settings import ExtractConfig
from ner_batch.jobs.index import IndexConfig
from ner_batch.train.settings import TrainConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.partition("#")[0].strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
KINDS = {
    "ablate": AblateConfig,
    "evaluate": EvaluateConfig,
    "extract": ExtractConfig,
    "index": IndexConfig,
    "train": TrainConfig,
    "train-encoder": TrainEncoderConfig,
}


def test_the_map_of_files_is_current():
    """docs/files.md is what `python docs/files.py` writes, and every file says in its first line what it is for."""
    page = runpy.run_path(str(ROOT / "docs" / "files.py"))["files_page"]()
    assert (ROOT / "docs" / "files.md").read_text(encoding="utf-8") == page, "run: python docs/files.py"
    assert not [line for line in page.splitlines() if line.endswith("`: ")]


def test_make_targets_exist():
    """`make X` of the README is a target of the Makefile; `.ci/run` runs the README's test command."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    assert used >= {"demo", "test", "install"}
    assert used <= targets
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_commands_name_verbs_options_and_fields_that_exist():
    """Every `ner-batch` line: the verb and its options exist, the config file loads with the overrides."""
    lines = [command.split()[1:] for command in COMMANDS if "ner-batch " in command]
    assert len(lines) >= 4
    for verb, config, *rest in lines:
        if verb not in KINDS:
            continue
        overrides = [word for word in rest if "=" in word]
        load(KINDS[verb], ROOT / config, overrides)
        text = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
        for option in (word for word in rest if word.startswith("--")):
            assert option in text


@pytest.mark.parametrize("verb", [*KINDS, "merge", "demo"])
def test_every_verb_has_help(verb):
    """`--help` needs neither Ray nor vLLM and says what the verb does."""
    result = CliRunner().invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_submitted_command_loads():
    """The cluster recipe's entrypoint: the script exists and the overrides fit."""
    submit = next(command for command in COMMANDS if command.startswith("ray job submit"))
    python, script, config, *overrides = submit.partition(" -- ")[2].split()
    assert python == "python"
    assert (ROOT / script).is_file()
    load(ExtractConfig, ROOT / config, overrides)
