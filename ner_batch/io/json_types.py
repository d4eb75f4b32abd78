"""Types of JSON's columns, and values as a type takes them.

Every file of a corpus has the same columns with the same types, whatever its first rows hold: types are merged over all
rows. What has no common type stays JSON.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ner_batch.data import clean
from ner_batch.io.shards import NotRowsError

JSON = pa.json_()
"""The type of a column whose values have no common type: strings of JSON in the table."""
_MOST_COLUMNS = 10_000
_MOST_FIELDS = 200  # of a nested column; with more it is a map by nature, and stays JSON
_DEEPEST = 20  # levels of a nested column; Arrow reads no Parquet of more than 100, of which a list takes two


def check_width(names: Collection[str]) -> None:
    """Raises NotRowsError where there are more columns than a table has."""
    if len(names) > _MOST_COLUMNS:
        raise NotRowsError(f"more than {_MOST_COLUMNS:,} columns: names that are data belong in one column")


def infer(rows: Sequence[Mapping[str, Any]], types: dict[str, pa.DataType]) -> None:
    """Let ``types`` hold the types of these rows' columns too."""
    names = dict.fromkeys(name for row in rows for name in row)
    check_width(types.keys() | names.keys())
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            type_ = pa.infer_type(values)
            type_ = JSON if _is_map(type_) else pa.array(values, type_).type
        except UnicodeEncodeError:
            type_ = pa.string() if all(isinstance(value, str | None) for value in values) else JSON  # lone surrogates
        except (pa.ArrowException, OverflowError):
            type_ = JSON
        type_ = merged(types.get(name, pa.null()), type_)
        types[name] = JSON if _is_map(type_) else type_


def _is_map(kind: pa.DataType) -> bool:
    """Whether a type has too many fields, or too deep ones, for a column: 100 keys in each of 1,000 rows take 1 GB."""
    level, fields = [kind], 0
    for _ in range(_DEEPEST):
        level = [inner.field(place).type for inner in level for place in range(inner.num_fields)]
        fields += len(level)
        if not level or fields > _MOST_FIELDS:
            break
    return bool(level)


def merged(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds values of both."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(other):
        item = merged(one.value_type, other.value_type)
        return JSON if item == JSON else pa.list_(item)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {column.name: column.type for column in one}
        for column in other:
            fields[column.name] = merged(fields.get(column.name, pa.null()), column.type)
        return JSON if JSON in fields.values() else pa.struct(list(fields.items()))
    return JSON


def settled(type_: pa.DataType) -> pa.DataType:
    """A type that Parquet can write: what is null everywhere is a string, what has no fields or too many is JSON."""
    leaves = 0

    def writable(kind: pa.DataType) -> pa.DataType:
        nonlocal leaves
        leaves += 1
        if pa.types.is_null(kind):
            return pa.string()
        if pa.types.is_list(kind):
            return pa.list_(writable(kind.value_type))
        if pa.types.is_struct(kind):
            leaves += 0 if kind.num_fields else _MOST_FIELDS
            return pa.struct([(column.name, writable(column.type)) for column in kind])
        return kind

    result = writable(type_)
    return JSON if leaves > _MOST_FIELDS else result


def array(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    """Values of a column as its type wants them."""
    if type_ == JSON:
        texts = [None if value is None else clean(json.dumps(value, ensure_ascii=False)) for value in values]
        return pa.array(texts, pa.string())
    try:
        return pa.array(values, type_)
    except (pa.ArrowException, UnicodeEncodeError):
        return pa.array([_as(value, type_) for value in values], type_)


def _as(value: Any, type_: pa.DataType) -> Any:
    """A value of JSON as a type that holds it: large whole numbers among others become floats, surrogates U+FFFD."""
    if value is None:
        return None
    if pa.types.is_string(type_):
        return clean(value)
    if pa.types.is_floating(type_):
        return float(value)
    if pa.types.is_list(type_):
        return [_as(item, type_.value_type) for item in value]
    if pa.types.is_struct(type_):
        return {column.name: _as(value.get(column.name), column.type) for column in type_}
    return value
