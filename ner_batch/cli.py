"""``ner-batch <verb>``.

Exit codes: 0 fine, 1 crash, 2 config or input wrong, 3 more rows failed than allowed, 130 interrupted with state saved.
"""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import IO, Annotated, ParamSpec, cast

import typer
from rich.console import Console

from ner_batch import config as configs
from ner_batch.errors import JobError, UserError, require_extra
from ner_batch.jobs.jsonlog import JsonLines, log_exceptions

CRASH, WRONG_INPUT, NOT_COMPLETE, INTERRUPTED = 1, 2, 3, 130
INTERRUPTION = "interrupted; start the same command again: it goes on from what was saved"

# What the extras bring, as it is imported; a node that only extracts has none of it.
ENCODING = ("accelerate", "datasets", "sentence_transformers")
TRAINING = ("accelerate", "matplotlib", "peft", "safetensors", "tensorboardX")
SCORING = ("duckdb", "matplotlib")

P = ParamSpec("P")


class LogFormat(StrEnum):
    """Of what a job prints."""

    text = "text"
    json = "json"


app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True, highlight=False)

ConfigFile = Annotated[Path, typer.Argument(help="YAML config, e.g. jobs/extract.yaml")]
DRY_RUN = functools.partial(typer.Option, "--dry-run")
Overrides = Annotated[list[str] | None, typer.Argument(help="a.b=value, on top of the file", metavar="[A.B=VALUE]...")]


def exit_code(job: Callable[[], int | None]) -> int:
    """Run a job from its settings on; its exit code. An exception that is a bug of ours passes through.

    SIGTERM is taken like Ctrl-C: state is saved, 130. SIGINT too where a shell started this in the background, and so
    had it ignored. With NER_BATCH_LOG_FORMAT=json what is printed is JSON, an object a line.
    """
    set_up_streams()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
    try:
        return job() or 0
    except UserError as error:
        if os.environ.get("NER_BATCH_VERBOSE"):
            raise
        for line in str(error).splitlines():
            errors.print(f"error: {line}", markup=False)
        return WRONG_INPUT
    except JobError as error:
        errors.print(f"error: {error}", markup=False)
        return CRASH
    except KeyboardInterrupt:
        errors.print(INTERRUPTION)
        return INTERRUPTED


