"""Served = trained: vLLM loads the adapter, and its greedy answers are compared with the trained model's.

What the served probabilities are worth is measured too: a calibration of ``score``, a threshold for verification. Dev
also chose the checkpoint, so both flatter a little; measure on a test set (`ner-batch evaluate`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from ner_batch.adapter import Calibration, Verification, served_rank
from ner_batch.data import Completion, Entity, Example, clean
from ner_batch.engine.engine import Engine, Request
from ner_batch.engine.settings import EngineConfig
from ner_batch.extraction import confidence
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.train import evaluate
from ner_batch.train import model as models
from ner_batch.train.evaluate import DevPrompt
from ner_batch.train.plan import Plan
from ner_batch.verification.examples import verification_examples
from ner_batch.verification.pool import Mention, Pool
from ner_batch.verification.question import Questions
from ner_batch.verification.settings import VerifyConfig
from ner_batch.verification.verifier import Verifier

MIN_ENTITIES = 20  # right and wrong ones each, below which no calibration is fitted
CLAIMS = 4  # verification questions per example: two gold entities and two near misses, where there are as many
ScoredPrediction = tuple[Example, Entity, bool]
"""An example, an entity predicted for it, and whether it is gold."""


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
        dtype = base.dtype
        if gpu and dtype == "float32":
            dtype = "auto"  # vLLM's adapters on a GPU are for 16 bits
        if not gpu and dtype == "auto":
            dtype = "bfloat16" if plan.config.serving.quantization else "float32"  # as in training, where vLLM can
        config = EngineConfig(
            model=base.model,
            revision=base.revision,
            chat_template=base.chat_template,
            dtype=dtype,
            quantization=plan.config.serving.quantization,
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
            predictions = scored_predictions(dev, prompts, served, builder)
            if plan.config.augmentation.verification:
                questions = Questions(plan.task, builder.chat, builder.max_model_len)
                verifier = Verifier(VerifyConfig(), folder, engine, questions, Pool(()))
                verification = fit_threshold(dev, predictions, verifier)
    calibration = fit_calibration([entity.score for _, entity, _ in predictions], [right for *_, right in predictions])
    pairs = zip(trained, (completion.text for completion in served), strict=False)
    differences = [pair for pair in pairs if pair[0] != pair[1]]
    identical = len(compared) - len(differences)
    return Agreement(len(compared), identical, differences[0] if differences else None, calibration, verification)


def scored_predictions(
    examples: Sequence[Example], prompts: Sequence[DevPrompt], completions: Sequence[Completion], builder: PromptBuilder
) -> list[ScoredPrediction]:
    """The predicted entities with their uncalibrated scores."""
    predictions: list[ScoredPrediction] = []
    for dev_prompt, completion in zip(prompts, completions, strict=True):
        text, labels = dev_prompt.text, dev_prompt.labels
        answer = builder.format.complete(completion.text) if completion.finish_reason == "length" else completion.text
        entities = builder.format.parse(answer, text, labels, builder.task).entities
        mentions = builder.format.locate_mentions(completion.text, text, labels, builder.task)
        pieces = builder.chat.pieces(dev_prompt.prompt.token_ids, completion.token_ids)
        scored, example = confidence.scored(entities, mentions, completion, pieces), examples[dev_prompt.example]
        predictions += [(example, entity, replace(entity, score=None) in example.entities) for entity in scored]
    return predictions


def fit_calibration(scores: Sequence[float | None], correct: Sequence[bool]) -> Calibration | None:
    """Platt's sigmoid over the logit of the scores (Platt 1999, "Probabilistic outputs"), or None.

    Each entity counts as right and wrong at once, with Platt's weights, so that a perfect separation gives no infinite
    slope. None where entities are few, or the slope is not positive: the scores tell nothing.
    """
    from sklearn.linear_model import LogisticRegression

    scored = [(score, true) for score, true in zip(scores, correct, strict=True) if score is not None]
    right, wrong = sum(true for _, true in scored), sum(not true for _, true in scored)
    if min(right, wrong) < MIN_ENTITIES:
        return None
    logits = np.array([[confidence.logit(score)] for score, _ in scored])
    targets = np.array([(right + 1) / (right + 2) if true else 1 / (wrong + 2) for _, true in scored])
    labels = [True] * len(scored) + [False] * len(scored)
    weights = np.concatenate([targets, 1 - targets])
    model = LogisticRegression(C=1e6).fit(np.concatenate([logits, logits]), labels, sample_weight=weights)
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    return Calibration(slope=slope, offset=offset, entities=len(scored)) if slope > 0 else None


def fit_threshold(
    examples: Sequence[Example], predictions: Sequence[ScoredPrediction], verifier: Verifier
) -> Verification | None:
    """The threshold that serves the predictions best, and the AUROC of P(yes) over claims about gold; k is 0 in both.

    None where nothing was predicted, or all claims are true or all are false.
    """
    names = verifier.questions.task.names
    about_gold = [claim for x in examples for claim in verification_examples(x, names, CLAIMS, f"dev {x.id}")]
    mentions = [(claim.text, claim.entity) for claim in about_gold] + [(x.text, e) for x, e, _ in predictions]
    p_yes = [p for _, p in verifier.ask([Mention(clean(text), entity) for text, entity in mentions])]
    area = auroc(p_yes[: len(about_gold)], [claim.is_true for claim in about_gold])
    if area is None or not predictions:
        return None
    correct = [is_correct for _, _, is_correct in predictions]
    threshold = best_threshold(p_yes[len(about_gold) :], correct, sum(len(x.entities) for x in examples))
    return Verification(threshold=threshold, auroc=area, claims=len(about_gold))


def auroc(p_yes: Sequence[float | None], truth: Sequence[bool]) -> float | None:
    """The share of (true, false) pairs in which the true one has the higher score; None without any pair."""
    from sklearn.metrics import roc_auc_score

    scored = [(score, true) for score, true in zip(p_yes, truth, strict=True) if score is not None]
    if len({true for _, true in scored}) < 2:
        return None
    return float(roc_auc_score([true for _, true in scored], [score for score, _ in scored]))


def best_threshold(p_yes: Sequence[float | None], correct: Sequence[bool], gold: int) -> float:
    """The threshold with the highest F1 of what it keeps; the lowest of equals, 0 where dropping never helps.

    A prediction without ``p_yes`` is kept whatever the threshold; ``gold`` counts gold entities.
    """
    ascending = sorted((score, true) for score, true in zip(p_yes, correct, strict=True) if score is not None)
    predicted, true_positives = len(correct), sum(correct)
    best_f1, threshold = 2 * true_positives / max(1, predicted + gold), 0.0
    for (score, true), (next_score, _) in pairwise([*ascending, (1.0, False)]):
        predicted, true_positives = predicted - 1, true_positives - true
        if next_score > score and 2 * true_positives / max(1, predicted + gold) > best_f1 + 1e-12:
            best_f1, threshold = 2 * true_positives / (predicted + gold), (score + next_score) / 2
    return threshold
