"""What one prompt about one window gave."""

from __future__ import annotations

from dataclasses import dataclass

from ner_batch.data import Parsed


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer, read, and what it cost; ``error`` says in one line why it is not ok."""

    parsed: Parsed
    error: str | None
    prompt_tokens: int
    completion_tokens: int
