"""What the served adapter's probabilities are worth on dev: a calibration of ``score``, a threshold for verification.

Dev also chose the checkpoint, so both flatter a little; measure on a test set (`ner-batch evaluate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ner_batch.adapter import Calibration, Verification
from ner_batch.data import Completion, Entity, Example, clean
from ner_batch.extract import confidence
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.train.evaluate import DevPrompt
from ner_batch.verification import threshold
from ner_batch.verification.threshold import AskPYes

MIN_ENTITIES = 20  # right and wrong ones each, below which no calibration is fitted


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """What was fitted on dev; None where there was too little to fit it from."""

    calibration: Calibration | None = None
    verification: Verification | None = None


def fit(
    examples: Sequence[Example], predictions: Sequence[Sequence[Entity]], types: Sequence[str], ask: AskPYes | None
) -> CalibrationResult:
    """The calibration of ``score`` and the threshold of verification.

    Args:
        examples: dev's.
        predictions: the entities predicted for each, with their uncalibrated scores.
        types: the task's, which near misses are made of.
        ask: P(yes) of entities; None where the adapter was not trained on verification questions.
    """
    gold = [{(e.start, e.end, e.type) for e in example.entities} for example in examples]
    scores, correct = [], []
    for spans, entities in zip(gold, predictions, strict=True):
        scores += [entity.score for entity in entities]
        correct += [(entity.start, entity.end, entity.type) in spans for entity in entities]
    verification = threshold.fit(examples, predictions, types, ask) if ask else None
    return CalibrationResult(fit_calibration(scores, correct), verification)


def scored_predictions(
    examples: Sequence[Example],
    prompts: Sequence[DevPrompt],
    completions: Sequence[Completion],
    builder: PromptBuilder,
) -> list[list[Entity]]:
    """The entities predicted for each example, with their uncalibrated scores.

    ``completions`` are the answers to ``prompts``, with log-probabilities of their own tokens.
    """
    predictions: list[list[Entity]] = [[] for _ in examples]
    for dev_prompt, completion in zip(prompts, completions, strict=True):
        text, labels = clean(examples[dev_prompt.example].text), dev_prompt.labels
        answer = builder.format.complete(completion.text) if completion.finish_reason == "length" else completion.text
        parsed = builder.format.parse(answer, text, labels, builder.task)
        mentions = builder.format.locate_mentions(completion.text, text, labels, builder.task)
        pieces = builder.chat.pieces(dev_prompt.prompt.token_ids, completion.token_ids)
        predictions[dev_prompt.example] += confidence.scored(parsed.entities, mentions, completion, pieces)
    return predictions


def fit_calibration(scores: Sequence[float | None], correct: Sequence[bool]) -> Calibration | None:
    """Platt's sigmoid over the logit of the scores (Platt 1999, "Probabilistic outputs"), or None.

    Each entity counts as right and wrong at once, with Platt's weights, so that scores that separate the two perfectly
    give no infinite slope. A slope that is not positive says that the scores tell nothing: None.
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
