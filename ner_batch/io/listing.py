"""What an input path means: files found, each inspected as its kind wants it, and the rows of a unit read."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import unquote

import pyarrow as pa

from ner_batch.errors import UserError
from ner_batch.io import arrow, lines, parquet, storage
from ner_batch.io.shards import UNREADABLE, Corrupt, Kind, Listing, Shard, Unit

# Kinds of file by the ends of their names, in the order in which a folder is taken for one of them.
_KINDS: dict[Kind, re.Pattern[str]] = {
    "parquet": re.compile(r".*\.(?:parquet|parq|pq)\Z", re.DOTALL | re.IGNORECASE),
    "arrow": re.compile(r".*\.arrow\Z", re.DOTALL | re.IGNORECASE),
    "jsonl": re.compile(r".*\.(?:jsonl|ndjson)(?:\.(?:gz|bz2|xz|zst))?\Z", re.DOTALL | re.IGNORECASE),
    "csv": re.compile(r".*\.(?:csv|tsv)(?:\.(?:gz|bz2|xz|zst))?\Z", re.DOTALL | re.IGNORECASE),
}
_ENDS = ".parquet, .parq, .pq, .jsonl, .ndjson, .csv, .tsv (also .gz, .bz2, .xz, .zst) or .arrow"
# Of a file that is named, or chosen by a glob; in a folder they are of other things too (config.json).
_NAMED_JSON = re.compile(r".*\.(?:json|feather)(?:\.(?:gz|bz2|xz|zst))?\Z", re.DOTALL | re.IGNORECASE)
# No part of a name begins with _ or .
_VISIBLE = re.compile(r"(?!(?:.*/)?[_.]).*", re.DOTALL)
# Files that hold no rows: of Hadoop and Spark, of Databricks' commits, of a run of ours, of `datasets`, and checksums.
_MARKS = re.compile(
    r"(?:.*/)?(?:_SUCCESS|_manifest\.json|_report\.html|_metadata|_common_metadata|_(?:committed|started)_[^/]*|\.[^/]*\.crc|[^/]*\.crc|\.DS_Store"
    r"|state\.json|dataset_info\.json|dataset_dict\.json)\Z",
    re.DOTALL,
)
# Tables with a log of their own, by a file of that log: the table's folder, and what it is called.
_TABLES = {
    re.compile(r"((?:.*/)?)_delta_log/", re.DOTALL): "a Delta table",
    re.compile(r"((?:.*/)?)\.hoodie/", re.DOTALL): "a Hudi table",
    re.compile(r"((?:.*/)?)metadata/(?:[^/]*\.metadata\.json|version-hint\.text)\Z", re.DOTALL): "an Iceberg table",
    re.compile(r"((?:.*/)?)_spark_metadata/", re.DOTALL): "written by a Spark stream",
}


_PARTITION = re.compile(r"([^/=]+)=([^/]*)\Z")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_MAX_PROBLEMS = 10
SLOW_LISTING_BYTES = 10**9  # some ten seconds of JSON lines, more where they are compressed


class TextColumnError(UserError):
    """Files without the column of texts that was asked for."""


def list_shards(uri: str, text_column: str | None, progress: Callable[[str], None] = lambda _: None) -> Listing:
    """The files at ``uri``: one file, a folder (with its folders), or a glob (``*``, ``?``, ``**/``).

    They are Parquet, JSON Lines, CSV with a header, or Arrow (what `datasets` saves), by the ends of their names; a
    file that is named is Parquet where its name says nothing. In a folder with Parquet files no others are read, and
    else all must be of one kind; names that begin with ``_`` or ``.`` are passed over. Folders ``name=value/`` below
    the listed place are columns, as Hive and Spark write them: strings, ``__HIVE_DEFAULT_PARTITION__`` is null, and a
    column of that name in the file goes before. Of Parquet the footers are read, 16 at a time, other files whole.
    Without a ``text_column`` no text is asked for, and ``text_bytes`` is 0; it may be a path of fields (``doc.body``).
    ``progress`` is told where reading whole files takes more than some seconds.

    Raises:
        UserError: nothing there, nothing of these kinds there, nothing readable, or a table whose log alone tells which
            of its files count.
        TextColumnError: no usable ``text_column`` in some shards (one line each, at most ten).
    """
    files, passed_over = _find(uri)
    read_whole = [file.size for file in files if (kind_of(file.name) or "parquet") != "parquet"]
    if sum(read_whole) > SLOW_LISTING_BYTES:
        progress(f"{len(read_whole):,} files of {sum(read_whole) / 1e9:,.1f} GB are read through to be listed ...")
    with ThreadPoolExecutor(16) as pool:
        inspected = list(pool.map(lambda file: _inspect(file, text_column), files))
    corrupt = tuple(file for file in inspected if isinstance(file, Corrupt))
    readable = [file for file in inspected if not isinstance(file, Corrupt)]
    if not readable:
        raise UserError(f"{uri}: no readable file; {corrupt[0].uri}: {corrupt[0].reason}")
    problems = [problem for _, problem in readable if problem]
    if len(problems) > _MAX_PROBLEMS:
        problems[_MAX_PROBLEMS:] = [f"and {len(problems) - _MAX_PROBLEMS} more files like these"]
    if problems:
        raise TextColumnError("\n".join(problems))
    return Listing(tuple(lines.with_common_columns([shard for shard, _ in readable])), corrupt, passed_over)


def first_columns(uri: str, text_column: str) -> tuple[str, ...]:
    """The columns of the first file that :func:`list_shards` would list; of JSON lines and CSV its beginning is read.

    ``text_column`` decides between delimiters of CSV, as it does there.

    Raises:
        UserError: nothing there that can be read.
    """
    (file, *_), _ = _find(uri)
    kind = kind_of(file.name) or "parquet"
    if kind in ("jsonl", "csv"):
        columns = lines.first_columns(file, text_column, kind)
        return (*columns, *dict(_partitions(file.name, columns)))
    inspected = _inspect(file, None)
    if isinstance(inspected, Corrupt):
        raise UserError(f"{inspected.uri}: cannot be read ({inspected.reason})")
    return inspected[0].columns


def read_unit(unit: Unit, columns: Sequence[str] | None = None) -> pa.Table:
    """The unit's rows as they are stored: all columns, or those named, with the file's schema and its metadata.

    A column may be named by a path of fields (``doc.body``). Where rows of JSON Lines or CSV cannot be read, there is a
    column :data:`ner_batch.io.shards.UNREADABLE` besides.

    Raises:
        UserError: the file is corrupt in these rows, or is not the file that was listed.
        OSError: it cannot be reached at the moment.
    """
    partitions = dict(unit.shard.partitions)
    stored = None if columns is None else [name for name in columns if name not in partitions]
    if unit.shard.kind == "parquet":
        table = parquet.read(unit, stored)
    elif unit.shard.kind == "arrow":
        table = arrow.read(unit, stored)
    else:
        table = lines.read(unit, stored)
    for name, value in unit.shard.partitions:
        table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), unit.rows))
    if columns is None:
        return table
    return table.select([*columns, *({UNREADABLE} & set(table.column_names))])


def covers(uri: str, place: str) -> bool:
    """Whether listing ``uri`` would find Parquet files that are written to the folder ``place``, also through links."""
    source, target = (os.path.realpath(uri) if "://" not in uri else uri.rstrip("/") for uri in (uri, place))
    if not set("*?") & set(uri) or storage.file_type(uri):
        return f"{target}/".startswith(f"{source}/")
    root, pattern = _split_glob(uri)
    root = os.path.realpath(root) if "://" not in root else root
    # The names of output files begin as those of the input's do.
    name = re.sub(r"[*?]+", "x", uri.rpartition("/")[2])
    if kind_of(name) not in {None, "parquet"}:
        return False
    return f"{target}/".startswith(f"{root}/") and bool(pattern.match(f"{target}/{name}"[len(root) + 1 :]))


def kind_of(name: str) -> Kind | None:
    """Of a file that is named, by the end of its name; None where it says nothing."""
    if _NAMED_JSON.match(name):
        return "arrow" if ".feather" in name.lower() else "jsonl"
    return next((kind for kind, pattern in _KINDS.items() if pattern.match(name)), None)


def _find(uri: str) -> tuple[list[storage.File], tuple[str, ...]]:
    """The files that ``uri`` means, and names of those beside them that might have been meant."""
    kind = storage.file_type(uri)
    if kind == "file":
        uri = storage.absolute(uri)
        with storage.explained(uri):
            return [storage.File(posixpath.basename(uri), uri, storage.size(uri))], ()
    if kind is None and not set("*?") & set(uri):
        raise UserError(f"{uri}: no such file or folder")
    root, pattern = (storage.absolute(uri), _VISIBLE) if kind == "directory" else _split_glob(uri)
    files = storage.list_files(root)
    matching = [file for file in files if pattern.match(file.name)]
    if kind == "directory":
        matching = _of_one_kind(uri, matching)
    for sign, kind_of_table in _TABLES.items():
        for table in {match[1] for file in files if (match := sign.match(file.name))}:
            if any(file.name.startswith(table) for file in matching):
                raise UserError(
                    f"{storage.join(root, table).rstrip('/')}: {kind_of_table}: its log tells which of its Parquet "
                    "files count, and some hold rows that were deleted; write its rows to a folder of Parquet first"
                )
    if not matching:
        held = f"{len(files)} other files" if files else "nothing"
        raise UserError(f"{uri}: no file of rows there (found {held}); names must end in {_ENDS}")
    matching = _once(matching, root)
    read = {file.name for file in matching}
    # A glob is a choice; a folder is meant whole.
    others = [file.name for file in files if file.name not in read and not _MARKS.match(file.name)]
    return matching, tuple(others) if kind == "directory" else ()


def _of_one_kind(folder: str, files: Sequence[storage.File]) -> list[storage.File]:
    """Of a folder's files those that are read. Raises UserError where they are of two kinds, and none is Parquet."""
    by_kind = {kind: [file for file in files if pattern.match(file.name)] for kind, pattern in _KINDS.items()}
    present = [kind for kind, of_kind in by_kind.items() if of_kind]
    if not present:
        return []
    if len(present) > 1 and present[0] != "parquet":
        examples = " and ".join(by_kind[kind][0].name for kind in present)
        raise UserError(f"{folder}: files of several kinds ({examples}): name those to read, by {folder}/*.jsonl say")
    matching = by_kind[present[0]]
    if present[0] == "arrow":
        # A folder that `datasets` saved names its files in state.json; others are of its caches.
        for state in [file for file in files if posixpath.basename(file.name) == "state.json"]:
            place = posixpath.dirname(state.name)
            about = storage.read_json(state.uri)
            entries = about.get("_data_files") if isinstance(about, dict) else None
            saved = {posixpath.join(place, str(entry["filename"])) for entry in entries or () if "filename" in entry}
            if missing := sorted(saved - {file.name for file in matching}):
                raise UserError(f"{state.uri}: {missing[0]}, which it names, is not there: is the folder copied whole?")
            if saved:  # another state.json is of something else
                matching = [file for file in matching if posixpath.dirname(file.name) != place or file.name in saved]
    return matching


