"""Gold and predicted entities to precision, recall and F1; counts add up over shards.

Strict: an entity is correct when its start, its end and its type all are (Ye et al. 2024, eq. 4-6: P = correct /
predicted, R = correct / gold, F1 = 2PR / (P + R)). A division by zero is 0.0, so a type that is neither in gold nor
predicted scores 0, not 1, and never lifts an average.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ner_batch.data import Entity


@dataclass(frozen=True, slots=True)
class Counts:
    """How many entities are correct, predicted and gold. ``a + b`` is the counts of both together."""

    correct: int = 0
    predicted: int = 0
    gold: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.correct + other.correct, self.predicted + other.predicted, self.gold + other.gold)

    @property
    def precision(self) -> float:
        """Correct among the predicted, in [0, 1]; 0.0 where nothing was predicted."""
        return _ratio(self.correct, self.predicted)

    @property
    def recall(self) -> float:
        """Correct among the gold, in [0, 1]; 0.0 where there is no gold."""
        return _ratio(self.correct, self.gold)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, in [0, 1]; 0.0 where both are."""
        return _ratio(2 * self.correct, self.predicted + self.gold)


@dataclass(frozen=True, slots=True)
class Scores:
    """Counts by type, sorted by name; :attr:`micro` is their sum. ``a + b`` is the scores of both shards together."""

    per_type: Mapping[str, Counts] = field(default_factory=dict)

    def __add__(self, other: Scores) -> Scores:
        types = sorted({*self.per_type, *other.per_type})
        return Scores({t: self.per_type.get(t, Counts()) + other.per_type.get(t, Counts()) for t in types})

    @property
    def micro(self) -> Counts:
        """All types together."""
        return sum(self.per_type.values(), Counts())


def score(gold: Sequence[Iterable[Entity]], predicted: Sequence[Iterable[Entity]]) -> Scores:
    """Strict counts of texts side by side; the same span and type twice in one text counts once."""
    correct, predicted_types, gold_types = Counter[str](), Counter[str](), Counter[str]()
    for gold_entities, predicted_entities in zip(gold, predicted, strict=True):
        sides = (gold_entities, predicted_entities)
        gold_spans, predicted_spans = ({(e.start, e.end, e.type) for e in side} for side in sides)
        gold_types.update(type_ for _, _, type_ in gold_spans)
        predicted_types.update(type_ for _, _, type_ in predicted_spans)
        correct.update(type_ for _, _, type_ in gold_spans & predicted_spans)
    types = sorted({*predicted_types, *gold_types})
    return Scores({t: Counts(correct[t], predicted_types[t], gold_types[t]) for t in types})


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
