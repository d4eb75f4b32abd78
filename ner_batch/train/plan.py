"""Everything that can be known before a worker starts: problems, examples, demonstrations, samples, packs, steps."""

from __future__ import annotations

import importlib.util
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Literal

from ner_batch import adapter as adapters
from ner_batch.config import dump
from ner_batch.errors import Problems, UserError, require_extra
from ner_batch.io import storage
from ner_batch.io.examples import about_passed_over, examples_digest
from ner_batch.jobs import record
from ner_batch.jobs.cluster import check_lasting, is_named, on_every_node
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import load_tokenizer, template_text
from ner_batch.task import Task, load_task
from ner_batch.train import packing
from ner_batch.train.packing import Pack, Sample
from ner_batch.train.samples import ExampleSet, draw_epoch, hold_out, read_gold, windowed, with_neighbours
from ner_batch.train.settings import TrainConfig
from ner_batch.verification import question as verify

MIN_STEPS = 20  # optimiser steps an epoch has under `auto`, however few samples there are
EVALUATIONS = 5  # in a run whose config does not say how often
MAX_STEPS_LOST = 50  # between two checkpoints of a run whose config does not say how often
RUN_RECORD = "ner_batch_run.json"
PROOF = "serving.json"  # beside the adapter: how the comparison of served and trained answers came out
_TAKEN = "holds an adapter already: name another folder, or remove it"
CHECKPOINT_SCHEME = 2  # part of a run's digest: change it when older checkpoints cannot be gone on with


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """How samples become rows of ``tokens``, and rows optimiser steps over all workers. ``kind`` is never auto."""

    kind: str
    masked: bool
    tokens: int
    rows_per_step: int


@dataclass(frozen=True, slots=True)
class TrainingSchedule:
    """Optimiser steps of a run, and after how many of them it is evaluated and saved."""

    steps: int
    evaluate_every: int
    checkpoint_every: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that can start. Picklable."""

    config: TrainConfig
    task: Task
    base_fingerprint: str
    train: ExampleSet
    dev: ExampleSet
    layout: BatchLayout
    schedule: TrainingSchedule
    report: tuple[str, ...]

    def builder(self) -> PromptBuilder:
        """The prompt builder of the run, which is also inference's. Loads the tokenizer: seconds for a large one."""
        config = self.config
        chat = load_tokenizer(config.base.model, config.base.revision, config.base.chat_template)
        return PromptBuilder(formats.get(config.format), self.task, chat, config.base.max_model_len)

    def epoch_rows(self, builder: PromptBuilder, epoch: int) -> list[Pack]:
        """The rows of an epoch for all workers, in order; a function of the seed and the epoch alone."""
        config, seed = self.config, f"{self.config.run.seed}-{epoch}"
        samples, _ = draw_epoch(self.train, builder, config.demonstrations.shares, config.augmentation, seed)
        return pack_epoch(samples, self.layout, seed)

    @property
    def dev_k(self) -> int:
        """Demonstrations in dev prompts: as many as most samples have, the more where shares are equal."""
        shares = self.config.demonstrations.shares
        return max(shares, key=lambda k: (shares[k], k))


