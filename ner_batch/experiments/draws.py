"""Training sets of several sizes, drawn from the examples: what a learning curve is measured over."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ner_batch.data import Example
from ner_batch.errors import UserError
from ner_batch.experiments.settings import CurveConfig, Size


@dataclass(frozen=True, slots=True)
class Draw:
    """One training set: its number of examples, and the seed it is drawn with."""

    size: Size
    seed: int

    @property
    def name(self) -> str:
        """In names of files."""
        return f"n{self.size}-s{self.seed}"


def draws(curve: CurveConfig) -> list[Draw]:
    """Every size with every seed, once."""
    return [Draw(size, seed) for seed in range(curve.seeds) for size in dict.fromkeys(curve.sizes)]


def drawn(examples: Sequence[Example], draw: Draw) -> tuple[Example, ...]:
    """The examples of a draw: of one seed the smaller are part of the larger.

    The first has an entity, whichever it is: a set without any can teach nothing. Otherwise the draw is plain chance,
    types that it misses included, as where somebody annotates the first sentences at hand.

    Raises:
        UserError: there are fewer examples than wanted, or none has an entity.
    """
    if draw.size == "all":
        return tuple(examples)
    if draw.size > len(examples):
        raise UserError(f"curve.sizes: {draw.size:,}, but gold.examples has {len(examples):,}: write `all`")
    order = random.Random(draw.seed).sample(list(examples), len(examples))  # noqa: S311 - repeatable, not secret
    first = next((i for i, example in enumerate(order) if example.entities), None)
    if first is None:
        raise UserError("gold.examples: no example has an entity")
    return (order[first], *order[:first], *order[first + 1 :])[: draw.size]
