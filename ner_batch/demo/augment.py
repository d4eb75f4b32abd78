"""Names that are partly random, so that a model has to copy what it never saw."""

from __future__ import annotations

import random
import re

from ner_batch.demo import words
from ner_batch.demo.tokenizer import common_characters

_CHARACTERS = common_characters()
_PART = re.compile("[A-Z][a-z]{3,}|[0-9]+")


def mutate(surface: str, rng: random.Random) -> str:
    """A name with parts made random: Chinese characters, beginnings of capitalised words, digits.

    Shape and ending stay, so a model has to go by these and by what stands around, and to copy what it never saw.
    """
    chinese = ("\u4e00" <= c <= "\u9fff" for c in surface)
    parts = [
        rng.choice(_CHARACTERS) if han and rng.random() < 0.35 else c for c, han in zip(surface, chinese, strict=True)
    ]
    return _PART.sub(lambda part: _random_part(part[0], rng), "".join(parts))


def _random_part(part: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return part
    if part.isdigit():
        return "".join(rng.choices("0123456789", k=len(part)))
    made = "".join(rng.choices(words.SYLLABLES, k=rng.choice((1, 2, 2))))
    return made.capitalize() + part[4:]