def pack_epoch(samples: Sequence[Sample], layout: BatchLayout, seed: str) -> list[Pack]:
    """Samples as rows, in an order that the seed decides."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    rows = packing.pack(samples, layout.kind, layout.tokens, rng)
    return rows if layout.masked else [packing.unmasked(row) for row in rows]


def prepare(config: TrainConfig) -> Plan:
    """Check everything and plan the run. A UserError has every problem found, one line each."""
    problems = Problems()
    problems.check(lambda: check_lasting("output", config.output))
    problems.check(lambda: check_lasting("run.storage", config.run.storage))
    config = problems.check(lambda: _located(config)) or config
    base, gold = config.base, config.gold
    task = problems.check(lambda: load_task(config.task))
    fingerprint = problems.check(lambda: adapters.model_fingerprint(base.model, base.revision))
    chat = (
        problems.check(lambda: load_tokenizer(base.model, base.revision, base.chat_template)) if fingerprint else None
    )
    if chat:
        from ner_batch.train.model import check_base  # torch takes seconds to import

        problems.check(lambda: check_base(base, config.lora))
        if base.quantization and not is_named(config.run.address):  # elsewhere the workers know
            problems.check(lambda: require_extra("qlora", purpose="base.quantization=4bit"))
        problems.check(lambda: adapters.check_base(base.model, base.revision))
    problems.check(lambda: _check_init(config, fingerprint))
    if task and chat and config.augmentation.verification:
        problems.check(verify.Questions(task, chat, base.max_model_len).tokens)
    train = problems.check(lambda: read_gold(gold.train, task))
    dev_uri = gold.dev
    dev = problems.check(lambda: read_gold(dev_uri, task)) if dev_uri else None
    problems.check(lambda: _check_places(config))
    tracker = config.run.report_to
    if tracker in {"wandb", "mlflow"} and importlib.util.find_spec(tracker) is None:
        problems.lines.append(f"run.report_to: {tracker} needs a package that is not here: pip install {tracker}")
    problems.stop_if_any()
    assert task and fingerprint and chat and train

    if dev is None:
        train, dev = hold_out(train, gold, config.run.seed)
    train_texts = {example.text.strip() for example in train}
    in_both = sum(example.text.strip() in train_texts for example in dev)
    train_windows, lost = windowed(train, config.windows.max_tokens, chat)
    dev_windows, _ = windowed(dev[: config.evaluation.examples], config.windows.max_tokens, chat)
    train_set, dev_set = with_neighbours(train_windows, dev_windows, config.demonstrations)

    # The first epoch is made to see how many rows and steps there are.
    builder = PromptBuilder(formats.get(config.format), task, chat, base.max_model_len)
    seed = f"{config.run.seed}-0"
    samples, left_out = draw_epoch(train_set, builder, config.demonstrations.shares, config.augmentation, seed)
    if not samples:
        raise UserError(f"gold.train: no sample fits base.max_model_len={base.max_model_len} tokens: nothing to learn")
    layout = batch_layout(config, samples)
    rows = pack_epoch(samples, layout, seed)
    schedule = training_schedule(config, steps_per_epoch=-(-len(rows) // layout.rows_per_step))
    overlap_warning = f"{in_both:,} of {len(dev):,} dev examples have a text that is trained on: dev F1 will flatter"
    report = (
        *chain.from_iterable(map(about_passed_over, filter(None, [gold.train, gold.dev]))),
        *_describe(samples, left_out, lost, rows, layout, schedule),
        *formats.omissions(train_windows, builder.format, task),
        *([overlap_warning] if in_both else []),
    )
    plan = Plan(config, task, fingerprint, train_set, dev_set, layout, schedule, report)
    _check_run(plan)
    return plan


def batch_layout(config: TrainConfig, samples: Sequence[Sample]) -> BatchLayout:
    """How the samples of an epoch, and those of all others like it, become rows and steps.

    Under ``auto`` rows and steps are small enough for 20 steps an epoch: few samples in few long rows learn nothing for
    want of steps (conclusion 5 of Wang et al., 2025).
    """
    settings, batch_tokens, workers = config.packing, config.optimiser.batch_tokens, config.run.workers
    if settings.kind != "auto":
        rows_per_step = max(workers, round(batch_tokens / settings.tokens))
        return BatchLayout(settings.kind, settings.masked, settings.tokens, rows_per_step)
    kind = "shared" if settings.masked else "greedy"
    longest_rows = pack_epoch(samples, BatchLayout(kind, settings.masked, settings.tokens, 1), "layout")
    step_tokens = min(batch_tokens, max(1, sum(len(row.ids) for row in longest_rows) // MIN_STEPS))
    row_tokens = max(*map(len, samples), min(settings.tokens, step_tokens // workers))
    return BatchLayout(kind, settings.masked, row_tokens, max(workers, step_tokens // row_tokens))


def training_schedule(config: TrainConfig, steps_per_epoch: int) -> TrainingSchedule:
    """The steps of a run; however short it is, it is evaluated and saved several times."""
    steps = config.optimiser.steps or max(1, round(config.optimiser.epochs * steps_per_epoch))
    fifth = -(-steps // EVALUATIONS)
    checkpoint_every = config.run.checkpoint_every or min(fifth, MAX_STEPS_LOST)
    return TrainingSchedule(steps, config.evaluation.every or fifth, checkpoint_every)


def _describe(
    samples: Sequence[Sample],
    left_out: Counter[str],
    lost: int,
    rows: Sequence[Pack],
    layout: BatchLayout,
    schedule: TrainingSchedule,
) -> tuple[str, ...]:
    """Samples, rows and steps, a line each; ``lost`` entities lie across a window's edge."""
    tokens, reasons = sum(map(len, samples)), [f"{count:,} {reason}" for reason, count in left_out.items() if count]
    about_samples = (
        f"{len(samples):,} samples of {min(map(len, samples)):,} to {max(map(len, samples)):,} tokens"
        + (f"; left out: {', '.join(reasons)}" if reasons else "")
        + (f"; {lost:,} entities lie across a window's edge" if lost else "")
    )
    about_rows = (
        f"packing {layout.kind}{'' if layout.masked else ' (unmasked)'}: {len(rows):,} rows of up to "
        f"{layout.tokens:,} tokens, {packing.fill_ratio(rows, layout.tokens):.0%} full; "
        f"{sum(len(row.ids) for row in rows):,} tokens an epoch ({tokens:,} without packing), "
        f"{sum(row.learnt for row in rows):,} of them learnt"
    )
    about_steps = (
        f"{schedule.steps:,} steps of {layout.rows_per_step:,} rows; dev F1 every {schedule.evaluate_every:,} steps, "
        f"a checkpoint every {schedule.checkpoint_every:,}"
    )
    return about_samples, about_rows, about_steps


