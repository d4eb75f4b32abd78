"""How well P(yes) tells true entities from false ones, and from where on an entity is worth keeping.

Fitted on dev, without demonstrations. Dev also chose the checkpoint, so both figures flatter a little; measure on a
test set (`ner-batch evaluate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ner_batch.adapter import Verification
from ner_batch.data import Entity, Example, clean
from ner_batch.verification.examples import verification_examples
from ner_batch.verification.pool import Mention
from ner_batch.verification.verifier import Verifier

CLAIMS = 4  # verification questions per example: two gold entities and two near misses, where there are as many


def fit(
    examples: Sequence[Example],
    predictions: Sequence[tuple[Example, Entity]],
    correct: Sequence[bool],
    verifier: Verifier,
) -> Verification | None:
    """The threshold that serves the predictions about examples best, and the AUROC of P(yes) over claims about gold.

    ``correct`` says of each prediction whether it is gold. None where nothing was predicted, or all claims are true or
    all are false.
    """
    names = verifier.questions.task.names
    about_gold = [claim for x in examples for claim in verification_examples(x, names, CLAIMS, f"dev {x.id}")]
    mentions = [(claim.text, claim.entity) for claim in about_gold] + [(x.text, entity) for x, entity in predictions]
    completions = verifier.ask([Mention(clean(text), entity) for text, entity in mentions])
    p_yes = [verifier.p_yes(completion) for completion in completions]
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

    Args:
        p_yes: of each prediction; one without is kept whatever the threshold.
        correct: whether each prediction is in gold.
        gold: the number of gold entities.
    """
    ascending = sorted((score, true) for score, true in zip(p_yes, correct, strict=True) if score is not None)
    predicted, true_positives = len(correct), sum(correct)
    best_f1, threshold = 2 * true_positives / max(1, predicted + gold), 0.0
    for (score, true), (next_score, _) in pairwise([*ascending, (1.0, False)]):
        predicted, true_positives = predicted - 1, true_positives - true
        if next_score > score and 2 * true_positives / max(1, predicted + gold) > best_f1 + 1e-12:
            best_f1, threshold = 2 * true_positives / (predicted + gold), (score + next_score) / 2
    return threshold
