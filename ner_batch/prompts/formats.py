"""Answer formats by name; docs/formats.md describes them.

The answer lists the mentions (``json``, ``mrc``) or is a marked copy of the text (``inline``, ``gpt-ner``); a prompt
asks for all types at once (``json``, ``inline``) or for one (``mrc``, ``gpt-ner``).
"""

from __future__ import annotations

from ner_batch.errors import UserError
from ner_batch.prompts import lists, marked
from ner_batch.prompts.base import Format
from ner_batch.prompts.grammar import MAX_GRAMMAR_CHARS

__all__ = ["MAX_GRAMMAR_CHARS", "NAMES", "Format", "get"]

_FORMATS: dict[str, Format] = {form.name: form for form in (lists.JSON, marked.INLINE, lists.MRC, marked.GPT_NER)}
NAMES = tuple(_FORMATS)


def get(name: str) -> Format:
    """The format of that name.

    Raises:
        UserError: there is none; the message names those there are.
    """
    if name not in _FORMATS:
        raise UserError(f"format {name!r}: there are {', '.join(NAMES)}")
    return _FORMATS[name]
