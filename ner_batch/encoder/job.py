"""The encoder job: everything checked, sentences drawn, training, and the folder written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.markup import escape
from sentence_transformers import SentenceTransformer

from ner_batch.adapter import model_fingerprint
from ner_batch.config import dump
from ner_batch.encoder import corpus, model
from ner_batch.encoder.corpus import Corpus
from ner_batch.encoder.loop import Checkpoint, Course, Trainer
from ner_batch.encoder.progress import Line
from ner_batch.encoder.settings import TrainEncoderConfig
from ner_batch.errors import Problems, UserError, first_line
from ner_batch.io import storage
from ner_batch.io.shards import list_shards
from ner_batch.jobs.cluster import check_lasting

MANIFEST = "ner_batch_encoder.json"
_HELD_OUT = 1000  # sentences scored at most; their distances are half a million
_COUNTED = 10_000  # sentences whose tokens are counted together
_TOLD = 10  # unreadable files and units that are named


class EncoderManifest(BaseModel):
    """What an encoder was made of; the content of ``ner_batch_encoder.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    base: str
    base_fingerprint: str
    """Digest of a local base, ``name@revision`` of one from the hub."""
    revision: str | None
    """Commit of a base from the hub."""
    data: str
    """Digest of the sentences, those held out included."""
    sentences: int
    held_out: int
    steps: int
    settings: dict[str, Any]
    scores: dict[str, dict[str, float]]
    """Of the held-out sentences, before and after: accuracy, alignment, uniformity."""
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that can start: an encoder that is loaded, and what it is to learn."""

    config: TrainEncoderConfig
    model: SentenceTransformer
    base: str
    data: str
    course: Course
    held_out: tuple[str, ...]
    report: tuple[str, ...]

    @property
    def checkpoint(self) -> Checkpoint:
        """Where state is kept until the encoder is written: beside it."""
        target = _target(self.config.output)
        return Checkpoint(target.with_name(f"{target.name}.checkpoint"), self.config.run.checkpoint_every)


def prepare(config: TrainEncoderConfig, console: Console) -> Plan:
    """Check everything, read the text and plan the run.

    Raises:
        UserError: every problem found, one line each.
    """
    problems = Problems()
    problems.check(lambda: _check_output(config.output))
    base = problems.check(lambda: model_fingerprint(config.base.model, config.base.revision))
    device = problems.check(lambda: _device(config.run.device))
    encoder = problems.check(lambda: model.load(config.base, device)) if base and device else None
    listing = problems.check(lambda: list_shards(config.input.path, config.input.text_column))
    problems.stop_if_any()
    assert base and encoder and listing
    with Line(console, "reading part") as line:
        found = corpus.draw(listing, config.input, config.run.seed, line.show)
    plan = _planned(config, encoder, base, found)
    plan.checkpoint.read(plan.course.digest)
    return plan


def _planned(config: TrainEncoderConfig, encoder: SentenceTransformer, base: str, found: Corpus) -> Plan:
    sentences = corpus.fitted(found.sentences, _budget(encoder, config), lambda texts: _tokens(encoder, texts))
    apart = min(_HELD_OUT, round(len(sentences) * config.run.held_out))
    held_out, kept = tuple(sentences[:apart]), tuple(sentences[apart:])
    optimiser = config.optimiser
    if len(kept) < optimiser.batch:
        raise UserError(
            f"input.path: {config.input.path} has {len(kept):,} distinct sentences to train on, "
            f"fewer than optimiser.batch={optimiser.batch} ({apart:,} are held out): give more text, or lower it"
            + "".join(f"\nunreadable: {line}" for line in found.unreadable[:_TOLD])
        )
    steps = optimiser.steps or max(1, round(optimiser.epochs * (len(kept) // optimiser.batch)))
    mixed = config.base.compute == "bfloat16" or (config.base.compute is None and encoder.device.type == "cuda")
    data = found.digest()
    told = [base, _structure(encoder), data]
    course = Course(kept, steps, optimiser, config.run.seed, mixed, _digest(config, told, mixed=mixed))
    return Plan(config, encoder, base, data, course, held_out, _report(found, course, apart))


def _report(found: Corpus, course: Course, apart: int) -> tuple[str, ...]:
    more = len(found.unreadable) - _TOLD
    return (
        *(f"unreadable: {line}" for line in found.unreadable[:_TOLD]),
        *([f"unreadable: {more:,} more like these"] if more > 0 else []),
        f"{found.seen:,} sentences read, {len(course.sentences):,} distinct ones to train on, {apart:,} held out",
        f"{course.steps:,} steps of {course.optimiser.batch:,} sentences, in {'bf16' if course.mixed else 'float32'}",
    )


def run(plan: Plan, console: Console) -> int:
    """Train, score and write; 0."""
    seed = plan.config.run.seed
    before = model.scores(plan.model, plan.held_out, seed) if len(plan.held_out) > 1 else {}
    with Line(console, "step") as line:
        Trainer(plan.model, plan.course).run(plan.checkpoint, line.show)
    after = model.scores(plan.model, plan.held_out, seed) if before else {}
    for name, value in after.items():
        console.print(f"{name:12} {before[name]:.4f} before, {value:.4f} after", highlight=False)
    _write(plan, {"before": before, "after": after} if before else {})
    plan.checkpoint.path.unlink(missing_ok=True)
    console.print(f"encoder: {escape(plan.config.output)}", highlight=False, soft_wrap=True)
    return 0


def _write(plan: Plan, scores: dict[str, dict[str, float]]) -> None:
    """The folder, made beside its place and renamed."""
    target = _target(plan.config.output)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=storage.TEMPORARY_PREFIX) as temporary:
        new = Path(temporary) / "new"
        plan.model.save(str(new), create_model_card=False)
        storage.write_json(str(new / MANIFEST), manifest(plan, scores).model_dump())
        new.rename(target)  # takes the place of an empty folder too


def manifest(plan: Plan, scores: dict[str, dict[str, float]]) -> EncoderManifest:
    """What the encoder was trained from and with."""
    packages = ("ner-batch", "torch", "transformers", "sentence-transformers")
    return EncoderManifest(
        base=plan.config.base.model,
        base_fingerprint=plan.base,
        revision=plan.model.model_card_data.base_model_revision,
        data=plan.data,
        sentences=len(plan.course.sentences),
        held_out=len(plan.held_out),
        steps=plan.course.steps,
        settings=_settings(plan.config),
        scores=scores,
        versions={name: version(name) for name in packages},
    )


def _settings(config: TrainEncoderConfig) -> dict[str, Any]:
    """The config without places and without what decides no weight."""
    told = dump(config)
    del told["output"], told["run"]["checkpoint_every"], told["run"]["device"]
    return told


def _digest(config: TrainEncoderConfig, content: Sequence[Any], *, mixed: bool) -> str:
    """Names all that the weights follow from; of encoder and text by their content, for both may move."""
    told = _settings(config)
    told["input"] = {"max_tokens": config.input.max_tokens}
    del told["base"]["model"], told["base"]["revision"]
    return hashlib.sha256(json.dumps([told, *content, mixed], sort_keys=True).encode()).hexdigest()[:16]


def _structure(encoder: SentenceTransformer) -> list[Any]:
    """What the base's fingerprint does not tell of an encoder: length, modules, weights behind the first one."""
    weights = hashlib.sha256()
    for module in list(encoder)[1:]:
        for name, weight in module.state_dict().items():
            weights.update(name.encode() + weight.cpu().numpy().tobytes())
    modules = [[type(module).__name__, module.get_config_dict()] for module in encoder]
    return [encoder.max_seq_length, json.loads(json.dumps(modules, default=str)), weights.hexdigest()]


