"""What the served adapter's probabilities are worth on dev: predictions with scores, and a calibration of these.

Dev also chose the checkpoint, so the calibration flatters a little; measure on a test set (`ner-batch evaluate`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ner_batch.adapter import Calibration
from ner_batch.data import Completion, Entity, Example, clean
from ner_batch.extract import confidence
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.train.evaluate import DevPrompt

MIN_ENTITIES = 20  # right and wrong ones each, below which no calibration is fitted


def scored_predictions(
    examples: Sequence[Example],
    prompts: Sequence[DevPrompt],
    completions: Sequence[Completion],
    builder: PromptBuilder,
) -> list[tuple[Example, Entity]]:
    """The predicted entities with their uncalibrated scores, each with its example.

    ``completions`` are the answers to ``prompts``, with log-probabilities of their own tokens.
    """
    predictions: list[tuple[Example, Entity]] = []
    for dev_prompt, completion in zip(prompts, completions, strict=True):
        example, labels = examples[dev_prompt.example], dev_prompt.labels
        text = clean(example.text)
        answer = builder.format.complete(completion.text) if completion.finish_reason == "length" else completion.text
        parsed = builder.format.parse(answer, text, labels, builder.task)
        mentions = builder.format.locate_mentions(completion.text, text, labels, builder.task)
        pieces = builder.chat.pieces(dev_prompt.prompt.token_ids, completion.token_ids)
        entities = confidence.scored(parsed.entities, mentions, completion, pieces)
        predictions += [(example, entity) for entity in entities]
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
