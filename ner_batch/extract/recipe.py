"""The recipe: everything that decides an answer, as plain values that travel to every replica."""

from __future__ import annotations

from dataclasses import dataclass

from ner_batch.config import Decoding, EngineConfig, FormatName
from ner_batch.task import Task


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one replica needs to turn texts into predictions. Picklable; paths, not objects.

    ``window_tokens`` is the most source tokens in one prompt; ``k`` the demonstrations asked of the index, 0 without.
    """

    task: Task
    format: FormatName
    engine: EngineConfig
    window_tokens: int
    adapter: str | None = None
    index: str | None = None
    encoder: str | None = None
    k: int = 0
    decoding: Decoding = "auto"
    temperature: float = 0.0