def _budget(encoder: SentenceTransformer, config: TrainEncoderConfig) -> int:
    """Tokens of a sentence: as configured, or what the encoder reads of one."""
    special: int = encoder.tokenizer.num_special_tokens_to_add()
    most: int = encoder.max_seq_length or config.input.max_tokens + special
    return max(1, min(config.input.max_tokens, most - special))


def _tokens(encoder: SentenceTransformer, texts: Sequence[str]) -> list[int]:
    """Numbers of tokens, counted in parts: a tokenizer's answer takes many times the memory of the text."""
    found: list[int] = []
    for start in range(0, len(texts), _COUNTED):
        part = list(texts[start : start + _COUNTED])
        found += map(len, encoder.tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"])
    return found


def _device(name: str | None) -> str:
    """The device to use, seen to be there."""
    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"run.device: {chosen}: {first_line(error)}") from None
    return chosen


def _target(output: str) -> Path:
    return Path(storage.local_path(output) or output)


def _check_output(output: str) -> None:
    """A local place that is free, or an empty folder, and can be written to."""
    check_lasting("output", output)
    if storage.local_path(output) is None:
        raise UserError(f"output: {output}: an encoder is written to a local disk; copy the folder there afterwards")
    target = _target(output)
    if (target / MANIFEST).is_file():
        raise UserError(f"output: {output} holds an encoder already: name another folder, or remove it")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"output: {output} exists and is no empty folder: name another place")
    storage.check_writable(str(target.parent))
