"""Tasks: which types to find, in which language, and what each of them means; from a file or from code.

Definitions stand in the prompts of every format; questions, of Ye et al. (2024), in those of ``mrc`` alone. A missing
one is generated from the label's name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ner_batch.config import explain, read_yaml
from ner_batch.errors import UserError

Language = Literal["en", "zh"]


class Label(BaseModel):
    """What one entity type means. Both texts are optional; :class:`Task` gives defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    definition: str = ""
    """In the prompts of every format; by default the label's name in words."""
    question: str = ""
    """Asked by `mrc` alone; made of the definition where it is missing."""


class Task(BaseModel):
    """A named set of labels in one language, as ``Task("news", {"PER": "people", "ORG": "companies and parties"})``.

    Args:
        name: what the task is called.
        labels: definitions by label name, each a text, a :class:`Label` or None; or names alone. Their order is the
            order of prompts and answers.
        language: ``en`` or ``zh``, of the prompts' own words.
        guidelines: further instructions, which stand in every prompt.

    Raises:
        ValueError: pydantic's ``ValidationError``: a label that could not stand in answers, no label, an unknown field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    """An adapter that is trained for the task remembers it."""
    language: Language = "en"
    """Of the instructions."""
    labels: dict[str, Label] = Field(min_length=1)
    """The types to find, in the order they are asked and answered: a definition each, or nothing, or both texts."""
    guidelines: str = ""
    """A line for every prompt: what is marked and what is not."""

    if TYPE_CHECKING:  # what may be given, where pydantic would have it be of the fields' types

        def __init__(
            self,
            name: str,
            labels: Mapping[str, str | Label | Mapping[str, str] | None] | Sequence[str],
            *,
            language: Language = "en",
            guidelines: str = "",
        ) -> None: ...

    else:

        def __init__(self, *args: Any, **values: Any) -> None:
            if len(args) > 2:
                raise TypeError(f"Task(name, labels, *, language, guidelines): {len(args)} arguments without a name")
            super().__init__(**dict(zip(("name", "labels"), args, strict=False)), **values)

    @field_validator("labels", mode="before", json_schema_input_type=dict[str, Label | str | None] | list[str])
    @classmethod
    def _shorthand(cls, labels: object) -> object:
        """Allow ``ORG: an organisation`` and a bare ``ORG:`` beside the full form."""
        if isinstance(labels, list | tuple):
            if repeated := sorted({str(name) for name in labels if labels.count(name) > 1}):
                raise UserError(f"{', '.join(repeated)}: given twice")
            labels = dict.fromkeys(labels)
        if not isinstance(labels, Mapping):
            return labels
        if None in labels:
            raise UserError("a label without a name: one that is called null stands in quotes")
        return {str(name): {"definition": v} if isinstance(v, str) else (v or {}) for name, v in labels.items()}

    @field_validator("labels")
    @classmethod
    def _plain_names(cls, labels: dict[str, Label]) -> dict[str, Label]:
        """Label names stand inside answers, so they may not contain the marks and quotes answers are made of."""
        for name in labels:
            if not name.strip() or name != name.strip() or any(c in '"\\|[]{}<>@#,:\n' for c in name):
                raise UserError(f"label {name!r}: use letters, digits, spaces, '_', '-' or '.'")
        return labels

    @property
    def names(self) -> tuple[str, ...]:
        """The label names, in order."""
        return tuple(self.labels)

    def definition(self, label: str) -> str:
        """The label's definition, or its name in words."""
        return self.labels[label].definition or label.replace("_", " ").lower()

    def question(self, label: str) -> str:
        """The reading-comprehension question of the label, q_i of Ye et al."""
        if question := self.labels[label].question:
            return question
        definition = self.labels[label].definition
        if self.language == "zh":
            return f"文中有哪些{label}实体（{definition}）？" if definition else f"文中有哪些{label}实体？"
        return f"Which {label} entities ({self.definition(label)}) are named in the text?"

    def digest(self) -> str:
        """A short digest of everything prompts are made of, the order of labels included."""
        payload = json.dumps(self.model_dump(), ensure_ascii=False)
        return hashlib.sha256(payload.encode()).hexdigest()[:16]


def load_task(path: str) -> Task:
    """A task file. Raises UserError with every problem, one line each."""
    values = read_yaml(path)
    try:
        return Task.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {line}" for line in explain(Task, error))) from None
