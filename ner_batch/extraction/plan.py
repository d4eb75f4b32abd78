"""Everything that can be known before an engine starts: what to read, with which recipe, into which output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from ner_batch.data import ANSWERED, Status
from ner_batch.errors import Problems, UserError
from ner_batch.extraction import manifest
from ner_batch.extraction.recipe import Recipe, local, make_recipe
from ner_batch.extraction.settings import ExtractConfig, InputConfig
from ner_batch.extraction.units import RESERVED, Destination, clashing
from ner_batch.io import storage
from ner_batch.io.listing import TextColumnError, covers, list_shards
from ner_batch.io.shards import Listing, Unit, plan_units
from ner_batch.jobs.cluster import check_lasting
from ner_batch.jobs.record import digest


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that can start.

    ``fingerprint`` names all that decides the output; a resumed run must have the same. ``pending`` are the units to
    do; of those named in ``retried`` only the rows of these statuses, ``retried_rows`` in all. ``rows_before`` counts
    what earlier runs have finished.
    """

    config: ExtractConfig
    recipe: Recipe
    listing: Listing
    units: tuple[Unit, ...]
    fingerprint: dict[str, str]
    pending: tuple[Unit, ...]
    retried: Mapping[str, frozenset[Status]]
    rows_before: int
    retried_rows: int = 0

    @property
    def rows(self) -> int:
        """Rows to come out, those of earlier runs included."""
        return sum(unit.rows for unit in self.units)

    @property
    def pending_rows(self) -> int:
        """Rows of the units to do."""
        return sum(unit.rows for unit in self.pending)

    @property
    def rows_to_read(self) -> int:
        """Rows that an engine will read."""
        return sum(unit.rows for unit in self.pending if unit.name not in self.retried) + self.retried_rows

    @property
    def finished(self) -> frozenset[str]:
        """Names of the units that had a file when the plan was made."""
        return frozenset(
            {unit.name for unit in self.units} - {unit.name for unit in self.pending} | self.retried.keys()
        )

    @property
    def destination(self) -> Destination:
        """Where and how units are written."""

        def every(name: str) -> str:
            """A value of the fingerprint; of several tasks, all their values."""
            return ", ".join(v for k, v in self.fingerprint.items() if k == name or k.endswith(f": {name}"))

        names = {name: every(name) for name in ("model", "adapter", "task", "format")}
        about = {"fingerprint": digest(self.fingerprint), **names}
        wait_seconds = self.config.job.storage_wait_seconds
        nested = any(self.config.input.text_column not in shard.columns for shard in self.listing.shards)
        return Destination(self.config.input, self.config.output, about, self.recipe.tagged, wait_seconds, nested)