def _once(files: Sequence[storage.File], root: str) -> list[storage.File]:
    """Files without those that links make appear again; one that lies below ``root`` itself goes before its links."""
    if "://" in root:
        return list(files)
    real, folder = {file.name: os.path.realpath(file.uri) for file in files}, os.path.realpath(root)
    names: dict[str, str] = {}
    for name in sorted(real, key=lambda name: (real[name] != f"{folder}/{name}", name)):
        names.setdefault(real[name], name)
    return [file for file in files if names[real[file.name]] == file.name]


def _split_glob(uri: str) -> tuple[str, re.Pattern[str]]:
    """The folder before the first wildcard, and a pattern for names below it; ``*`` stops at ``/``, ``**`` does not."""
    uri = storage.absolute(uri)
    root = re.split(r"[*?]", uri, maxsplit=1)[0].rpartition("/")[0]
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", uri[len(root) + 1 :])
    wildcards = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return root, re.compile("".join(wildcards.get(part) or re.escape(part) for part in parts) + r"\Z", re.DOTALL)


def _inspect(file: storage.File, text_column: str | None) -> tuple[Shard, str | None] | Corrupt:
    """A file as a shard, and what is wrong with its text column."""
    if not file.size:
        return Corrupt(file.uri, file.name, "0 bytes, or a link to nothing")
    kind = kind_of(file.name) or "parquet"
    if kind == "parquet":
        result = parquet.inspect(file, text_column)
    elif kind == "arrow":
        result = arrow.inspect(file, text_column)
    else:
        result = lines.inspect(file, text_column, kind)
    if isinstance(result, Corrupt):
        return result
    shard, problem = result
    partitions = _partitions(file.name, shard.columns)
    return replace(shard, columns=(*shard.columns, *dict(partitions)), partitions=partitions), problem


def _partitions(name: str, columns: Sequence[str]) -> tuple[tuple[str, str | None], ...]:
    """Of a shard by its path: names and values of the folders ``name=value``, where no column has that name."""
    folders = [match for part in name.split("/")[:-1] if (match := _PARTITION.match(part))]
    pairs = {unquote(match[1]): None if match[2] == _NO_VALUE else unquote(match[2]) for match in folders}
    return tuple((key, value) for key, value in pairs.items() if key not in columns)
