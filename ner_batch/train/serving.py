"""Served = trained: vLLM loads the adapter, and its greedy answers are compared with the trained model's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ner_batch.adapter import Calibration, Verification, served_rank
from ner_batch.engine.engine import Engine, Request
from ner_batch.engine.settings import EngineConfig
from ner_batch.train import calibrate, evaluate
from ner_batch.train import model as models
from ner_batch.train.plan import Plan
from ner_batch.verification.pool import Pool
from ner_batch.verification.question import Questions
from ner_batch.verification.settings import VerifyConfig
from ner_batch.verification.verifier import Verifier


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many answers are identical, the first pair (trained, served) that is not, and what was fitted on dev."""

    prompts: int
    identical: int
    difference: tuple[str, str] | None
    calibration: Calibration | None = None
    verification: Verification | None = None


def compare(plan: Plan, files: Mapping[str, bytes], gpu: bool) -> Agreement:
    """Ask both for the same dev prompts. One after the other, so that one GPU is enough.

    The served adapter answers all of dev, for its probabilities are measured too. ``files`` are the adapter's, by name:
    this may run on a node that does not have the driver's disk. Raises what :class:`Engine` does.
    """
    builder, dev, base, verification = plan.builder(), plan.dev.examples, plan.config.base, None
    prompts = evaluate.dev_prompts(dev, plan.dev.demonstrations(plan.dev_k), builder)
    compared = prompts[: plan.config.serving.prompts]
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        device, lora = torch.device("cuda" if gpu else "cpu"), plan.config.lora.model_copy(update={"init": folder})
        model = models.load(base, lora, device, plan.config.run.seed)
        trained = evaluate.answers_in_training(model, compared, builder)
        del model
        if gpu:
            torch.cuda.empty_cache()
        config = EngineConfig(
            model=base.model,
            revision=base.revision,
            dtype="float32" if base.dtype == "auto" and not gpu else base.dtype,  # as in training
            max_model_len=base.max_model_len,
            max_num_seqs=32,
            max_lora_rank=served_rank(lora.r),
            cpu_kv_cache_gib=1,
            enforce_eager=True,
            in_process=True,
        )
        with closing(Engine(config)) as engine:
            requests = [Request(p.prompt.token_ids, p.prompt.max_tokens, folder, logprobs=()) for p in prompts]
            served = engine.generate(requests)
            predictions = calibrate.scored_predictions(dev, prompts, served, builder)
            correct = [replace(entity, score=None) in example.entities for example, entity in predictions]
            if plan.config.augmentation.verification:
                questions = Questions(plan.task, builder.chat, builder.max_model_len)
                verifier = Verifier(VerifyConfig(), folder, engine, questions, Pool(()))
                verification = calibrate.fit_threshold(dev, predictions, correct, verifier)
    calibration = calibrate.fit_calibration([entity.score for _, entity in predictions], correct)
    pairs = zip(trained, (completion.text for completion in served), strict=False)
    differences = [pair for pair in pairs if pair[0] != pair[1]]
    identical = len(compared) - len(differences)
    return Agreement(len(compared), identical, differences[0] if differences else None, calibration, verification)
