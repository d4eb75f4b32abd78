"""Writes docs/cli.md: every verb with its arguments, options and examples, from the command. `python docs/cli.py`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from ner_batch.cli import app

HEAD = """# The command line

Written by `python docs/cli.py` from the command itself; `ner-batch --help` and `ner-batch VERB --help` say the same.

A verb that takes a CONFIG reads a YAML file, or standard input for `-`; relative paths in it are as seen from the
working directory. `A.B=VALUE` after it sets a value on top of the file. `ner-batch init` writes configs of a project of
your own, with the first line by which editors with the YAML language server complete and check them; `ner-batch schema
KIND` prints the JSON Schemas.

Shells complete verbs, options, files and the configs' keys (`retrieval.k=`): `ner-batch --install-completion` in bash,
zsh or fish, once.

## Exit codes

| code | meaning |
|---|---|
| 0 | fine |
| 1 | crash; of a job that cannot go on, with one line. What is finished stays |
| 2 | the command line, a config or the input is wrong: one line for each problem, with its remedy |
| 3 | more rows failed than `job.max_failed` or shards unreadable (`extract`), not complete (`status`) |
| 130 | interrupted, with state saved (Ctrl-C, SIGTERM) |

Where the reader of stdout leaves (`| head`) or its disk is full, a job goes on and ends with its own code.

## Environment

| variable | meaning |
|---|---|
| `NER_BATCH_VERBOSE` | as `--verbose` |
| `NER_BATCH_QUIET` | as `--quiet` |
| `NER_BATCH_LOG_FORMAT` | as `--log-format` |
| `NO_COLOR`, `FORCE_COLOR` | no colours on a terminal; the terminal's output, colours included, in a pipe or file |
| `COLUMNS` | width of help and tables |
| `RAY_ADDRESS` | the Ray cluster to join where the config names none |
| `AWS_*`, `AWS_ENDPOINT_URL` | credentials, profile and endpoint of `s3://` |
| `HF_HOME`, `HF_HUB_OFFLINE`, `HF_TOKEN` | Hugging Face's, for models by hub name |
| `TMPDIR` | where `evaluate` joins what does not fit into memory |
"""


def cli_page() -> str:
    """The page."""
    root: Any = typer.main.get_command(app)
    context = root.context_class(root, info_name="ner-batch")
    lines = [HEAD, "## Before the verb", "", *table(root, context)]
    panels: defaultdict[str, list[str]] = defaultdict(list)
    for name, command in root.commands.items():
        panels[command.rich_help_panel].append(name)
    for panel, names in panels.items():
        lines += ["", f"## {panel}"]
        for name in names:
            command = root.commands[name]
            inner = command.context_class(command, parent=context, info_name=name)
            examples = plain(command.epilog).removeprefix("Examples:").strip("\n")
            lines += ["", f"### ner-batch {name}", "", *plain(command.help).splitlines(), ""]
            lines += [*table(command, inner), "", "```bash", *(line.strip() for line in examples.splitlines()), "```"]
    return "\n".join(lines) + "\n"


def plain(markup: str | None) -> str:
    """A help text without rich's escapes."""
    return Text.from_markup(markup or "").plain


def table(command: Any, context: Any) -> Iterator[str]:
    """Arguments, then options, each with its default."""
    yield "| argument or option | meaning |"
    yield "|---|---|"
    for parameter in sorted(command.get_params(context), key=lambda parameter: parameter.param_type_name):
        if parameter.name == "help":
            continue
        kind = (parameter.display_type_rich(context) or "").replace("|", "\\|")
        option = parameter.param_type_name == "option"
        names = ", ".join([*parameter.opts, *parameter.secondary_opts])
        name = f"{names} {kind}".strip() if option else parameter.display_name_raw
        default = parameter.default
        shown = "" if default in (None, False, ()) or parameter.required else f"; by default `{default}`"
        words = re.sub(r"\s+", " ", plain(parameter.help).replace("|", "\\|")).rstrip(".")
        yield f"| `{name}` | {words}{shown} |"


if __name__ == "__main__":
    (Path(__file__).parent / "cli.md").write_text(cli_page(), encoding="utf-8")
