"""Everything that can be known before a worker starts: examples, demonstrations, samples, packs, steps.

All problems of a run are found here and reported together.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ner_batch import adapter as adapters
from ner_batch.config import dump
from ner_batch.errors import Problems, UserError
from ner_batch.io import storage
from ner_batch.jobs.cluster import check_lasting, on_every_node
from ner_batch.prompts import formats
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import ChatTokenizer, load_tokenizer
from ner_batch.task import Task, load_task
from ner_batch.train import gold as golds
from ner_batch.train import packing
from ner_batch.train.packing import Pack
from ner_batch.train.samples import Mix, Source, windowed
from ner_batch.train.settings import TrainConfig
from ner_batch.verification import question as verify

LEAST_STEPS = 20  # optimiser steps an epoch has under `auto`, however few samples there are
RECORD = "ner_batch_run.json"


@dataclass(frozen=True, slots=True)
class Rows:
    """How samples become optimiser steps: the kind of packing, tokens of a row, rows of a step over all workers."""

    kind: str
    masked: bool
    tokens: int
    per_step: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that can start. Picklable; ``steps`` is the number of optimiser steps."""

    config: TrainConfig
    task: Task
    base_fingerprint: str
    train: Source
    dev: Source
    rows: Rows
    steps: int
    report: tuple[str, ...]

    def builder(self) -> PromptBuilder:
        """The prompt builder of the run, which is also inference's."""
        chat = load_tokenizer(self.config.base.model, self.config.base.revision)
        return make_builder(self.config, self.task, chat)

    def packs(self, builder: PromptBuilder, epoch: int) -> list[Pack]:
        """The rows of an epoch, in order; a function of the seed and the epoch alone."""
        seed = f"{self.config.run.seed}-{epoch}"
        samples, _ = self.train.epoch(builder, mix(self.config), seed)
        return rows_of(samples, self.rows, seed)

    @property
    def dev_k(self) -> int:
        """Demonstrations in dev prompts: as many as most samples have, the more where shares are equal."""
        shares = self.config.demonstrations.k
        return max(shares, key=lambda k: (shares[k], k)) if self.config.demonstrations.kind else 0


def make_builder(config: TrainConfig, task: Task, chat: ChatTokenizer) -> PromptBuilder:
    """The builder of a config's prompts."""
    return PromptBuilder(formats.get(config.format), task, chat, config.base.max_model_len)


def mix(config: TrainConfig) -> Mix:
    """What samples are made with."""
    shown = config.demonstrations.k if config.demonstrations.kind else {0: 1.0}
    more = config.augmentation
    return Mix(dict(shown), more.swapped, more.negatives, more.verification)


def rows_of(samples: Sequence[packing.Sample], rows: Rows, seed: str) -> list[Pack]:
    """Samples as rows."""
    made = packing.pack(samples, rows.kind, rows.tokens, random.Random(seed))  # noqa: S311 - repeatable, not secret
    return made if rows.masked else [packing.unmasked(row) for row in made]


def prepare(config: TrainConfig) -> Plan:
    """Check everything and plan the run.

    Raises:
        UserError: every problem found, one line each.
    """
    problems = Problems()
    problems.check(lambda: check_lasting("output", config.output))
    problems.check(lambda: check_lasting("run.storage", config.run.storage))
    config = _located(config)
    task = problems.check(lambda: load_task(config.task))
    base = problems.check(lambda: adapters.model_fingerprint(config.base.model, config.base.revision))
    chat = problems.check(lambda: load_tokenizer(config.base.model, config.base.revision)) if base else None
    if chat:
        problems.check(lambda: _check_model(config))
    problems.check(lambda: _check_init(config, base))
    if task and chat and config.augmentation.verification:
        problems.check(verify.Questions(task, chat, config.base.max_model_len).tokens)
    train = problems.check(lambda: golds.read(config.gold.train, task))
    wanted = config.gold.dev
    dev = problems.check(lambda: golds.read(wanted, task)) if wanted else None
    problems.check(lambda: _check_places(config))
    problems.check(lambda: _check_reporter(config.run.report_to))
    problems.stop_if_any()
    assert task and base and chat and train
    train, dev = (train, dev) if dev else golds.held_out(train, config.gold, config.run.seed)
    cut, lost = windowed(train, config.windows.max_tokens, chat)
    dev_cut, _ = windowed(dev[: config.evaluation.examples], config.windows.max_tokens, chat)
    sources = golds.with_neighbours(cut, dev_cut, config.demonstrations)
    plan = _planned(config, task, base, _Gold(*sources, lost), make_builder(config, task, chat))
    _check_run(plan)
    return plan


