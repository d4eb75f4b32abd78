"""What the served adapter's probabilities are worth on dev: a calibration of ``score``, a threshold for verification.

Dev also chose the checkpoint, so both flatter a little; measure on a test set (`ner-batch evaluate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ner_batch.adapter import Calibration, Verification
from ner_batch.data import Completion, Entity, Example, clean
from ner_batch.extract import confidence
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.train.evaluate import DevPrompt
from ner_batch.verification.examples import verification_examples
from ner_batch.verification.pool import Mention
from ner_batch.verification.verifier import Verifier

MIN_ENTITIES = 20  # right and wrong ones each, below which no calibration is fitted
CLAIMS = 4  # verification questions per example: two gold entities and two near misses, where there are as many


def scored_predictions(
    examples: Sequence[Example], prompts: Sequence[DevPrompt], completions: Sequence[Completion], builder: PromptBuilder
) -> list[tuple[Example, Entity]]:
    """The predicted entities with their uncalibrated scores, each with its example."""
    predictions: list[tuple[Example, Entity]] = []
    for dev_prompt, completion in zip(prompts, completions, strict=True):
        asked = dev_prompt.text, dev_prompt.labels, builder.task
        answer = builder.format.complete(completion.text) if completion.finish_reason == "length" else completion.text
        entities = builder.format.parse(answer, *asked).entities
        mentions = builder.format.locate_mentions(completion.text, *asked)
        pieces = builder.chat.pieces(dev_prompt.prompt.token_ids, completion.token_ids)
        scored = confidence.scored(entities, mentions, completion, pieces)
        predictions += [(examples[dev_prompt.example], entity) for entity in scored]
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
    examples: Sequence[Example],
    predictions: Sequence[tuple[Example, Entity]],
    correct: Sequence[bool],
    verifier: Verifier,
) -> Verification | None:
    """The threshold that serves the predictions best, and the AUROC of P(yes) over claims about gold; k is 0 in both.

    None where nothing was predicted, or all claims are true or all are false.
    """
    names = verifier.questions.task.names
    about_gold = [claim for x in examples for claim in verification_examples(x, names, CLAIMS, f"dev {x.id}")]
    mentions = [(claim.text, claim.entity) for claim in about_gold] + [(x.text, entity) for x, entity in predictions]
    p_yes = [p for _, p in verifier.ask([Mention(clean(text), entity) for text, entity in mentions])]
    area = auroc(p_yes[: len(about_gold)], [claim.is_true for claim in about_gold])
    if area is None or not predictions:
        return None
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

    ``p_yes`` is of each prediction, and one without is kept whatever the threshold; ``gold`` counts gold entities.
    """
    ascending = sorted((score, true) for score, true in zip(p_yes, correct, strict=True) if score is not None)
    predicted, true_positives = len(correct), sum(correct)
    best_f1, threshold = 2 * true_positives / max(1, predicted + gold), 0.0
    for (score, true), (next_score, _) in pairwise([*ascending, (1.0, False)]):
        predicted, true_positives = predicted - 1, true_positives - true
        if next_score > score and 2 * true_positives / max(1, predicted + gold) > best_f1 + 1e-12:
            best_f1, threshold = 2 * true_positives / (predicted + gold), (score + next_score) / 2
    return threshold
