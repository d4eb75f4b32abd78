"""docs/cli.md is current, every command that a page or a help shows can be parsed, and `--help` starts fast."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ner_batch.cli import app
from ner_batch.command.schema import KINDS, config_class
from ner_batch.config import load

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "ner_batch" / "command" / "files").glob("*.yaml")]
COMMAND = re.compile(r"(?:^|[`/ ])ner-batch ((?:-|[a-z])[^`#\n<>]*)")


def commands():
    """(file, words) of every command of ours that is shown in a code block or in backticks."""
    for page in PAGES:
        text = re.sub(r"\\\n[# ]*", " ", page.read_text(encoding="utf-8"))
        blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL) if page.suffix == ".md" else []
        for place in [*blocks, *re.findall(r"`(\.?[\w./]*ner-batch [^`]+)`", text)]:
            for line in re.sub(r"\"[^\"]*\"", lambda quoted: quoted[0].replace("\n", " "), place).splitlines():
                if found := COMMAND.search(line):
                    yield page.name, found[1].strip()


SHOWN = sorted(set(commands()))


def test_the_page_is_current():
    """docs/cli.md is what `python docs/cli.py` writes."""
    page = runpy.run_path(str(ROOT / "docs" / "cli.py"))["cli_page"]()
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == page, "run: python docs/cli.py"


def test_the_page_has_every_variable_of_ours():
    """Those that any module reads."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "ner_batch").rglob("*.py"))
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\bNER_BATCH_[A-Z_]+", sources)) <= set(re.findall(r"NER_BATCH_[A-Z_]+", page))


def test_commands_are_found():
    """Of the README, of the guide and of the help."""
    assert len(SHOWN) > 40
    assert {page for page, _ in SHOWN} >= {"README.md", "guide.md", "cli.md"}


@pytest.mark.parametrize(("page", "command"), SHOWN)
def test_a_command_that_is_shown_can_be_typed(page, command):
    """Verb, arguments and options exist, and overrides fit the config where it is there."""
    root = typer.main.get_command(app)
    words = shlex.split(command)
    verb = next((word for word in words if word in root.commands), None)
    if "VERB" in command or words[0] == "--help" or words[-1] in {"KIND", "--install-completion"}:
        return
    assert verb, f"{page}: {command}"
    if len(words) == 1 or any(word in {"...", "X"} for word in words):
        return  # spoken of, not shown
    arguments = words[words.index(verb) + 1 :]
    context = root.commands[verb].make_context(verb, list(arguments))
    file = context.params.get("config_file")
    if file and verb in KINDS and (ROOT / file).is_file():
        load(config_class(verb), ROOT / file, context.params["overrides"] or ())


def test_every_verb_has_a_line_a_group_and_examples():
    """The line fits beside the verb at 80 columns; each example begins with the command."""
    for name, command in typer.main.get_command(app).commands.items():
        assert command.rich_help_panel, name
        assert len(command.help.partition("\n")[0]) <= 60, name
        title, *examples = command.epilog.splitlines()
        assert title == "Examples:", name
        assert examples, name
        assert all(line.strip().startswith(f"ner-batch {name}") and len(line) <= 78 for line in examples), name


def test_help_needs_no_job():
    """None of what takes seconds to import, for help, completion and errors."""
    program = (
        "import contextlib, sys\n"
        "from ner_batch.cli import main\n"
        "for words in (['--help'], ['extract', '--help'], ['extrct'], ['extract', '/no/such.yaml']):\n"
        "    with contextlib.suppress(SystemExit): main(*words)\n"
        "heavy = {'ray', 'torch', 'vllm', 'pandas', 'transformers', 'pyarrow', 'numpy', 'fsspec', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[]"
