"""Served = trained: vLLM loads the adapter, and its greedy answers are compared with the trained model's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from ner_batch.adapter import served_rank
from ner_batch.config import EngineConfig
from ner_batch.engine.engine import Engine, Request
from ner_batch.train import evaluation, worth
from ner_batch.train.model import numbers
from ner_batch.train.plan import Plan


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of ``prompts`` answers, how many are the same, and the first pair that differs."""

    prompts: int
    same: int
    example: tuple[str, str] | None
    worth: worth.Worth

    @property
    def share(self) -> float:
        """Same answers among all."""
        return self.same / self.prompts if self.prompts else 1.0


def compare(plan: Plan, files: Mapping[str, bytes], gpu: bool) -> Agreement:
    """Ask both for the same dev prompts. One after the other, so that one GPU is enough.

    The served adapter answers all of dev, for its probabilities are measured too. ``files`` are the adapter's, by name:
    this may run on a node that does not have the driver's disk.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        asked = evaluation.questions(plan.dev.examples, plan.dev.shown(plan.dev_k), plan.builder())
        both = asked[: plan.config.serving.prompts]
        trained = _trained(plan, Path(folder), both, torch.device("cuda" if gpu else "cpu"))
        served, found = _served(plan, Path(folder), asked)
    differing = [pair for pair in zip(trained, served, strict=False) if pair[0] != pair[1]]
    return Agreement(len(both), len(both) - len(differing), differing[0] if differing else None, found)


def _trained(plan: Plan, adapter: Path, asked: list[evaluation.Question], device: torch.device) -> list[str]:
    base = plan.config.base
    model: Any = AutoModelForCausalLM.from_pretrained(base.model, revision=base.revision, **numbers(base, device))
    model = PeftModel.from_pretrained(model if base.quantization else model.to(device), str(adapter))
    said = evaluation.answer(model, asked, plan.builder())
    del model
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return said


def _served(plan: Plan, adapter: Path, asked: list[evaluation.Question]) -> tuple[list[str], worth.Worth]:
    """The served answers, and what their probabilities are worth."""
    base = plan.config.base
    dtype = {"auto": "auto" if torch.cuda.is_available() else "float32"}.get(base.dtype, base.dtype)
    config = EngineConfig(
        model=base.model,
        revision=base.revision,
        dtype=dtype,
        max_model_len=base.max_model_len,
        max_num_seqs=32,
        max_lora_rank=served_rank(plan.config.lora.r),
        cpu_kv_cache_gib=1,
        enforce_eager=True,
        in_process=True,
    )
    engine = Engine(config)
    try:
        requests = [Request(q.prompt.token_ids, q.prompt.max_tokens, str(adapter), logprobs=()) for q in asked]
        said = engine.generate(requests)
        return [completion.text for completion in said], worth.measure(plan, engine, str(adapter), asked, said)
    finally:
        engine.close()
