"""What the served adapter's probabilities are worth on dev: a calibration of ``score``, a threshold for verification.

Dev also chose the checkpoint, so both flatter a little; measure on a test set (`ner-batch evaluate`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ner_batch.adapter import Calibration, Verification
from ner_batch.data import Completion, Entity, clean
from ner_batch.engine.engine import Engine, Request
from ner_batch.extract import confidence
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.train import evaluation
from ner_batch.train.plan import Plan
from ner_batch.verification import examples as claims
from ner_batch.verification import question as verify

LEAST = 20  # right and wrong entities each, below which nothing is fitted
CLAIMS = 4  # verification questions per dev example: two gold entities and two near misses, where there are as many


@dataclass(frozen=True, slots=True)
class Worth:
    """What was found; None where there was too little to find it from."""

    calibration: Calibration | None = None
    verification: Verification | None = None


def measure(
    plan: Plan, engine: Engine, adapter: str, asked: Sequence[evaluation.Question], said: Sequence[Completion]
) -> Worth:
    """From the served answers to dev prompts (with log-probabilities of their tokens)."""
    builder = plan.builder()  # once: it loads the tokenizer
    found = [_scored(plan, builder, question, completion) for question, completion in zip(asked, said, strict=True)]
    gold = [{(e.start, e.end, e.type) for e in plan.dev.examples[q.example].entities} for q in asked]
    right = [[(e.start, e.end, e.type) in known for e in entities] for entities, known in zip(found, gold, strict=True)]
    scores = [e.score for entities in found for e in entities]
    truth = [value for values in right for value in values]
    verification = None
    if plan.config.augmentation.verification:
        verification = _verification(plan, _Asking(plan, engine, adapter), asked, found, right)
    return Worth(calibrated(scores, truth), verification)


def _scored(
    plan: Plan, builder: PromptBuilder, question: evaluation.Question, completion: Completion
) -> tuple[Entity, ...]:
    """The entities of one answer with their uncalibrated scores."""
    text = clean(plan.dev.examples[question.example].text)
    answer = builder.format.complete(completion.text) if completion.finish_reason == "length" else completion.text
    parsed = builder.format.parse(answer, text, question.labels, builder.task)
    said = builder.format.said(completion.text, text, question.labels, builder.task)
    return confidence.scored(
        parsed.entities, said, completion, builder.chat.pieces(question.prompt.token_ids, completion.token_ids)
    )


def calibrated(scores: Sequence[float | None], truth: Sequence[bool]) -> Calibration | None:
    """Platt's sigmoid over the logit of the scores (Platt 1999, "Probabilistic outputs"), or None.

    Each entity counts as right and wrong at once, with Platt's weights, so that scores that separate the two perfectly
    give no infinite slope. A slope that is not positive says that the scores tell nothing: None.
    """
    from sklearn.linear_model import LogisticRegression

    known = [(score, true) for score, true in zip(scores, truth, strict=True) if score is not None]
    right, wrong = sum(true for _, true in known), sum(not true for _, true in known)
    if min(right, wrong) < LEAST:
        return None
    logits = np.array([[confidence.logit(score)] for score, _ in known])
    goal = np.array([(right + 1) / (right + 2) if true else 1 / (wrong + 2) for _, true in known])
    labels = [True] * len(known) + [False] * len(known)
    weights = np.concatenate([goal, 1 - goal])
    fitted = LogisticRegression(C=1e6).fit(np.concatenate([logits, logits]), labels, sample_weight=weights)
    slope, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return Calibration(slope=slope, offset=offset, entities=len(known)) if slope > 0 else None


class _Asking:
    """Asks the served adapter verification questions, without demonstrations."""

    def __init__(self, plan: Plan, engine: Engine, adapter: str) -> None:
        builder = plan.builder()
        self.engine, self.adapter = engine, adapter
        self.questions = verify.Questions(builder.task, builder.chat, builder.max_model_len)
        self.tokens = self.questions.tokens()

    def likely(self, about: Sequence[tuple[str, Entity]]) -> list[float | None]:
        """P(yes) for entities of texts."""
        prompts = [self.questions.prompt(clean(text), entity) for text, entity in about]
        requests = [Request(ids, 1, self.adapter, logprobs=self.tokens) for ids in prompts if ids]
        answers = iter(asyncio.run(self.engine.generate(requests)))
        return [verify.read(next(answers), self.tokens) if ids else None for ids in prompts]


def _verification(
    plan: Plan,
    asking: _Asking,
    asked: Sequence[evaluation.Question],
    found: Sequence[Sequence[Entity]],
    right: Sequence[Sequence[bool]],
) -> Verification | None:
    """The threshold that serves dev's predictions best, and how well P(yes) tells gold from near misses."""
    made = [c for x in plan.dev.examples for c in claims.claims(x, plan.task.names, CLAIMS, f"dev {x.id}")]
    area = auroc(asking.likely([(c.text, c.entity) for c in made]), [c.true for c in made])
    texts = [plan.dev.examples[question.example].text for question in asked]
    likely = asking.likely([(text, e) for text, entities in zip(texts, found, strict=True) for e in entities])
    truth = [value for values in right for value in values]
    total = sum(len(x.entities) for x in plan.dev.examples)
    if area is None or not truth:
        return None
    return Verification(threshold=best_threshold(likely, truth, total), auroc=area, claims=len(made))


def auroc(scores: Sequence[float | None], truth: Sequence[bool]) -> float | None:
    """The share of (true, false) pairs in which the true one has the higher score; None without any pair."""
    from sklearn.metrics import roc_auc_score

    known = [(score, true) for score, true in zip(scores, truth, strict=True) if score is not None]
    if len({true for _, true in known}) < 2:
        return None
    return float(roc_auc_score([true for _, true in known], [score for score, _ in known]))


def best_threshold(likely: Sequence[float | None], truth: Sequence[bool], gold: int) -> float:
    """The threshold with the highest F1 of what it keeps; the lowest of equals, 0 where dropping never helps."""
    known = sorted((score, true) for score, true in zip(likely, truth, strict=True) if score is not None)
    kept, correct = len(truth), sum(truth)
    best, threshold = 2 * correct / max(1, kept + gold), 0.0
    for (score, true), (above, _) in pairwise([*known, (1.0, False)]):
        kept, correct = kept - 1, correct - true
        if above > score and 2 * correct / max(1, kept + gold) > best + 1e-12:
            best, threshold = 2 * correct / (kept + gold), (score + above) / 2
    return threshold
