"""How a command ends and what it prints: exit codes, errors of one line, streams that may break, quiet and verbose."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, TextIO, cast

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from ner_batch.errors import JobError, UserError
from ner_batch.jobs.jsonlog import JsonLines, log_exceptions
from ner_batch.jobs.progress import LastLine

CRASH, WRONG_INPUT, NOT_COMPLETE, INTERRUPTED = 1, 2, 3, 130
INTERRUPTION = "interrupted; start the same command again: it goes on from what was saved"
VERBOSE, QUIET, LOG_FORMAT = "NER_BATCH_VERBOSE", "NER_BATCH_QUIET", "NER_BATCH_LOG_FORMAT"

# typer has click inside it since 0.26 and stood beside it before: what both call the error of a command line.
_ClickException: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class LogFormat(StrEnum):
    """Of what a job prints."""

    text = "text"
    json = "json"


console = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True, highlight=False)


def exit_code(job: Callable[[], int | None]) -> int:
    """Run a job from its settings on; its exit code. An exception that is a bug of ours passes through.

    SIGTERM is taken like Ctrl-C: state is saved, 130. SIGINT too where a shell started this in the background, and so
    had it ignored. With NER_BATCH_LOG_FORMAT=json what is printed is JSON, an object a line. With NER_BATCH_QUIET
    nothing is printed but errors and the last line.
    """
    set_up_streams()
    if not is_on(VERBOSE):  # others ask whether there is anything in it
        os.environ.pop(VERBOSE, None)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
    with _streams() as finish:
        try:
            code = job() or 0
        except UserError as error:
            print_error(str(error), error)
            return WRONG_INPUT
        except JobError as error:
            print_error(str(error), error)
            return CRASH
        except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-C or Ctrl-D at a question
            errors.print(INTERRUPTION)
            return INTERRUPTED
        except BrokenPipeError as error:  # of a socket, a bug: typer would take it for stdout's and end without a word
            sys.excepthook(type(error), error, error.__traceback__)
            return CRASH
        finish()
        return code


@contextmanager
def _streams() -> Iterator[Callable[[], None]]:
    """What :data:`console` and :data:`errors` write to while a job runs; gives what prints a quiet one's last line."""
    as_json = os.environ.get(LOG_FORMAT) == LogFormat.json
    out = cast(TextIO, _Log(sys.stdout))
    last = LastLine(out) if is_on(QUIET) else None
    out = cast(TextIO, last or out)
    console.file = cast(IO[str], JsonLines(out) if as_json else out)
    errors.file = cast(IO[str], JsonLines(sys.stderr, "error") if as_json else _Log(sys.stderr))
    if as_json:
        log_exceptions(sys.stderr)
    try:
        yield last.print if last else lambda: None
    finally:
        for stream in (console, errors):
            stream.file = cast(IO[str], None)  # sys.stdout and sys.stderr, whatever they are then


def is_on(name: str) -> bool:
    """Whether a variable of the environment is set, to something that does not mean no."""
    return os.environ.get(name, "").strip().lower() not in {"", "0", "false", "no", "off"}


def print_error(message: str, error: BaseException | None = None) -> None:
    """A line on stderr for each line of the message; with NER_BATCH_VERBOSE the traceback comes first."""
    if error is not None and is_on(VERBOSE):
        trace = "".join(traceback.format_exception(error))
        if isinstance(stream := errors.file, JsonLines):
            stream.emit(f"error: {message}", traceback=trace)
            return
        errors.print(trace, markup=False, end="")
    for line in message.splitlines():
        errors.print(Text.assemble(("error:", "bold red"), " ", line))


def print_raw(text: str) -> None:
    """A command's product (JSON, a schema) on stdout as it is, whatever the log's format. A reader may leave early."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise UserError(f"standard output cannot be written: {error.strerror}") from None


def set_up_streams() -> None:
    """Standard streams that exist and can show any text."""
    for descriptor in range(3):  # one that is closed would be given to the next file that is opened: shards, say
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None or sys.stderr is None:
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that a terminal cannot show ends no job; in a log our last line stands behind what Ray prints.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)


class _Log(io.TextIOBase):
    """A stream whose reader may leave (`| head`), or whose disk may be full: no job ends of it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            pass  # the text waits in the stream's buffer, and is written with the next where that succeeds
        return len(text)

    def flush(self) -> None:
        """Every text is flushed as it is written."""

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # rich asks it whether boxes can be drawn
        """The stream's."""
        return self._stream.encoding


class _Flags:
    """Help that shows no type beside a switch: `--dry-run <bool>` reads as if it took a value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, `--help` among them."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False) and parameter.metavar is None:
                parameter.metavar = ""
        return parameters


class Verb(_Flags, TyperCommand):
    """One verb."""


class Verbs(_Flags, TyperGroup):
    """All verbs. What is wrong with a command line is one line on stderr, as every error is; JSON where asked."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **options: Any) -> Any:  # type: ignore[override]
        """Parse, run, exit. The environment is as before when it ends: options are in it for as long as a job runs."""
        set_up_streams()
        words = list(sys.argv[1:] if args is None else args)
        standalone = options.pop("standalone_mode", True)
        environment = {name: os.environ.get(name) for name in (VERBOSE, QUIET, LOG_FORMAT)}
        try:
            code = super().main(words, prog_name, standalone_mode=False, **options)
        except _ClickException as error:
            if not standalone:
                raise
            code = WRONG_INPUT
            self._explain(error, words)
        finally:
            for name, value in environment.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
        if not standalone:
            return code
        _let_go(sys.stdout)
        _let_go(sys.stderr)
        sys.exit(code)

    def _explain(self, error: Any, words: Sequence[str]) -> None:
        """The line: what is wrong, and which `--help` has the remedy."""
        message = " ".join(error.format_message().replace("Value error, ", "").split()).removesuffix(".")
        if not message or type(error).__name__ == "NoArgsIsHelpError":  # the help itself, which is printed by now
            return
        context = error.ctx
        path = context.command_path if context else "ner-batch"
        option = getattr(error, "option_name", None)
        if option and context and context.parent and any(option in parameter.opts for parameter in self.params):
            print_usage_error(f"{option} stands before the verb: ner-batch {option} {context.info_name}", words)
        else:
            print_usage_error(f"{message} ({path} --help)", words)


def print_usage_error(line: str, words: Sequence[str]) -> None:
    """As :func:`print_error`, before any option has been read: the words themselves say whether JSON is asked for."""
    asked = {("--log-format", "json"), ("--log-format=json",)} & {*pairwise(words), *((word,) for word in words)}
    as_json = asked or os.environ.get(LOG_FORMAT) == LogFormat.json
    errors.file = cast(IO[str], JsonLines(sys.stderr, "error") if as_json else _Log(sys.stderr))
    try:
        print_error(line)
    finally:
        errors.file = cast(IO[str], None)


def _let_go(stream: TextIO) -> None:
    """Flush; where that fails, what is left goes nowhere, and the interpreter does not complain of it at its end."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
