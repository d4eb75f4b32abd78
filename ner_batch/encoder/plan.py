"""What a run of `ner-batch train-encoder` starts from: everything checked, the text read, sentences drawn."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from sentence_transformers import SentenceTransformer

from ner_batch.adapter import model_fingerprint
from ner_batch.config import dump
from ner_batch.encoder import corpus, model
from ner_batch.encoder.settings import TrainEncoderConfig
from ner_batch.errors import Problems, UserError, first_line
from ner_batch.io import storage
from ner_batch.io.listing import list_shards
from ner_batch.jobs.cluster import check_lasting
from ner_batch.jobs.progress import ProgressLine
from ner_batch.jobs.record import digest

MANIFEST = "ner_batch_encoder.json"
MARK = "ner_batch_checkpoint.json"  # written into a checkpoint last: it is whole, and this is the run it belongs to
_HELD_OUT = 1000  # sentences scored at most; their distances are half a million
_UNREADABLE = 10  # unreadable files and units that are named


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that can start, or go on from a checkpoint."""

    config: TrainEncoderConfig
    model: SentenceTransformer
    sentences: list[str]
    held_out: list[str]
    steps: int
    bf16: bool
    base_fingerprint: str
    data_digest: str  # of the sentences, those held out included
    digest: str  # of all that the weights follow from: a checkpoint with another one belongs to another run
    report: tuple[str, ...]

    @property
    def target(self) -> Path:
        """The folder of the finished encoder."""
        return Path(storage.absolute(self.config.output)).resolve()

    @property
    def checkpoints(self) -> Path:
        """Where state is kept until the encoder is written: beside it."""
        return self.target.with_name(f"{self.target.name}.checkpoint")

    def newest_checkpoint(self) -> Path | None:
        """The newest one that is whole, None if there is none. A UserError where it belongs to something else."""
        folder = self.checkpoints
        if not folder.exists():
            return None
        if not folder.is_dir() or any(not path.match("checkpoint-*") for path in folder.iterdir()):
            raise UserError(f"{folder}: not a folder of checkpoints: remove it, or name another output")
        whole = sorted(folder.glob(f"*/{MARK}"), key=lambda mark: int(mark.parent.name.rpartition("-")[2]))
        if not whole:
            return None
        if storage.read_json(str(whole[-1])).get("digest") != self.digest:
            raise UserError(
                f"{folder}: belongs to a run with another config, text or encoder: remove it, or name another output"
            )
        return whole[-1].parent


def prepare(config: TrainEncoderConfig, console: Console) -> Plan:
    """Check everything, read the text and plan the run. A UserError has every problem found, one line each."""
    problems = Problems()
    problems.check(lambda: _check_output(config.output))
    with ProgressLine(console) as progress:
        progress.show("loading the encoder")
        base = problems.check(lambda: model_fingerprint(config.base.model, config.base.revision))
        device = problems.check(lambda: _device(config.run.device))
        encoder = problems.check(lambda: model.load(config.base, device)) if base and device else None
        progress.show("looking for text")
        listing = problems.check(lambda: list_shards(config.input.path, config.input.text_column))
        problems.stop_if_any()
        assert base and encoder and listing
        sample, corrupt = corpus.draw(listing, config.input, config.run.seed, progress.show)
        sampled = sample.sentences()
        progress.show("counting tokens")
        longest = (encoder.max_seq_length or sys.maxsize) - encoder.tokenizer.num_special_tokens_to_add()
        budget = max(1, min(config.input.max_tokens, longest))
        sentences = corpus.fitted(sampled, budget, lambda texts: model.count_tokens(encoder, texts))
    batch, epochs = config.optimiser.batch, config.optimiser.epochs
    held_out = min(_HELD_OUT, round(len(sentences) * config.run.held_out))
    count = len(sentences) - held_out
    unreadable = [f"unreadable: {line}" for line in corrupt[:_UNREADABLE]]
    if len(corrupt) > _UNREADABLE:
        unreadable.append(f"unreadable: {len(corrupt) - _UNREADABLE:,} more like these")
    if count < batch:
        too_little = (
            f"input.path: {config.input.path} has {count:,} distinct sentences to train on, "
            f"fewer than optimiser.batch={batch} ({held_out:,} are held out): give more text, or lower it"
        )
        raise UserError("\n".join([too_little, *unreadable]))
    steps = config.optimiser.steps or max(1, round(epochs * (count // batch)))
    bf16 = config.base.compute == "bfloat16" or (config.base.compute is None and encoder.device.type == "cuda")
    data_digest = digest(sampled)
    # Encoder and text count by their content, for both may move.
    settings = training_settings(config)
    settings["input"] = {"max_tokens": config.input.max_tokens}
    del settings["base"]["model"], settings["base"]["revision"]
    plan = Plan(
        config=config,
        model=encoder,
        sentences=sentences[held_out:],
        held_out=sentences[:held_out],
        steps=steps,
        bf16=bf16,
        base_fingerprint=base,
        data_digest=data_digest,
        digest=digest([settings, base, model.structure(encoder), data_digest, bf16]),
        report=(
            *unreadable,
            *([listing.about_passed_over] if listing.about_passed_over else []),
            f"{sample.seen:,} sentences read, {count:,} distinct ones to train on, {held_out:,} held out",
            f"{steps:,} steps of {batch:,} sentences, in {'bf16' if bf16 else 'float32'}",
        ),
    )
    plan.newest_checkpoint()
    return plan


def training_settings(config: TrainEncoderConfig) -> dict[str, Any]:
    """The config without places and without what decides no weight."""
    settings = dump(config)
    del settings["output"], settings["run"]["checkpoint_every"], settings["run"]["device"]
    return settings


def _device(name: str | None) -> str:
    device = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"run.device: {device}: {first_line(error)}") from None
    return device


def _check_output(output: str) -> None:
    """A local place that is free, or an empty folder, and can be written to."""
    check_lasting("output", output)
    if storage.local_path(output) is None:
        raise UserError(f"output: {output}: an encoder is written to a local disk; copy the folder there afterwards")
    target = Path(storage.absolute(output)).resolve()
    if target.is_mount():
        raise UserError(f"output: {target} is a mount point, which cannot be replaced: name a folder in it")
    if (target / MANIFEST).is_file():
        raise UserError(f"output: {output} holds an encoder already: name another folder, or remove it")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"output: {output} exists and is no empty folder: name another place")
    storage.check_writable(str(target.parent))
