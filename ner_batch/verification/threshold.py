"""How well P(yes) tells true entities from false ones, and from where on an entity is worth keeping.

Fitted on dev, without demonstrations. Dev also chose the checkpoint, so both figures flatter a little; measure on a
test set (`ner-batch evaluate`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from ner_batch.adapter import Verification
from ner_batch.data import Entity, Example
from ner_batch.verification.examples import verification_examples

CLAIMS = 4  # verification questions per example: two gold entities and two near misses, where there are as many

AskPYes = Callable[[Sequence[tuple[str, Entity]]], list[float | None]]
"""P(yes) of entities, each with its text; None where the question does not fit the model or was not answered."""


def fit(
    examples: Sequence[Example], predictions: Sequence[Sequence[Entity]], types: Sequence[str], ask: AskPYes
) -> Verification | None:
    """The threshold that serves the predictions about examples best, and the AUROC of P(yes) over claims about gold.

    None where nothing was predicted, or all claims are true or all are false.
    """
    about_gold = [claim for x in examples for claim in verification_examples(x, types, CLAIMS, f"dev {x.id}")]
    area = auroc(ask([(claim.text, claim.entity) for claim in about_gold]), [claim.is_true for claim in about_gold])
    predicted = [(x, entity) for x, entities in zip(examples, predictions, strict=True) for entity in entities]
    if area is None or not predicted:
        return None
    gold = [{(e.start, e.end, e.type) for e in x.entities} for x in examples]
    correct = [
        (entity.start, entity.end, entity.type) in spans
        for spans, entities in zip(gold, predictions, strict=True)
        for entity in entities
    ]
    p_yes = ask([(x.text, entity) for x, entity in predicted])
    threshold = best_threshold(p_yes, correct, sum(len(x.entities) for x in examples))
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