def _located(config: TrainConfig) -> TrainConfig:
    """The config with absolute paths to what lies here: models, adapters, output and storage."""
    places = {
        "base": {
            "model": on_every_node(config.base.model),
            "chat_template": template_text(config.base.chat_template),
        },
        "demonstrations": {"encoder": on_every_node(config.demonstrations.encoder)},
        "lora": {"init": on_every_node(config.lora.init)},
        "run": {"storage": storage.absolute(config.run.storage)},
    }
    sections = {name: getattr(config, name).model_copy(update=place) for name, place in places.items()}
    return config.model_copy(update={**sections, "output": storage.absolute(config.output)})


def _check_init(config: TrainConfig, base_fingerprint: str | None) -> None:
    """The adapter to go on from fits the base and the LoRA settings."""
    lora = config.lora
    if lora.init is None:
        return
    adapter = adapters.load(lora.init)
    if adapter.manifest and base_fingerprint and adapter.manifest.base_fingerprint != base_fingerprint:
        raise UserError(f"lora.init: {lora.init} was trained on {adapter.manifest.base_model}, not {config.base.model}")
    peft = storage.read_json(str(adapter.path / adapters.CONFIG))
    ours = {"r": lora.r, "alpha": lora.alpha, "targets": sorted(lora.targets)}
    theirs = {"r": peft["r"], "alpha": peft["lora_alpha"], "targets": sorted(peft["target_modules"])}
    for name, value in theirs.items():
        if ours[name] != value:
            raise UserError(f"lora.{name}: {ours[name]}, but {lora.init} has {value}: write the same")
    adapters.check_weights(adapter, config.base.model, revision=config.base.revision)


def _check_places(config: TrainConfig) -> None:
    """The output takes an adapter, the storage checkpoints; both are written to, to see that they can be."""
    if finished(config.output):
        raise UserError(f"output: {config.output} {_TAKEN}")
    storage.check_writable(config.output)
    storage.check_writable(_run_folder(config))


# --- what a run writes down about itself ---


def _check_run(plan: Plan) -> None:
    """A run of that name, and an adapter at that place whose proof is outstanding, must be this run's own."""
    folder, output = _run_folder(plan.config), plan.config.output
    run_record = storage.join(folder, RUN_RECORD)
    if storage.exists(run_record) and _read_record(run_record).get("digest") != digest(plan):
        raise UserError(
            f"run.name: {folder} belongs to a run with another config, gold or base: choose another name, or remove it"
        )
    proof = _read_proof(output)
    is_other = proof is not None and proof.get("run") != digest(plan)
    if is_other and storage.exists(storage.join(output, adapters.MANIFEST)):
        raise UserError(f"output: {output} {_TAKEN}")


def claim(plan: Plan) -> None:
    """Leave word in the storage of whose run this is."""
    content = {"digest": digest(plan), "config": dump(plan.config)}
    with storage.explained(_run_folder(plan.config)):
        storage.write_json(storage.join(_run_folder(plan.config), RUN_RECORD), content)


def _run_folder(config: TrainConfig) -> str:
    return storage.join(config.run.storage, config.run.name)


def digest(plan: Plan) -> str:
    """A digest of all that decides the weights; where they go, failures and reporting may change."""
    config = dump(plan.config)
    config["run"] = {"seed": plan.config.run.seed}
    for name in ("serving", "output", "task"):  # of the task, gold and base the content follows, wherever it lies
        del config[name]
    del config["gold"]["train"], config["gold"]["dev"], config["base"]["model"]
    if config["base"]["chat_template"] is None:  # as of a run that began before there was one
        del config["base"]["chat_template"]
    data = [examples_digest(examples.examples) for examples in (plan.train, plan.dev)]
    content = [plan.base_fingerprint, plan.task.digest(), data, asdict(plan.layout), plan.schedule.steps]
    if plan.config.augmentation.verification:  # other samples than those of a run that began before this
        content.append("as many true questions as false")
    return record.digest([CHECKPOINT_SCHEME, config, content])


ProofStatus = Literal["pending", "agreed", "disagreed", "failed", "skipped"]


def write_proof(plan: Plan, status: ProofStatus, **details: Any) -> None:
    """Write beside the adapter how the comparison of served and trained answers stands, and of which run it is."""
    proof = {"status": status, "run": digest(plan), **details}
    with storage.explained(plan.config.output):
        storage.write_json(storage.join(plan.config.output, PROOF), proof)


def _read_proof(output: str) -> dict[str, Any] | None:
    file = storage.join(output, PROOF)
    return _read_record(file) if storage.exists(file) else None


def _read_record(uri: str) -> dict[str, Any]:
    """What a run wrote down; nothing where the file is somebody else's."""
    content = storage.read_json(uri)
    return content if isinstance(content, dict) else {}


def finished(output: str) -> bool:
    """Whether the adapter is there, and nothing of its run is left to do: the same command would not go on."""
    if not storage.exists(storage.join(output, adapters.MANIFEST)):
        return False
    proof = _read_proof(output)
    return proof is None or proof.get("status") in {"agreed", "skipped"}
