"""Everything that can be known before an engine starts: what to read, with which recipe, into which output.

All problems of a run are found here and reported together.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from ner_batch.config import ExtractConfig
from ner_batch.data import PREDICTIONS
from ner_batch.errors import Problems, UserError
from ner_batch.extract.recipe import Recipe, local, make_recipe
from ner_batch.extract.unit import Destination
from ner_batch.io import storage
from ner_batch.io.shards import Listing, Unit, list_shards, plan_units
from ner_batch.jobs.cluster import check_lasting


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that can start. ``fingerprint`` names all that decides the output; a resumed run must have the same."""

    config: ExtractConfig
    recipe: Recipe
    listing: Listing
    units: tuple[Unit, ...]
    fingerprint: dict[str, str]
    limit: int | None

    @property
    def rows(self) -> int:
        """Rows to come out, those of earlier runs included."""
        return sum(unit.rows for unit in self.units)

    @property
    def destination(self) -> Destination:
        """Where and how units are written."""
        config = self.config
        digest = hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True).encode()).hexdigest()[:16]
        about = {"fingerprint": digest} | {n: self._every(n) for n in ("model", "adapter", "task", "format")}
        source, target = config.input, config.output
        return Destination(
            target.path,
            source.text_column,
            source.rename,
            target.keep,
            target.drop_input_columns,
            about,
            self.recipe.tagged,
        )

    def _every(self, name: str) -> str:
        """A value of the fingerprint; of several tasks, all their values."""
        return ", ".join(v for k, v in self.fingerprint.items() if k == name or k.endswith(f": {name}"))


def prepare(config: ExtractConfig, limit: int | None = None) -> Plan:
    """Check everything and lay out the run.

    Raises:
        UserError: every problem found, one line each.
    """
    problems = Problems()
    problems.check(lambda: check_lasting("output.path", config.output.path))
    config = _absolute(config)
    ready = problems.check(lambda: make_recipe(config))
    listing = problems.check(lambda: list_shards(config.input.path, config.input.text_column))
    if listing:
        problems.check(lambda: _check_columns(config, listing))
    problems.check(lambda: _check_output(config))
    problems.stop_if_any()
    assert ready and listing
    recipe, fingerprint = ready
    units = plan_units(listing.shards, config.job.unit_rows, config.job.unit_bytes, limit)
    fingerprint |= _layout(config, limit)
    return Plan(config, recipe, listing, units, fingerprint, limit)


def _absolute(config: ExtractConfig) -> ExtractConfig:
    """Local paths made absolute, for replicas need not share the driver's folder."""
    source = config.input.model_copy(update={"path": storage.absolute(config.input.path)})
    target = config.output.model_copy(update={"path": storage.absolute(config.output.path)})
    return local(config).model_copy(update={"input": source, "output": target})


def _layout(config: ExtractConfig, limit: int | None) -> dict[str, str]:
    """What decides the files and columns of the output."""
    return {
        "input.text_column": config.input.text_column,
        "input.rename": str(dict(config.input.rename)),
        # An empty list once meant all columns: a run begun so must not go on with none.
        "output.keep": "no column" if config.output.keep == () else str(config.output.keep),
        "output.drop_input_columns": str(config.output.drop_input_columns),
        "job.unit_rows": str(config.job.unit_rows),
        "job.unit_bytes": str(config.job.unit_bytes),
        "limit": str(limit),
    }


def _check_columns(config: ExtractConfig, listing: Listing) -> None:
    """Named columns must exist, and none may meet one of ours in the output."""
    for shard in listing.shards:
        columns = list(shard.columns)
        output = config.output
        named = {"input.rename": tuple(config.input.rename), "output.keep": output.keep or ()}
        named["output.drop_input_columns"] = output.drop_input_columns
        for field, names in named.items():
            for name in names:
                if name not in columns:
                    raise UserError(f"{field}: no column {name!r} in {shard.uri} (it has {', '.join(columns)})")
        kept = columns if output.keep is None else output.keep
        out = [config.input.rename.get(n, n) for n in kept if n not in output.drop_input_columns]
        for name in out:
            if name in PREDICTIONS.names:
                raise UserError(
                    f"{shard.uri}: its column {name!r} would meet the one this job adds: "
                    f"set input.rename.{name}=gold_{name} or output.drop_input_columns=[{name}]"
                )
            if out.count(name) > 1:
                raise UserError(f"{shard.uri}: two columns would be called {name!r} in the output: change input.rename")


def _check_output(config: ExtractConfig) -> None:
    """The output may not lie where the input is read, nor in a place that a submitted job loses."""
    source, target = config.input.path.rstrip("/"), config.output.path.rstrip("/")
    if target == source or target.startswith(source + "/"):
        raise UserError(f"output.path: {target} lies inside input.path {source}: a later run would read it; move it")
    storage.check_writable(target)
