"""``ner-batch <verb>``.

Exit codes: 0 fine, 1 crash, 2 config or input wrong, 3 more rows failed than allowed, 130 interrupted with state saved.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ner_batch.command import schema as schemas
from ner_batch.command.app import BEGIN, DRY_RUN, MEASURE, READ, TEACH, ConfigFile, Overrides, app, print_lines, verb
from ner_batch.command.schema import Kind, load
from ner_batch.command.terminal import NOT_COMPLETE, console, errors, exit_code, print_raw
from ner_batch.config import validate
from ner_batch.errors import require_extra
from ner_batch.task import Language

__all__ = ["app", "console", "errors", "exit_code", "main"]


@verb(BEGIN)
def init(  # noqa: PLR0913, PLR0917 - a verb's options
    folder: Annotated[
        str, typer.Argument(help="Where the configs are written; made if need be", metavar="FOLDER")
    ] = ".",
    label: Annotated[
        list[str] | None, typer.Option(help="A type to find; may be repeated", metavar="NAME[=DEFINITION]")
    ] = None,
    language: Annotated[Language | None, typer.Option(help="Of the instructions")] = None,
    model: Annotated[str | None, typer.Option(help="Local folder or hub name")] = None,
    input_path: Annotated[
        str | None,
        typer.Option("--input", help="A file, a folder or a glob of Parquet, JSON lines or CSV; local or s3://"),
    ] = None,
    output_path: Annotated[
        str | None, typer.Option("--output", help="Folder for entities; by default `entities`")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="The input's column of text; by default `text`")] = None,
    id_column: Annotated[str | None, typer.Option(help="Its column of ids, which names rows on the page")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite configs that are there")] = False,
) -> None:
    """Write the configs of a project of your own.

    task.yaml, extract.yaml, train.yaml, index.yaml and evaluate.yaml, which
    run as they are, and their schemas for editors. Asks on a terminal for
    what no option gives. Relative paths are as seen from here; the configs
    are to be started in FOLDER.

    Examples:
      ner-batch init news
      ner-batch init news --label ORG="companies, agencies" --label PER
      ner-batch init --label PER --model Qwen/Qwen3-0.6B --input /data/corpus
    """
    from ner_batch.command import project

    labels = project.read_labels(label or ())
    answers = project.Answers(labels, language, model, input_path, output_path, text_column, id_column)
    answers = project.complete(answers)
    written = project.write(folder, answers, overwrite=force)
    commands = project.next_commands(Path(folder), answers.output or project.DEFAULT_OUTPUT)
    print_lines([f"written: {', '.join(map(str, written))}", "next:", *commands])


@verb(BEGIN)
def schema(
    kind: Annotated[Kind, typer.Argument(help="What the YAML file is: a task, or the config of a verb")],
) -> None:
    """Print the JSON Schema of a config, for editors.

    A YAML file names it in its first line,
    `# yaml-language-server: $schema=extract.json`.

    Examples:
      ner-batch schema extract > extract.json
      ner-batch schema task
    """
    print_raw(json.dumps(schemas.json_schema(kind.value), indent=2, ensure_ascii=False))


@verb(BEGIN)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo writes")] = Path("demo-output"),
) -> int:
    """Show all of it on real text, in some minutes.

    Index, train, extract and score with a pretrained model.

    Examples:
      ner-batch demo
      ner-batch demo --out /tmp/demo
    """
    require_extra("train", purpose="`demo`")
    from ner_batch.demo import show

    return show.run(out, console)


@verb(READ)
def extract(
    config_file: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, DRY_RUN(help="Check everything, read a sample, print cost; write nothing")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Do rows with status `failed` again")] = False,
    retry_status: Annotated[
        list[str] | None,
        typer.Option(
            "--retry-status",
            metavar="STATUS",
            help="Do rows of this status again: partial, malformed ...; may be repeated",
        ),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Of a replica's hour, in any currency: --dry-run tells the cost")
    ] = None,
) -> int:
    """Find entities in files of text: Parquet, JSON lines, CSV.

    Start it again after any crash: it goes on where it was.

    Examples:
      ner-batch extract jobs/extract.yaml --dry-run --price 0.6
      ner-batch extract jobs/extract.yaml output.path=/data/entities
      ner-batch extract jobs/extract.yaml --retry --retry-status malformed
      ner-batch extract - < jobs/extract.yaml
    """
    from ner_batch.extraction.settings import ExtractConfig

    config = load(ExtractConfig, config_file, overrides or ())
    from ner_batch.extraction import dryrun, plan
    from ner_batch.extraction import job as extraction

    statuses = [*(retry_status or ()), *(["failed"] if retry else [])]
    prepared = plan.prepare(config, limit, retry=statuses, progress=lambda line: print_lines([line]))
    return dryrun.dry_run(prepared, console, price_per_hour=price) if dry_run else extraction.run(prepared, console)


@verb(READ)
def status(
    folder: Annotated[str, typer.Argument(help="The output folder of an extraction, local or s3://")],
    as_json: Annotated[bool, typer.Option("--json", help="All of it as one JSON object")] = False,
) -> int:
    """How far an extraction is, or how it ended.

    Exit code 0 when it is complete, 3 otherwise.

    Examples:
      ner-batch status /data/entities
      ner-batch status s3://bucket/entities --json
    """
    from ner_batch.extraction.status import status as read_status

    run = read_status(folder)
    if as_json:
        print_raw(json.dumps(asdict(run), indent=2))
    else:
        print_lines(run.lines)
    return 0 if run.complete else NOT_COMPLETE


@verb(READ)
def doctor(
    config_file: Annotated[Path | None, typer.Argument(help="YAML config of an extraction; none: the machine")] = None,
    overrides: Overrides = None,
    gpu_gib: Annotated[
        float | None,
        typer.Option(min=1, help="Compute for a GPU of so much memory (a 4090 has 24)"),
    ] = None,
    no_engine: Annotated[bool, typer.Option("--no-engine", help="Do not start the engine")] = False,
) -> int:
    """Will it run here?

    Versions, machine, memory, disk, cluster, config, model and adapter;
    exit code 2 if not.

    Examples:
      ner-batch doctor
      ner-batch doctor jobs/extract-4090.yaml --no-engine --gpu-gib 24
    """
    from ner_batch.extraction.settings import ExtractConfig

    config = load(ExtractConfig, config_file, overrides or ()) if config_file else None
    from ner_batch.extraction.doctor import doctor as look

    return look(config, console, gpu_gib, start=not no_engine)


@verb(TEACH)
def train(
    config_file: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, DRY_RUN(help="Check everything, tell samples, rows and steps; train nothing")] = False,
) -> int:
    """Train a LoRA adapter from gold examples.

    Start it again after any crash: it goes on from its last checkpoint.

    Examples:
      ner-batch train jobs/train.yaml --dry-run
      ner-batch train jobs/train.yaml optimiser.steps=200 run.name=longer
    """
    from ner_batch.train.settings import TrainConfig

    config = load(TrainConfig, config_file, overrides or ())
    require_extra("train", purpose="`train`")
    from ner_batch.train import job as training
    from ner_batch.train.plan import prepare

    plan = prepare(config)
    print_lines(plan.report)
    return training.dry_run(plan, console) if dry_run else training.run(plan, console)


@verb(TEACH)
def train_encoder(
    config_file: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, DRY_RUN(help="Check everything, read the text, tell sentences and steps; train nothing")
    ] = False,
) -> int:
    """Train a sentence encoder from raw text (SimCSE).

    Start it again after any crash: it goes on from its last checkpoint.

    Examples:
      ner-batch train-encoder jobs/train-encoder.yaml --dry-run
      ner-batch train-encoder jobs/train-encoder.yaml input.path=/data/corpus
    """
    from ner_batch.encoder.settings import TrainEncoderConfig

    config = load(TrainEncoderConfig, config_file, overrides or ())
    require_extra("encoder", purpose="`train-encoder`")
    from ner_batch.encoder import job as encoder
    from ner_batch.encoder.plan import prepare

    plan = prepare(config, console)
    print_lines(plan.report)
    return 0 if dry_run else encoder.run(plan, console)


@verb(TEACH)
def merge(
    adapter: Annotated[str, typer.Argument(help="Adapter folder, local or s3://")],
    out: Annotated[str, typer.Argument(help="Local folder for the merged model")],
    base: Annotated[str | None, typer.Option(help="Where the base model lies, if not where it did in training")] = None,
) -> None:
    """Write the base model with an adapter merged into it.

    Examples:
      ner-batch merge adapters/news merged-model
      ner-batch merge s3://bucket/adapters/news merged-model --base /models/qwen
    """
    require_extra("train", "peft", purpose="`merge`")
    from ner_batch.train.model import merge as write_merged

    write_merged(adapter, out, base)
    console.print(f"merged model: {out}", highlight=False, soft_wrap=True)


@verb(TEACH)
def import_(  # noqa: PLR0913, PLR0917 - a verb's options
    kind: Annotated[
        str,
        typer.Argument(
            help="columns (CoNLL, BIO, BIOES, BMES), hf, spacy, spacy-jsonl, prodigy, doccano, label-studio, brat, "
            "mrc, langextract, w2ner or cluener; docs/exchange.md describes each"
        ),
    ],
    file: Annotated[str, typer.Argument(help="The file (of brat the folder), local or s3://")],
    out: Annotated[str, typer.Argument(help="Parquet file to write")],
    name: Annotated[
        str | None, typer.Option(help="What ids begin with that the file does not give; else the output's name")
    ] = None,
    renumber: Annotated[bool, typer.Option("--renumber", help="Number all texts, whatever ids they have")] = False,
    token_column: Annotated[int | None, typer.Option(help="columns: where tokens are, from 0; else 0")] = None,
    tag_column: Annotated[
        int | None, typer.Option(help="columns: where tags are; from the end where negative; else -1")
    ] = None,
    join: Annotated[
        str | None, typer.Option(help="Kinds with tokens: `space` or `nothing` between them; else by their lengths")
    ] = None,
    numbered: Annotated[bool, typer.Option("--numbered", help="columns: tokens end in a number (Weibo's 科0)")] = False,
    tag_names: Annotated[str | None, typer.Option(help="hf: what tags that are numbers mean: O,B-PER,I-PER")] = None,
    offsets: Annotated[str | None, typer.Option(help="codepoint or utf-16; else as the kind's tool counts")] = None,
    text_field: Annotated[str | None, typer.Option(help="label-studio: the text's field in a task; else text")] = None,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="label-studio: take predictions, not annotations")
    ] = False,
    spans_key: Annotated[str | None, typer.Option(help="spacy: the group of spans that is read; else sc")] = None,
) -> None:
    """Make gold of other tools' files: Parquet.

    With columns id, text and entities. Tells what had to be repaired, and
    a digest.

    Examples:
      ner-batch import columns train.bmes gold/train.parquet
      ner-batch import label-studio project-1.json gold/reviewed.parquet
    """
    from ner_batch.exchange import job as exchange
    from ner_batch.exchange.kinds import import_options

    kind_options = {"token_column": token_column, "tag_column": tag_column, "join": join, "numbered": numbered}
    kind_options |= {"tag_names": tag_names, "offsets": offsets, "text_field": text_field, "predictions": predictions}
    options = import_options(kind, name or Path(out).stem, kind_options | {"spans_key": spans_key}, renumber=renumber)
    print_lines(exchange.import_gold(kind, file, out, options))


@verb(TEACH)
def export(  # noqa: PLR0913, PLR0917 - a verb's options
    kind: Annotated[str, typer.Argument(help="As of `import`, or mentions: a flat Parquet, a row per mention")],
    path: Annotated[str, typer.Argument(help="Gold, or the output folder of an extraction", metavar="IN")],
    out: Annotated[str, typer.Argument(help="File to write; of brat, and of spacy without .spacy, a folder")],
    text_column: Annotated[str | None, typer.Option(help="Where texts are; else as the run says, or `text`")] = None,
    id_column: Annotated[
        str | None,
        typer.Option(help="Where ids are; else as the run says, `id`, or file and row"),
    ] = None,
    status: Annotated[
        list[str] | None, typer.Option(help="Rows of this status; may be repeated; `all`; else ok alone")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Of a run of several tasks: whose entities are taken")] = None,
    select: Annotated[str | None, typer.Option(help="Texts to annotate: uncertain, disagreement or random")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many of them")] = None,
    against: Annotated[str | None, typer.Option(help="disagreement: another run's output on the same rows")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the draw, and of ties")] = None,
    spread: Annotated[
        bool | None, typer.Option("--spread/--no-spread", help="Whether texts are to be unlike each other; they are")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Kinds with tokens: words, space (what it parts) or characters; else words")
    ] = None,
    scheme: Annotated[str | None, typer.Option(help="columns, hf: BIO, BIOES, BILOU or BMES; else BIO")] = None,
    offsets: Annotated[str | None, typer.Option(help="codepoint or utf-16; else as the kind's tool counts")] = None,
    language: Annotated[str | None, typer.Option(help="spacy: whose tokenizer cuts (en, zh, ...); else xx")] = None,
    model_version: Annotated[str | None, typer.Option(help="label-studio: what predictions are said to be of")] = None,
) -> None:
    """Write gold or entities for other tools to read.

    Or choose texts to annotate. Tells what is left out.

    Examples:
      ner-batch export label-studio /data/entities tasks.json
      ner-batch export prodigy /data/entities t.jsonl --select uncertain --count 9
    """
    from ner_batch.exchange import job as exchange
    from ner_batch.exchange.kinds import export_options
    from ner_batch.exchange.rows import open_rows
    from ner_batch.exchange.select import make_selection

    kind_options = {"tokens": tokens, "scheme": scheme, "offsets": offsets, "language": language}
    options = export_options(kind, kind_options | {"model_version": model_version})
    rows = open_rows(path, text_column=text_column, id_column=id_column, task=task, statuses=status or ())
    other = None if against is None else open_rows(against, text_column=text_column, id_column=id_column, task=task)
    selection = make_selection(select, status, count=count, seed=seed, against=other, spread=spread)
    print_lines(exchange.export(kind, rows, out, options, selection))


@verb(TEACH)
def index(
    config_file: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, DRY_RUN(help="Check everything, tell examples and vectors; write nothing")] = False,
) -> int:
    """Build the index that demonstrations are retrieved from.

    Examples:
      ner-batch index jobs/index.yaml --dry-run
      ner-batch index jobs/index.yaml kind=lexical encoder=null out=/data/index
    """
    from ner_batch.jobs.index import IndexConfig, prepare, run

    plan = prepare(load(IndexConfig, config_file, overrides or ()))
    print_lines(plan.report)
    return 0 if dry_run else run(plan, console)


@verb(MEASURE)
def evaluate(
    config_file: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, DRY_RUN(help="Check everything, tell rows and files; read and write nothing")] = False,
    against: Annotated[
        str | None, typer.Option(help="Another run on the same rows: is it better? (the config's `against`)")
    ] = None,
) -> int:
    """Score predictions against gold.

    F1 with intervals, errors by kind, worst rows, plots.

    Examples:
      ner-batch evaluate jobs/evaluate.yaml
      ner-batch evaluate jobs/evaluate.yaml --against other-entities
    """
    from ner_batch.evaluate.settings import EvaluateConfig

    more = [f"against={json.dumps(against)}"] if against else []
    config = load(EvaluateConfig, config_file, [*(overrides or ()), *more])
    require_extra("evaluate", purpose="`evaluate`")
    from ner_batch.evaluate import job as evaluation

    plan = evaluation.prepare(config)
    print_lines(plan.report)
    return 0 if dry_run else evaluation.run(plan, console)


@verb(MEASURE)
def report(  # noqa: PLR0913, PLR0917 - options of the command line, each by its name
    folder: Annotated[str, typer.Argument(help="The output folder of an extraction, local or s3://")],
    gold: Annotated[str | None, typer.Option(help="Parquet of gold: a file, a folder or a glob")] = None,
    gold_column: Annotated[
        str | None,
        typer.Option(help="Gold's column of entities [entities]; without --gold it lies in the output's own rows"),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="The output's ids: named on the page, joined with gold; else the run's, or `id`")
    ] = None,
    gold_id_column: Annotated[str, typer.Option(help="Gold's ids")] = "id",
    task: Annotated[str | None, typer.Option(help="Of a run of several tasks: the one to score")] = None,
    against: Annotated[str | None, typer.Option(help="The output folder of another run on the same input")] = None,
    rows: Annotated[int, typer.Option(min=1, max=50_000, help="Rows to browse")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Which rows")] = 0,
    out: Annotated[str | None, typer.Option(help="The page [FOLDER/_report.html]")] = None,
) -> int:
    """Write one HTML page of an extraction's output.

    Figures, rows with their entities to browse, errors against gold, another run beside it.

    Examples:
      ner-batch report /data/entities
      ner-batch report /data/entities --gold gold.parquet --against /data/before
    """
    from ner_batch.report.settings import ReportConfig

    values: dict[str, Any] = {"folder": folder, "gold": gold, "gold_column": gold_column, "id_column": id_column}
    values |= {"gold_id_column": gold_id_column, "task": task, "against": against, "rows": rows, "seed": seed}
    config = validate(ReportConfig, values | {"out": out})
    from ner_batch.report import job as reporting

    return reporting.run(reporting.prepare(config), console)


@verb(MEASURE)
def ablate(
    config_file: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, DRY_RUN(help="Check everything, tell cells and trainings; write nothing")] = False,
) -> int:
    """Compare formats, retrieval, adapters and more on your gold.

    Every combination of the axes is read by one engine; goes on cell by cell.

    Examples:
      ner-batch ablate jobs/ablate.yaml --dry-run
      ner-batch ablate jobs/curve.yaml output=my-curve
    """
    from ner_batch.experiments.settings import AblateConfig

    config = load(AblateConfig, config_file, overrides or ())
    require_extra("evaluate", purpose="`ablate`")
    if config.curve and config.curve.train:
        require_extra("train", purpose="`curve.train`")
    from ner_batch.experiments import job as experiments
    from ner_batch.experiments.plan import dry_report, prepare

    plan = prepare(config, write_indexes=not dry_run)
    if dry_run:
        print_lines(dry_report(plan))
        return 0
    return experiments.run(plan, console)


def main(*arguments: str) -> None:
    """Run the command line, by default the process's own."""
    app(args=arguments or None, prog_name="ner-batch")
