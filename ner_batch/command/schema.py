"""The configs as programs see them: JSON Schemas for editors, keys for a shell's completion, which verb one is for."""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from ner_batch import config as configs
from ner_batch.config import Config
from ner_batch.errors import UserError

KINDS = {
    "task": "ner_batch.task:Task",
    "extract": "ner_batch.extraction.settings:ExtractConfig",
    "index": "ner_batch.jobs.index:IndexConfig",
    "train": "ner_batch.train.settings:TrainConfig",
    "train-encoder": "ner_batch.encoder.settings:TrainEncoderConfig",
    "evaluate": "ner_batch.evaluate.settings:EvaluateConfig",
    "ablate": "ner_batch.experiments.settings:AblateConfig",
}
"""Files that a person writes: a task, or the config of the verb of that name; and the class of each."""

Kind = Enum("Kind", {name.replace("-", "_"): name for name in KINDS}, type=str)  # type: ignore[misc]
"""For the command line's choice."""

C = TypeVar("C", bound=Config)


def config_class(kind: str) -> type[BaseModel]:
    """The class of a file's content; its module is imported now, which for `index` and `train` takes a second."""
    class_: type[BaseModel] = pkgutil.resolve_name(KINDS[kind])
    return class_


class _Untitled(GenerateJsonSchema):
    """Without a title for each field, which would be its name once more."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of a kind of file, its docstrings as descriptions. It is valid as draft 7 and as 2020-12.

    It describes what YAML 1.2 reads: the loader takes `yes` for a switch and `1_000` for a number too. What only the
    loader can know (fields that exclude each other, files that are missing) is not in it.
    """
    schema = config_class(kind).model_json_schema(schema_generator=_Untitled)
    return {"$schema": "http://json-schema.org/draft-07/schema#", **_for_yaml(schema)}


def _for_yaml(schema: Any) -> Any:
    """Descriptions in the words of YAML, each of them one paragraph."""
    if isinstance(schema, list):
        return [_for_yaml(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    described = {key: _for_yaml(value) for key, value in schema.items()}
    if isinstance(words := schema.get("description"), str):
        words = re.split(r"\n\n(Args|Raises):", words)[0]  # those are of Python's class
        words = re.sub(r":(class|func|meth):`(\w+)`", r"\2", words)
        described["description"] = re.sub(r"\bNone\b", "null", " ".join(words.split()))
    return described


def load(kind: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """As :func:`ner_batch.config.load`; a file that is right for another verb is refused with that verb's name."""
    try:
        return configs.load(kind, path, overrides)
    except UserError as error:
        if str(path) == "-" or ": missing" not in str(error):
            raise  # read already; or the file has all that this verb needs
        values = configs.read_yaml(path)
        for verb in KINDS:
            if (other := config_class(verb)) is kind:
                continue
            try:
                other.model_validate(values)
            except ValueError:
                continue
            article = "a task file" if verb == "task" else f"a config of `ner-batch {verb}`"
            own_verb = next(name for name, place in KINDS.items() if place.endswith(f":{kind.__name__}"))
            raise UserError(f"{path}: this is {article}, not of `ner-batch {own_verb}`") from None
        raise


def complete_override(verb: str, written: Sequence[str], incomplete: str) -> list[tuple[str, str]]:
    """Overrides that begin so, each with a line about it, for a shell. ``written`` are the words before.

    Bash hands over `a.b=c` as three words. Where one key is left, its values come with it: with more than one answer
    no shell ends the word behind the `=`.
    """
    fields = dict(_fields(config_class("extract" if verb == "doctor" else verb)))
    key, equals, begun = incomplete.partition("=")
    if written[-1:] == ["="] and len(written) > 1 and not equals:
        key, begun, before = written[-2], incomplete, ""
    elif incomplete == "=" and written:
        key, begun, before = written[-1], "", ""
    elif equals:
        before = f"{key}="
    else:
        keys = [name for name in fields if name.startswith(incomplete)]
        answers = [(f"{name}=", _line(fields[name])) for name in keys]
        if len(keys) == 1:
            answers += [(f"{keys[0]}={value}", "") for value in _values(fields[keys[0]]) or ["..."]]
        return answers
    values = _values(fields[key]) if key in fields else []
    return [(before + value, "") for value in values if value.startswith(begun)]


def _fields(kind: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field that can be overridden, by its dotted name; a section that may be null too is one, and has some."""
    for name, field in kind.model_fields.items():
        sections = [part for part in _parts(field.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
        if not sections or type(None) in _parts(field.annotation):
            yield above + name, field
        for section in sections:
            yield from _fields(section, f"{above}{name}.")


def _parts(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; what is none is its only one."""
    return get_args(annotation) if type(None) in get_args(annotation) else (annotation,)


def _line(field: FieldInfo) -> str:
    """The first line of what a field says of itself."""
    return (field.description or "").partition("\n")[0]


def _values(field: FieldInfo) -> list[str]:
    """What may stand behind the `=`: all choices, or the default."""
    values: list[Any] = [] if field.is_required() else [field.get_default(call_default_factory=True)]
    for part in _parts(field.annotation):
        values += get_args(part) if get_origin(part) is Literal else [True, False] if part is bool else []
        values += [None] if part is type(None) else []
    plain = [value for value in values if not isinstance(value, BaseModel)]
    words = [value if isinstance(value, str) else json.dumps(value, separators=(",", ":")) for value in plain]
    return [word for word in dict.fromkeys(words) if not re.search(r"[\s\"']", word)]  # what a shell would not quote
