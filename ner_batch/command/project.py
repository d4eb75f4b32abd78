"""`ner-batch init`: a folder of configs that run as they are, from answers to a handful of questions."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from string import Template

import typer
import yaml

from ner_batch.command.schema import json_schema
from ner_batch.config import validate
from ner_batch.engine.device import is_without_gpu
from ner_batch.errors import UserError
from ner_batch.io import storage
from ner_batch.io.listing import first_columns
from ner_batch.task import Task

KINDS = ("task", "extract", "train", "index", "evaluate")
_EAGER = "enforce_eager: true\t# no GPU is here: starts in seconds, not minutes; with one, leave it out"
_COMPILED = "# enforce_eager: true\t# starts faster, decodes slower"
DEFAULT_OUTPUT = "entities"
NAMED_COLUMNS = 20  # in a question or an error
MAX_MODEL_LEN, TRAIN_MAX_MODEL_LEN, WINDOW = 4096, 2048, 512


@dataclass(frozen=True, slots=True)
class Answers:
    """What a project is made of; None and no labels: not answered yet. Paths are as seen from the working directory."""

    labels: Mapping[str, str]
    """Definitions by name, "" where there is none."""
    language: str | None
    model: str | None
    input: str | None
    output: str | None
    text_column: str | None = None
    id_column: str | None = None


def read_labels(options: Sequence[str]) -> dict[str, str]:
    """Definitions by label out of ``NAME`` and ``NAME=DEFINITION``. Raises UserError in one line."""
    labels: dict[str, str] = {}
    for option in options:
        name, _, definition = option.partition("=")
        if name.strip() in labels:
            raise UserError(f"--label {name.strip()}: given twice")
        labels[name.strip()] = definition.strip()
    if labels:
        validate(Task, {"name": "project", "labels": labels})
    return labels


def complete(answers: Answers) -> Answers:
    """The answers, asked for on a terminal where they are missing. Raises UserError where there is no terminal."""
    on_terminal = bool(sys.stdin and sys.stdin.isatty())
    needed = {"--label": answers.labels, "--model": answers.model, "--input": answers.input}
    missing = [option for option, value in needed.items() if not value]
    if missing and not on_terminal:
        raise UserError(f"no terminal to ask on: give {', '.join(missing)} (ner-batch init --help)")
    if not missing:
        answers = replace(answers, language=answers.language or "en", output=answers.output or DEFAULT_OUTPUT)
        return _with_columns(answers, ask=on_terminal)
    labels = answers.labels or _ask_labels()
    language = answers.language
    while language not in ("en", "zh"):
        language = _ask("Language of the instructions, en or zh", "en")
    answers = replace(
        answers,
        labels=labels,
        language=language,
        model=answers.model or _ask("Model, a local folder or a hub name"),
        input=answers.input or _ask("Input (Parquet, JSON lines or CSV): a file, a folder or a glob, local or s3://"),
        output=answers.output or _ask("Output, a folder", DEFAULT_OUTPUT),
    )
    return _with_columns(answers, ask=True)


def _with_columns(answers: Answers, *, ask: bool) -> Answers:
    """The answers with the column of texts, which is looked for in the input's first file where that lies here.

    Columns that are named and not there are told, not refused: another file, or a later row, may have them. Raises
    UserError where the column of texts is not named, not called `text`, and cannot be asked for.
    """
    assert answers.input
    columns: tuple[str, ...] = ()
    if storage.local_path(answers.input):
        with suppress(UserError):  # what is not there yet, or is wrong, a dry run explains
            columns = first_columns(answers.input, answers.text_column or "text")
    names = [name if name.isprintable() else repr(name) for name in columns[:NAMED_COLUMNS]]
    column_list = ", ".join(names) + (f" and {len(columns) - NAMED_COLUMNS:,} more" if columns[NAMED_COLUMNS:] else "")

    def is_present(column: str) -> bool:
        return column in columns or column.partition(".")[0] in columns  # a path of fields begins in a column

    text_column = answers.text_column
    if text_column is None and columns and "text" not in columns:
        if not ask:
            raise UserError(f"--text-column: {answers.input} has the columns {column_list}: name the one of texts")
        while text_column is None or not is_present(text_column):
            text_column = _ask(f"Column of texts ({column_list})")
    for option, column in {"--text-column": text_column, "--id-column": answers.id_column}.items():
        if columns and column and not is_present(column):
            typer.echo(f"{option} {column}: not among the columns {column_list} of {answers.input}", err=True)
    return replace(answers, text_column=text_column or "text")


def _ask(question: str, default: str | None = None) -> str:
    """An answer that is not blank. Questions go to stderr: stdout may be piped."""
    answer = ""
    while not answer:
        answer = str(typer.prompt(question, default=default, err=True)).strip()
    return answer


def _ask_labels() -> dict[str, str]:
    """Labels until a blank line; one that cannot be is asked again."""
    typer.echo("Types to find, one a line, as NAME or NAME=DEFINITION; a blank line ends them.", err=True)
    options: list[str] = []
    while True:
        option = str(typer.prompt(f"Type {len(options) + 1}", default="", show_default=False, err=True)).strip()
        if not option and options:
            return read_labels(options)
        try:
            if option:
                read_labels([*options, option])
                options.append(option)
        except UserError as error:
            typer.echo(str(error), err=True)


def write(place: str, answers: Answers, overwrite: bool = False) -> list[Path]:
    """Write the configs and their schemas; the configs' paths. All is checked first; nothing is overwritten unasked.

    Commands are started in the folder ``place``, so relative paths are written as seen from there. Raises UserError.
    """
    if "://" in place:
        raise UserError(f"{place}: a project is a local folder")
    folder = Path(place)
    texts = contents(folder, answers)
    texts |= {f".schemas/{kind}.json": json.dumps(json_schema(kind), indent=2) + "\n" for kind in KINDS}
    try:
        present = [str(folder / name) for name in texts if os.path.lexists(folder / name)]
        if present and not overwrite:
            raise UserError(f"there already: {', '.join(present)}: choose another folder, or --force overwrites them")
        (folder / ".schemas").mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        path = error.filename or folder
        raise UserError(f"{path}: cannot be written: {error.strerror}: choose another folder") from None
    return [folder / name for name in texts if not name.startswith(".")]


def contents(folder: Path, answers: Answers) -> dict[str, str]:
    """The configs' texts by file name. Raises UserError for what YAML cannot hold, and for labels that cannot be."""
    assert answers.model and answers.input and answers.output
    name = folder.resolve().name or "project"
    assert answers.text_column
    id_column = answers.id_column
    others = [answers.model, answers.input, answers.output, answers.text_column, id_column or ""]
    try:
        task = validate(Task, {"name": name, "language": answers.language, "labels": dict(answers.labels)})
        " ".join([str(folder.resolve()), *answers.labels, *answers.labels.values(), *others]).encode()
    except UnicodeEncodeError:
        raise UserError("a word of the command line is not UTF-8: YAML can hold no other text") from None
    model = _from(folder, answers.model) if Path(answers.model).expanduser().exists() else answers.model
    length = context_length(answers.model)
    values = {
        "name": _scalar(task.name),
        "plain_name": re.sub(r"[^\w.-]+", "-", task.name).strip("-") or "mine",
        "language": task.language,
        "labels": "\n".join(_label_lines(answers.labels)),
        "model": _scalar(model),
        "input": _scalar(_from(folder, answers.input)),
        "text_column": _scalar(answers.text_column),
        "id_column": f"id_column: {_scalar(id_column)}" if id_column else "# id_column: id",
        "enforce_eager": _EAGER if is_without_gpu() else _COMPILED,
        "output": _scalar(_output_from(folder, answers.output)),
        "max_model_len": min(length, MAX_MODEL_LEN),
        "train_max_model_len": min(length, TRAIN_MAX_MODEL_LEN),
        "max_tokens": min(WINDOW, length // 8),
    }
    texts = files("ner_batch.command") / "files"
    configs = {f"{kind}.yaml": Template((texts / f"{kind}.yaml").read_text("utf-8")) for kind in KINDS}
    return {name: _aligned(template.substitute(values)) for name, template in configs.items()}


def _aligned(text: str) -> str:
    """Comments, which a tab begins, one below the other."""
    return re.sub(r"(?m)^(.*)\t# ", lambda line: f"{line[1]:<36} # ", text)


def next_commands(folder: Path, output: str) -> Iterator[str]:
    """What to do with a new project, line by line; ``output`` is a path as seen from here."""
    if folder.resolve() != Path.cwd():
        yield f"cd {shlex.quote(str(folder))}"
    activate = Path(sys.executable).with_name("activate")
    if shutil.which("ner-batch") is None and activate.exists():
        yield f"source {shlex.quote(str(activate))}"
    yield "ner-batch doctor extract.yaml               # will it run here?"
    yield "ner-batch extract extract.yaml --dry-run    # every problem at once; then tokens, hours, cost (--price)"
    yield "ner-batch extract extract.yaml              # again after a crash: goes on where it was"
    report = f"ner-batch report {shlex.quote(_output_from(folder, output))}"
    yield f"{report:<43} # a page of what was read: _report.html in there"


def context_length(model: str) -> int:
    """Tokens that a local model has positions for; where that is not known, as many as the configs want."""
    try:
        config = json.loads((Path(model) / "config.json").read_text("utf-8"))
        return int(config.get("max_position_embeddings") or MAX_MODEL_LEN)
    except (OSError, ValueError, TypeError, AttributeError):
        return MAX_MODEL_LEN


def _label_lines(labels: Mapping[str, str]) -> Iterator[str]:
    """The labels as YAML; one without a definition has a comment in its place."""
    for name, definition in labels.items():
        comment = "# define it: what belongs to it, what does not?"
        yield f"  {_scalar(name)}: {_scalar(definition) if definition else comment}"


def _scalar(value: str) -> str:
    """A text as YAML writes it, on one line, in quotes where it would be anything else."""
    breaks = any(character < " " or character in "\x85\u2028\u2029" for character in value)
    style = '"' if breaks else None
    text: str = yaml.safe_dump([value], allow_unicode=True, width=2**31 - 1, default_style=style)
    return text.removeprefix("- ").rstrip("\n")


def _output_from(folder: Path, output: str) -> str:
    """The output as seen from the folder, in which its default lies."""
    return output if output == DEFAULT_OUTPUT else _from(folder, output)


def _from(folder: Path, path: str) -> str:
    """A path that is given as seen from the working directory, as seen from the folder; absolute ones and URIs stay."""
    path = path if "://" in path else os.path.expanduser(path)  # noqa: PTH111 - of a string, for a string
    if "://" in path or Path(path).is_absolute() or folder.resolve() == Path.cwd():
        return path
    return os.path.relpath(Path.cwd() / path, folder.resolve())
