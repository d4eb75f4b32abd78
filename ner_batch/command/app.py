"""The command around its verbs: their groups in `--help`, the options they share, and those that stand before one."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from rich.markup import escape

from ner_batch.command import schema as schemas
from ner_batch.command.terminal import LOG_FORMAT, QUIET, VERBOSE, LogFormat, Verb, Verbs, console, exit_code

# The groups of `ner-batch --help`.
BEGIN, READ, TEACH, MEASURE = "Begin", "Read a corpus", "Examples, indexes and adapters", "Measure"

P = ParamSpec("P")

app = typer.Typer(
    cls=Verbs,
    help="""Named entities from files of text (Parquet, JSON lines, CSV), with your own open LLM.

Every verb has examples in its own help: ner-batch VERB --help.""",
    epilog=escape("""Exit codes: 0 fine, 1 crash, 2 config or input wrong (nothing is written),
3 more rows failed than allowed, 130 interrupted with state saved."""),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def complete_override(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """A shell's question about an override."""
    written = [str(word) for word in context.params.get("overrides") or ()]
    words = os.environ.get("COMP_WORDS", "").split("\n")  # bash's; typer keeps back an `=` that stands alone
    if not incomplete and words[int(os.environ.get("COMP_CWORD", "0")) :][:1] == ["="]:
        incomplete = "="
    return schemas.complete_override(str(context.info_name), written, incomplete)


ConfigFile = Annotated[
    Path, typer.Argument(help="YAML config, e.g. jobs/extract.yaml; - reads standard input", metavar="CONFIG")
]
DRY_RUN = functools.partial(typer.Option, "--dry-run")
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="a.b=value, on top of the file", metavar="A.B=VALUE", autocompletion=complete_override),
]


def verb(panel: str) -> Callable[[Callable[P, int | None]], Callable[P, None]]:
    """Make a command of a job. It imports what it needs once its config is read: `--help` needs no Ray or torch.

    ``panel`` is its group in `ner-batch --help`, which shows the docstring's first paragraph; what stands below
    ``Examples:`` ends its own help.
    """

    def register(job: Callable[P, int | None]) -> Callable[P, None]:
        text, _, examples = inspect.cleandoc(job.__doc__ or "").partition("\n\nExamples:\n")

        @app.command(
            job.__name__.strip("_").replace("_", "-"),
            cls=Verb,
            help=escape(text),
            epilog=escape(f"Examples:\n{examples}"),
            rich_help_panel=panel,
        )
        @functools.wraps(job)
        def command(*arguments: P.args, **options: P.kwargs) -> None:
            raise typer.Exit(exit_code(lambda: job(*arguments, **options)))

        return command

    return register


def print_lines(lines: Iterable[str]) -> None:
    """Print what a job is going to do."""
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _version(is_asked: bool) -> None:
    if is_asked:
        console.print(version("ner-batch"), highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    show_version: Annotated[  # noqa: ARG001 - its callback has done all
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", envvar=VERBOSE, help="Ray's and vLLM's own logs too; tracebacks of errors"),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", envvar=QUIET, help="Only errors and the last line")] = False,
    log_format: Annotated[
        LogFormat, typer.Option(envvar=LOG_FORMAT, help="What a job prints: lines, or a JSON object a line")
    ] = LogFormat.text,
) -> None:
    if verbose and quiet:  # one on the command line beats the other in the environment
        typed = {
            name for name in ("verbose", "quiet") if str(context.get_parameter_source(name)).endswith("COMMANDLINE")
        }
        if len(typed) != 1:
            raise typer.BadParameter("--verbose and --quiet exclude each other: give one of them")
        verbose, quiet = "verbose" in typed, "quiet" in typed
    for name, is_on in ((VERBOSE, verbose), (QUIET, quiet)):  # what Ray's workers, which are told of it, read
        if is_on:
            os.environ[name] = "1"
        else:
            os.environ.pop(name, None)
    os.environ[LOG_FORMAT] = log_format
