"""The settings of verification."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ner_batch.config import Config, Share


class VerifyConfig(Config):
    """A yes/no question about every entity that was found (GPT-NER's self-verification)."""

    threshold: Share | None = None
    """Least P(yes) of an entity that is verified; None: what the adapter found best on its dev set, else 0.5."""
    rejected: Literal["drop", "keep"] = "drop"
    """What becomes of the others: dropped, or kept with `verified` false."""
    k: Annotated[int, Field(ge=0, le=64)] = 0
    """Demonstrations of the question: gold mentions and non-mentions most like it; needs `retrieval.index`."""
    similarity: Literal["ngrams", "vectors"] = "ngrams"
    """How the k nearest are found: by the character n-grams of mention and context, or, as in GPT-NER, by the states
    that the index's encoder has for the mention in its text. That needs an index of kind sentence or entity, whose
    examples every replica encodes once."""
