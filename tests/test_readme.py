"""The README's make targets exist, every verb has help, the map of files is current. What else pages say: test_docs.py."""

import re
import runpy
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ner_batch.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.partition("#")[0].strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]


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


@pytest.mark.parametrize("verb", typer.main.get_command(app).commands)
def test_every_verb_has_help(verb):
    """`--help` needs neither Ray nor vLLM and says what the verb does."""
    result = CliRunner().invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout
