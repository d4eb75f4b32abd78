"""YAML plus ``a.b=c`` overrides to frozen, strict configs; every problem is reported at once, before anything starts.

Each job has one config class. Components take plain values out of it; none of them sees a whole config.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ner_batch.errors import UserError

FormatName = Literal["json", "inline", "mrc", "gpt-ner"]
IndexKind = Literal["random", "lexical", "sentence", "entity"]


def plain_path(value: Any) -> Any:
    """A ``pathlib.Path`` as the string that it stands for, anything else as it is."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Uri = Annotated[str, BeforeValidator(plain_path), Field(min_length=1)]


class Config(BaseModel):
    """Frozen and strict: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


C = TypeVar("C", bound=Config)
M = TypeVar("M", bound=BaseModel)


def load(kind: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """A config from a YAML file, or standard input for `-`, and overrides; a UserError has a line for each problem."""
    values = read_yaml(path)
    problems = [problem for override in overrides if (problem := _apply(values, override))]
    try:
        config = kind.model_validate(values)
    except ValidationError as error:
        problems += explain(kind, error)
    if problems:
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems))
    return config


class PlainScalar(str):
    """A value without quotes in a YAML file, as it is written. The type of its field says what it is.

    YAML 1.1 would decide alone: a label NO is False, 010 is 8, 12:30 is 750, and 1e-4 a string.
    """

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """Scalars as :class:`PlainScalar`, null, or text where they stand in quotes; a key given twice is refused."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # what its stubs call it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Before keys that a merge (`<<`) brings, which may be given again."""
        keys: set[object] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                continue  # of another kind PyYAML says itself that it can be no key
            if key.value in keys:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """A scalar that is not null."""
        return node.value if node.style else PlainScalar(node.value)


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)\Z"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"<<\Z"), ["<"])
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_text)

_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")


def core_value(value: Any) -> Any:
    """Plain scalars, wherever they stand in ``value``, as YAML 1.2's core schema reads them: for fields of any type."""
    if isinstance(value, dict):
        return {str(key): core_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [core_value(inner) for inner in value]
    if not isinstance(value, PlainScalar):
        return value
    if value in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return value.lower() == "true"
    return int(value) if _INTEGER.match(value) else float(value) if _FLOAT.match(value) else str(value)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, or standard input for `-`, its values as written. Raises UserError in one line."""
    try:
        content = _standard_input() if str(path) == "-" else Path(path).read_bytes()
        values = yaml.load(content.decode("utf-8-sig"), _Loader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; name a YAML file in it") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start:,}): save it as UTF-8 text") from None
    except yaml.YAMLError as error:
        words = str(error).replace('in "<unicode string>", ', "")
        raise UserError(f"{path}: not YAML: {' '.join(words.split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    return values


def _standard_input() -> bytes:
    """What is piped in. Raises UserError where nothing is, which else would wait for ever."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("-: nothing is piped in: `... - < config.yaml`, or name the file")
    content = sys.stdin.buffer.read()
    if not content.strip():
        raise UserError("-: standard input is empty: pipe a YAML config in, or name the file")
    return content


def _apply(values: dict[str, Any], override: str) -> str | None:
    """Set one override in place; the problem in words, if there is one."""
    key, equals, raw = override.partition("=")
    *parents, leaf = key.split(".")
    if not equals or not all([*parents, leaf]):
        return f"override {override!r}: write a.b=value"
    try:
        # What a shell hands over has no comments: a file may be called `run #2`.
        comment = " #" in raw and not raw.lstrip().startswith(("'", '"', "[", "{"))
        value = PlainScalar(raw) if comment else yaml.load(raw, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError:
        return f"override {override!r}: {raw!r} is not a YAML value"
    for part in parents:
        if values.get(part) is None:
            values[part] = {}
        if not isinstance(values[part], dict):
            return f"override {override!r}: {part} is a value, not a section"
        values = values[part]
    values[leaf] = value
    return None


def validate(kind: type[M], values: Mapping[str, Any]) -> M:
    """A model of values that a program or a command line gives.

    Raises:
        UserError: every problem found, one line each, by the field's name.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(explain(kind, error))) from None


def explain(kind: type[BaseModel], error: ValidationError) -> list[str]:
    """One line per problem of a pydantic error, with `did you mean` for unknown keys."""
    lines = []
    for detail in error.errors():
        location = [str(part) for part in detail["loc"]]
        name, message = ".".join(location), detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "missing":
            message = "missing"
        elif detail["type"] == "extra_forbidden":
            fields = _fields_at(kind, location[:-1])
            close = difflib.get_close_matches(location[-1], fields, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(fields)}"
            message = f"unknown field ({hint})" if fields else "unknown field"
        elif name:
            message += f" (got {core_value(detail['input'])!r})"
        lines.append(f"{name}: {message}" if name else message)
    return lines


def _fields_at(kind: type[BaseModel], location: Sequence[str]) -> list[str]:
    """Names of the fields one may write at a place inside ``kind``; none where the place is not a section."""
    for key in location:
        if not (field := kind.model_fields.get(key)):  # a place in a list, or a name in a mapping
            continue
        inner = [field.annotation, *get_args(field.annotation)]
        sections = [t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)]
        if not sections:
            return []
        kind = sections[0]
    return list(kind.model_fields)


# Words that name credentials, as whole parts of a key: `token`, `hf_token`, `secret_key`; not `max_tokens`.
_SECRET_KEY = re.compile(r"(^|_)(token|secret|password|passwd|credentials?|api_key|access_key)($|_)", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


def dump(config: Config) -> dict[str, Any]:
    """The resolved config as plain values, secrets replaced by ``***``; safe to print and to store."""
    return {key: _redact(value, key) for key, value in config.model_dump(mode="json").items()}


def _redact(value: Any, key: str = "") -> Any:
    if _SECRET_KEY.search(key) and value is not None:
        return "***"
    if isinstance(value, dict):
        return {k: _redact(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_redact(part) for part in value]
    if isinstance(value, str):
        return _USERINFO.sub("***@", value)
    return value