def set_up_streams() -> None:
    """What is printed: as it is for a person, and, where NER_BATCH_LOG_FORMAT says so, as JSON."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that a terminal cannot show ends no job; in a log our last line stands behind what Ray prints.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    if os.environ.get("NER_BATCH_LOG_FORMAT") == LogFormat.json:
        console.file = cast(IO[str], JsonLines(sys.stdout))
        errors.file = cast(IO[str], JsonLines(sys.stderr, "error"))
        log_exceptions(sys.stderr)


def verb(job: Callable[P, int | None]) -> Callable[P, None]:
    """Make a command of a job. It imports what it needs once its config is read: `--help` needs no Ray or torch."""

    @app.command(job.__name__.strip("_").replace("_", "-"))
    @functools.wraps(job)
    def command(*arguments: P.args, **options: P.kwargs) -> None:
        raise typer.Exit(exit_code(lambda: job(*arguments, **options)))

    return command


def print_lines(lines: Iterable[str]) -> None:
    """Print what a job is going to do."""
    for line in lines:
        console.print(line, highlight=False, markup=False)


@verb
def extract(
    config_file: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, DRY_RUN(help="Check everything, read a sample, print cost; write nothing")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Do rows with status `failed` again")] = False,
    retry_status: Annotated[
        list[str] | None,
        typer.Option("--retry-status", help="Do rows of this status again: partial, malformed ...; may be repeated"),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Of a replica's hour, in any currency: --dry-run tells the cost")
    ] = None,
) -> int:
    """Find entities in Parquet files of text. Start it again after any crash: it goes on where it was."""
    from ner_batch.extraction.settings import ExtractConfig

    config = configs.load(ExtractConfig, config_file, overrides or ())
    from ner_batch.extraction import dryrun, plan
    from ner_batch.extraction import job as extraction

    prepared = plan.prepare(config, limit, retry=[*(retry_status or ()), *(["failed"] if retry else [])])
    return dryrun.dry_run(prepared, console, price_per_hour=price) if dry_run else extraction.run(prepared, console)


@verb
def status(
    folder: Annotated[str, typer.Argument(help="The output folder of an extraction, local or s3://")],
    as_json: Annotated[bool, typer.Option("--json", help="All of it as one JSON object")] = False,
) -> int:
    """How far an extraction is, or how it ended. Exit code 0 when it is complete, 3 otherwise."""
    from ner_batch.extraction.status import status as read_status

    run = read_status(folder)
    if as_json:
        typer.echo(json.dumps(asdict(run), indent=2))
    else:
        print_lines(run.lines)
    return 0 if run.complete else NOT_COMPLETE


@verb
def doctor(
    config_file: Annotated[Path | None, typer.Argument(help="YAML config of an extraction; none: the machine")] = None,
    overrides: Overrides = None,
    gpu_gib: Annotated[
        float | None,
        typer.Option(min=1, help="Compute for a GPU of so much memory (a 4090 has 24)"),
    ] = None,
    no_engine: Annotated[bool, typer.Option("--no-engine", help="Do not start the engine")] = False,
) -> int:
    """Will it run here? Versions, machine, memory, disk, cluster, config, model and adapter; exit code 2 if not."""
    from ner_batch.extraction.settings import ExtractConfig

    config = configs.load(ExtractConfig, config_file, overrides or ()) if config_file else None
    from ner_batch.extraction.doctor import doctor as look

    return look(config, console, gpu_gib, start=not no_engine)


@verb
def train(
    config_file: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, DRY_RUN(help="Check everything, tell samples, rows and steps; train nothing")] = False,
) -> int:
    """Train a LoRA adapter from gold examples. Start it again after any crash: it goes on from its last checkpoint."""
    from ner_batch.train.settings import TrainConfig

    config = configs.load(TrainConfig, config_file, overrides or ())
    require_extra("train", *TRAINING, purpose="`train`")
    from ner_batch.train import job as training
    from ner_batch.train.plan import prepare

    plan = prepare(config)
    print_lines(plan.report)
    return training.dry_run(plan, console) if dry_run else training.run(plan, console)


@verb
def train_encoder(
    config_file: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, DRY_RUN(help="Check everything, read the text, tell sentences and steps; train nothing")
    ] = False,
) -> int:
    """Train a sentence encoder from raw text (SimCSE). Start it again after any crash: it goes on from there."""
    from ner_batch.encoder.settings import TrainEncoderConfig

    config = configs.load(TrainEncoderConfig, config_file, overrides or ())
    require_extra("encoder", *ENCODING, purpose="`train-encoder`")
    from ner_batch.encoder import job as encoder
    from ner_batch.encoder.plan import prepare

    plan = prepare(config, console)
    print_lines(plan.report)
    return 0 if dry_run else encoder.run(plan, console)


@verb
def merge(
    adapter: Annotated[str, typer.Argument(help="Adapter folder, local or s3://")],
    out: Annotated[str, typer.Argument(help="Local folder for the merged model")],
    base: Annotated[str | None, typer.Option(help="Where the base model lies, if not where it did in training")] = None,
) -> None:
    """Write the base model with an adapter merged into its weights."""
    require_extra("train", "peft", purpose="`merge`")
    from ner_batch.train.model import merge as write_merged

    write_merged(adapter, out, base)
    console.print(f"merged model: {out}", highlight=False, soft_wrap=True)


@verb
def import_(
    kind: Annotated[str, typer.Argument(help="columns (CoNLL, BIO, BIOES, BMES), w2ner or cluener")],
    file: Annotated[str, typer.Argument(help="The published file, local or s3://")],
    out: Annotated[str, typer.Argument(help="Parquet file to write")],
    name: Annotated[str | None, typer.Option(help="What ids begin with; the output's name, if not given")] = None,
    token_column: Annotated[int, typer.Option(help="columns: where tokens are, from 0")] = 0,
    tag_column: Annotated[int, typer.Option(help="columns: where tags are; from the end where negative")] = -1,
    join: Annotated[str, typer.Option(help="`space` or `nothing` between tokens; auto: by their lengths")] = "auto",
    numbered: Annotated[bool, typer.Option("--numbered", help="columns: tokens end in a number (Weibo's 科0)")] = False,
) -> None:
    """Make gold of a published set: Parquet with text and entities. Tells what had to be repaired, and a digest."""
    from ner_batch.io import published

    joiners = {"auto": None, "space": " ", "nothing": ""}
    if kind not in published.READERS:
        raise UserError(f"{kind}: known kinds of file are {', '.join(published.READERS)}")
    if join not in joiners:
        raise UserError(f"--join {join}: known are {', '.join(joiners)}")
    columns = published.Columns(token_column, tag_column, joiners[join], numbered)
    print_lines(published.import_gold(kind, file, out, name or Path(out).stem, columns))


@verb
def index(
    config_file: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, DRY_RUN(help="Check everything, tell examples and vectors; write nothing")] = False,
) -> int:
    """Build the index that demonstrations are retrieved from."""
    from ner_batch.jobs.index import IndexConfig, prepare, run

    plan = prepare(configs.load(IndexConfig, config_file, overrides or ()))
    print_lines(plan.report)
    return 0 if dry_run else run(plan, console)


@verb
def evaluate(
    config_file: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, DRY_RUN(help="Check everything, tell rows and files; read and write nothing")] = False,
    against: Annotated[
        str | None, typer.Option(help="Another run on the same rows: is it better? (the config's `against`)")
    ] = None,
) -> int:
    """Score predictions against gold: F1 with intervals, errors by kind, worst rows, plots."""
    from ner_batch.evaluate.settings import EvaluateConfig

    more = [f"against={json.dumps(against)}"] if against else []
    config = configs.load(EvaluateConfig, config_file, [*(overrides or ()), *more])
    require_extra("evaluate", *SCORING, purpose="`evaluate`")
    from ner_batch.evaluate import job as evaluation

    plan = evaluation.prepare(config)
    print_lines(plan.report)
    return 0 if dry_run else evaluation.run(plan, console)


@verb
def report(  # noqa: PLR0913, PLR0917 - options of the command line, each by its name
    folder: Annotated[str, typer.Argument(help="The output folder of an extraction, local or s3://")],
    gold: Annotated[str | None, typer.Option(help="Parquet of gold: a file, a folder or a glob")] = None,
    gold_column: Annotated[
        str | None,
        typer.Option(help="Gold's column of entities [entities]; without --gold it lies in the output's own rows"),
    ] = None,
    id_column: Annotated[str, typer.Option(help="The output's ids: named on the page, joined with gold")] = "id",
    gold_id_column: Annotated[str, typer.Option(help="Gold's ids")] = "id",
    task: Annotated[str | None, typer.Option(help="Of a run of several tasks: the one to score")] = None,
    against: Annotated[str | None, typer.Option(help="The output folder of another run on the same input")] = None,
    rows: Annotated[int, typer.Option(min=1, max=50_000, help="Rows to browse")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Which rows")] = 0,
    out: Annotated[str | None, typer.Option(help="The page [FOLDER/_report.html]")] = None,
) -> int:
    """Write one HTML page of an output: figures, rows with their entities, errors against gold, another run."""
    from ner_batch.report import job as reporting
    from ner_batch.report.settings import ReportConfig

    config = ReportConfig(
        folder=folder,
        gold=gold,
        gold_column=gold_column,
        id_column=id_column,
        gold_id_column=gold_id_column,
        task=task,
        against=against,
        rows=rows,
        seed=seed,
        out=out,
    )
    return reporting.run(reporting.prepare(config), console)


@verb
def ablate(
    config_file: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, DRY_RUN(help="Check everything, tell cells and trainings; write nothing")] = False,
) -> int:
    """Compare formats, retrieval, verification, decoding and adapters on your gold set. Goes on cell by cell."""
    from ner_batch.experiments.settings import AblateConfig

    config = configs.load(AblateConfig, config_file, overrides or ())
    require_extra("evaluate", *SCORING, purpose="`ablate`")
    if config.curve and config.curve.train:
        require_extra("train", *TRAINING, purpose="`curve.train`")
    from ner_batch.experiments import job as experiments
    from ner_batch.experiments.plan import dry_report, prepare

    plan = prepare(config, write_indexes=not dry_run)
    if dry_run:
        print_lines(dry_report(plan))
        return 0
    return experiments.run(plan, console)


@verb
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo writes")] = Path("demo-output"),
) -> int:
    """Index, train, extract and score with a pretrained model: what this is, in some minutes, on real text."""
    require_extra("train", *TRAINING, purpose="`demo`")
    from ner_batch.demo import show

    return show.run(out, console)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(version("ner-batch"), highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[  # noqa: ARG001 - its callback has done all
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version")
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option(envvar="NER_BATCH_LOG_FORMAT", help="What a job prints: lines, or a JSON object a line")
    ] = LogFormat.text,
) -> None:
    os.environ["NER_BATCH_LOG_FORMAT"] = log_format


def main(*arguments: str) -> None:
    """Run the command line, by default the process's own."""
    app(args=arguments or None)
