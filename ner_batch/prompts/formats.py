"""Answer formats: text and entities to prompt and answer, and back.

A format owns both directions, so training and inference cannot drift apart. There are two by two: the answer lists the
mentions or is a marked copy of the text, and a prompt asks for all types at once or for one.

|             | all types | one type  |                                 |
|-------------|-----------|-----------|---------------------------------|
| list        | ``json``  | ``mrc``   | :mod:`ner_batch.prompts.lists`  |
| marked copy | ``inline``| ``gpt-ner``| :mod:`ner_batch.prompts.marked` |

``json`` is the default.
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