@dataclass(frozen=True, slots=True)
class _Gold:
    """The examples as windows, with their neighbours; ``lost`` entities lie across a window's edge."""

    train: Source
    dev: Source
    lost: int


def _planned(config: TrainConfig, task: Task, base: str, gold: _Gold, builder: PromptBuilder) -> Plan:
    """The plan, with the first epoch made to see how many rows and steps there are."""
    samples, left_out = gold.train.epoch(builder, mix(config), f"{config.run.seed}-0")
    if not samples:
        raise UserError(
            f"gold.train: no sample fits base.max_model_len={config.base.max_model_len} tokens: nothing to learn from"
        )
    rows = _rows(config, samples)
    first = rows_of(samples, rows, f"{config.run.seed}-0")
    steps = config.optimiser.steps or max(1, round(config.optimiser.epochs * -(-len(first) // rows.per_step)))
    report = (
        _told_of_samples(samples, left_out, gold.lost),
        _told_of_rows(samples, first, rows),
        f"{steps:,} steps of {rows.per_step:,} rows",
    )
    return Plan(config, task, base, gold.train, gold.dev, rows, steps, report)


def _rows(config: TrainConfig, samples: Sequence[packing.Sample]) -> Rows:
    """Under ``auto``: shared prefixes, and rows and steps small enough for 20 steps an epoch.

    Packing few samples into few long rows leaves so few steps that nothing is learnt (conclusion 5 of Wang et al.,
    2025); a step of fewer tokens mends that, and the mask keeps the loss what it was.
    """
    chosen, optimiser = config.packing, config.optimiser
    if chosen.kind != "auto":
        per_step = max(config.run.workers, round(optimiser.batch_tokens / chosen.tokens))
        return Rows(chosen.kind, chosen.masked, chosen.tokens, per_step)
    unpacked = sum(map(len, samples))
    step = min(optimiser.batch_tokens, max(1, unpacked // LEAST_STEPS))
    tokens = max(*map(len, samples), min(chosen.tokens, step // config.run.workers))
    return Rows("shared" if chosen.masked else "greedy", chosen.masked, tokens, max(config.run.workers, step // tokens))


def _told_of_samples(samples: Sequence[packing.Sample], left_out: Counter[str], lost: int) -> str:
    missing = [f"{count:,} {reason}" for reason, count in left_out.items() if count]
    return (
        f"{len(samples):,} samples of {min(map(len, samples)):,} to {max(map(len, samples)):,} tokens"
        + (f"; left out: {', '.join(missing)}" if missing else "")
        + (f"; {lost:,} entities lie across a window's edge" if lost else "")
    )


def _told_of_rows(samples: Sequence[packing.Sample], packs: Sequence[Pack], rows: Rows) -> str:
    tokens, alone = sum(len(pack.ids) for pack in packs), sum(map(len, samples))
    return (
        f"packing {rows.kind}{'' if rows.masked else ' (unmasked)'}: {len(packs):,} rows of up to {rows.tokens:,} "
        f"tokens, {packing.fill_ratio(packs, rows.tokens):.0%} full; {tokens:,} tokens an epoch "
        f"({alone:,} without packing), {sum(p.learnt for p in packs):,} of them learnt"
    )


def _located(config: TrainConfig) -> TrainConfig:
    """Model and encoder made absolute where they are folders here."""
    base = config.base.model_copy(update={"model": on_every_node(config.base.model)})
    near = config.demonstrations.model_copy(update={"encoder": on_every_node(config.demonstrations.encoder)})
    places = {"output": storage.absolute(config.output)}
    lora = config.lora.model_copy(update={"init": on_every_node(config.lora.init)})
    run = config.run.model_copy(update={"storage": storage.absolute(config.run.storage)})
    return config.model_copy(update={"base": base, "demonstrations": near, "lora": lora, "run": run, **places})


def _check_model(config: TrainConfig) -> None:
    from ner_batch.train.model import check_base  # torch takes seconds to import

    check_base(config.base, config.lora)


def _check_init(config: TrainConfig, base: str | None) -> None:
    """The adapter to go on from fits the base and the LoRA settings."""
    lora = config.lora
    if lora.init is None:
        return
    adapter = adapters.load(lora.init)
    if adapter.manifest and base and adapter.manifest.base_fingerprint != base:
        raise UserError(f"lora.init: {lora.init} was trained on {adapter.manifest.base_model}, not {config.base.model}")
    told = json.loads((adapter.path / adapters.CONFIG).read_text(encoding="utf-8"))
    theirs = {"r": told["r"], "alpha": told["lora_alpha"], "targets": sorted(told["target_modules"])}
    ours = {"r": lora.r, "alpha": lora.alpha, "targets": sorted(lora.targets)}
    for name, value in theirs.items():
        if ours[name] != value:
            raise UserError(f"lora.{name}: {ours[name]}, but {lora.init} has {value}: write the same")


def _check_reporter(kind: str) -> None:
    if kind in {"wandb", "mlflow"} and importlib.util.find_spec(kind) is None:
        raise UserError(f"run.report_to: {kind} needs a package that is not here: pip install {kind}")


def _check_places(config: TrainConfig) -> None:
    """The output takes an adapter, the storage checkpoints; both are written to, to see that they can be."""
    if storage.exists(storage.join(config.output, adapters.MANIFEST)):
        raise UserError(f"output: {config.output} holds an adapter already: name another folder, or remove it")
    storage.check_writable(config.output)
    storage.check_writable(storage.join(config.run.storage, config.run.name))


def _check_run(plan: Plan) -> None:
    """A run of that name that lies in the storage must be this one: it would go on from another's weights."""
    record = _record(plan)
    if storage.exists(record) and storage.read_json(record)["digest"] != digest(plan):
        folder = storage.join(plan.config.run.storage, plan.config.run.name)
        raise UserError(
            f"run.name: {folder} belongs to a run with another config, gold or base: choose another name, or remove it"
        )


def claim(plan: Plan) -> None:
    """Leave word in the storage of whose run this is."""
    storage.write_json(_record(plan), {"digest": digest(plan), "config": dump(plan.config)})


def _record(plan: Plan) -> str:
    return storage.join(storage.join(plan.config.run.storage, plan.config.run.name), RECORD)


def digest(plan: Plan) -> str:
    """A digest of all that decides the weights; where they go, failures and reporting may change."""
    told = dump(plan.config)
    told["run"] = {"seed": plan.config.run.seed}
    for name in ("serving", "output", "task"):  # of the task, gold and base the content follows, wherever it lies
        del told[name]
    del told["gold"]["train"], told["gold"]["dev"], told["base"]["model"]
    data = [golds.digest(source.examples) for source in (plan.train, plan.dev)]
    layout = [plan.base_fingerprint, plan.task.digest(), data, asdict(plan.rows), plan.steps]
    return hashlib.sha256(json.dumps([told, layout], sort_keys=True).encode()).hexdigest()[:16]