def prepare(
    config: ExtractConfig,
    limit: int | None = None,
    *,
    retry: Iterable[str] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Check everything, lay out the run, and look what earlier runs have left of it in the output.

    ``limit``: only the first so many rows; ``retry``: rows of these statuses are done again; ``progress``: is told what
    takes long.

    Raises:
        UserError: every problem found, one line each.
    """
    problems = Problems()
    again = problems.check(lambda: _statuses(retry)) or frozenset()
    problems.check(lambda: check_lasting("output.path", config.output.path))
    # Local paths made absolute, for replicas need not share the driver's folder.
    source = problems.check(lambda: storage.absolute(config.input.path))
    target = problems.check(lambda: storage.absolute(config.output.path))
    places = {
        "input": config.input.model_copy(update={"path": source or config.input.path}),
        "output": config.output.model_copy(update={"path": target or config.output.path}),
    }
    config = (problems.check(lambda: local(config)) or config).model_copy(update=places)
    recipe = problems.check(lambda: make_recipe(config))
    listing = problems.check(lambda: _list_input(config.input, progress)) if source else None
    if listing:
        problems.check(lambda: _check_columns(config, listing))
        problems.check(lambda: _check_text(config.input.text_column, listing))
    if source and target:
        problems.check(lambda: _check_output(config))
    problems.stop_if_any()
    assert recipe and listing
    fingerprint = {**recipe.fingerprint, **_layout(config, listing, limit)}
    units = plan_units(listing.shards, config.job.unit_rows, config.job.unit_bytes, limit)
    finished = manifest.finished_units(config.output.path, fingerprint, listing, units)
    retried: dict[str, frozenset[Status]] = {}
    rows_before = retried_rows = 0
    for report in manifest.reports(config.output.path, [unit.name for unit in units if unit.name in finished]):
        if again & report.statuses.keys():
            retried[report.name] = again
            retried_rows += sum(report.statuses.get(status, 0) for status in again)
        else:
            rows_before += report.rows
    pending = tuple(unit for unit in units if unit.name not in finished or unit.name in retried)
    return Plan(config, recipe, listing, units, fingerprint, pending, retried, rows_before, retried_rows)


def _list_input(source: InputConfig, progress: Callable[[str], None]) -> Listing:
    """:func:`ner_batch.io.listing.list_shards`, with the setting's name where the column of texts is wrong."""
    try:
        return list_shards(source.path, source.text_column, progress)
    except TextColumnError as error:
        raise UserError("\n".join(f"input.text_column: {line}" for line in str(error).splitlines())) from error


def _statuses(names: Iterable[str]) -> frozenset[Status]:
    """The statuses of these names; of one that asked nothing nothing can be asked again."""
    choice = [status.value for status in Status if status not in ANSWERED]
    if wrong := [name for name in names if name not in choice]:
        raise UserError(f"--retry-status {wrong[0]}: known are {', '.join(choice)}")
    return frozenset(map(Status, names))


def _layout(config: ExtractConfig, listing: Listing, limit: int | None) -> dict[str, str]:
    """What decides the files and columns of the output."""
    # Runs begun before partitions were columns have none, and must not go on with some.
    partitions = {"input.partitions": "columns"} if any(shard.partitions for shard in listing.shards) else {}
    # JSON has no types, so a file that is added may change those of the columns.
    types = {}
    if schema := next((shard.schema for shard in listing.shards if shard.kind == "jsonl"), None):
        names = Destination(config.input, config.output).output_columns(schema.names)
        kinds = {name: schema.field(name).type for name in names if name in schema.names}
        columns = ", ".join(f"{name} {'JSON' if kind == pa.json_() else kind}" for name, kind in kinds.items())
        types = {"input.columns": columns}
    return (
        partitions
        | types
        | {
            "input.text_column": config.input.text_column,
            "input.rename": str(dict(config.input.rename)),
            # An empty list once meant all columns: a run begun so must not go on with none.
            "output.keep": "no column" if config.output.keep == () else str(config.output.keep),
            "output.drop_input_columns": str(config.output.drop_input_columns),
            "job.unit_rows": str(config.job.unit_rows),
            "job.unit_bytes": str(config.job.unit_bytes),
            "limit": str(limit),
        }
    )


def _check_columns(config: ExtractConfig, listing: Listing) -> None:
    """Named columns must exist, and none may meet one of ours in the output."""
    output, rename = config.output, config.input.rename
    named = [("input.rename", name) for name in rename]
    named += [("output.keep", name) for name in output.keep or ()]
    named += [("output.drop_input_columns", name) for name in output.drop_input_columns]
    if (id_column := config.input.id_column) is not None:
        named.append(("input.id_column", id_column))
        if id_column not in Destination(config.input, output).output_columns([id_column]):
            raise UserError(f"input.id_column: {id_column} must be kept: see output.keep, output.drop_input_columns")
    for shard in listing.shards:
        for field, name in named:
            if name not in shard.columns:
                raise UserError(f"{field}: no column {name!r} in {shard.uri} (it has {', '.join(shard.columns)})")
        out = [rename.get(name, name) for name in Destination(config.input, output).output_columns(shard.columns)]
        for name in clashing(out):
            raise UserError(
                f"{shard.uri}: its column {name!r} would meet the one this job adds: "
                f"set input.rename.{name}=gold_{name} or output.drop_input_columns=[{name}]"
            )
        new_names = {name.casefold() for name in rename.values()}
        folded = [name.casefold() for name in out]
        for name in out:
            if name in RESERVED:
                raise UserError(f"{shard.uri}: a column may not be called {name!r}: change input.rename")
            # Two that differ by case alone may stay as they came; one of them may not come of us.
            if out.count(name) > 1 or (name.casefold() in new_names and folded.count(name.casefold()) > 1):
                raise UserError(f"{shard.uri}: two columns would be called {name!r} in the output: change input.rename")


def _check_text(text_column: str, listing: Listing) -> None:
    """A name like `doc.body` may mean a column or a field of one, but not both in one run."""
    as_column = [shard.uri for shard in listing.shards if text_column in shard.columns]
    if 0 < len(as_column) < len(listing.shards):
        where = f"a column of {as_column[0]} and a field of one in other files"
        raise UserError(f"input.text_column: {text_column} is {where}: read them in two runs")


def _check_output(config: ExtractConfig) -> None:
    """The output may not lie where the input is read, and must be writable."""
    source, target = config.input.path, config.output.path
    if covers(source, target):
        raise UserError(f"output.path: {target} lies inside input.path {source}: a later run would read it; move it")
    storage.check_writable(target.rstrip("/"))
