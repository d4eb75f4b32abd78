"""Everything that can be known before rows are read: which files, which columns, where the report goes."""

from __future__ import annotations

from dataclasses import dataclass

from ner_batch.errors import Problems, UserError
from ner_batch.evaluate.joining import Rules
from ner_batch.evaluate.settings import EvaluateConfig
from ner_batch.evaluate.source import Source
from ner_batch.evaluate.units import MOST_ROWS
from ner_batch.io import storage
from ner_batch.io.shards import Shard, list_shards, plan_units
from ner_batch.jobs.cluster import check_lasting

PART_ROWS, PART_BYTES = 100_000, 128_000_000
"""Rows, and bytes of text, that are joined at once."""
MANIFEST = "_manifest.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """An evaluation that can start. ``sources`` is gold first, then one or two runs; gold may be the first run."""

    config: EvaluateConfig
    sources: tuple[Source, ...]
    unfinished: tuple[str, ...]
    """Runs whose manifest says that they are not complete."""

    @property
    def runs(self) -> int:
        """One, or two where runs are compared."""
        return len(self.sources) - 1

    @property
    def rules(self) -> Rules:
        """What to do with rows without a partner."""
        return Rules(self.config.without_prediction, self.config.without_gold)

    @property
    def streams(self) -> bool:
        """Whether each row has all that is needed, so that nothing is joined."""
        return self.runs == 1 and self.sources[0] is self.sources[1]

    @property
    def rows(self) -> int:
        """Rows of the largest source."""
        return max(source.rows for source in self.sources)

    @property
    def text_bytes(self) -> int:
        """Text of the source that has most."""
        return max(sum(s.text_bytes for s in {u.shard for u in source.units}) for source in self.sources)

    @property
    def grouped(self) -> bool:
        """Whether the bootstrap draws groups of rows."""
        return self.sources[0].rows > MOST_ROWS

    @property
    def parts(self) -> int:
        """Parts that rows are joined in, by a hash of their ids."""
        return max(1, -(-self.rows // PART_ROWS), -(-self.text_bytes // PART_BYTES))

    @property
    def local(self) -> bool:
        """Whether it is small enough for this process."""
        job = self.config.job
        return self.rows <= job.local_rows and self.text_bytes <= job.local_bytes


def prepare(config: EvaluateConfig) -> Plan:
    """Check everything and lay out the evaluation.

    Raises:
        UserError: every problem found, one line each.
    """
    problems = Problems()
    problems.check(lambda: check_lasting("output", config.output))
    columns = _columns(config)
    runs = [problems.check(lambda: _source(config, "predictions", config.predictions.path, columns))]
    if config.against is not None:
        other = config.against
        plain = {name: column for name, column in columns.items() if name != "gold"}
        runs.append(problems.check(lambda: _source(config, "against", other, plain)))
    gold = problems.check(lambda: _gold(config)) if config.gold.path else runs[0]
    problems.check(lambda: storage.check_writable(config.output))
    paths = [path for path in (config.predictions.path, config.against) if path]
    unfinished = problems.check(lambda: tuple(path for path in paths if _unfinished(path))) or ()
    problems.stop_if_any()
    sources = tuple(source for source in (gold, *runs) if source)
    return Plan(config, sources, unfinished)


def _columns(config: EvaluateConfig) -> dict[str, str]:
    """Our names of the columns of a run to theirs."""
    given = config.predictions
    columns = {"id": given.id_column, "text": given.text_column, "entities": given.column}
    columns |= {} if config.gold.path else {"gold": config.gold.column}
    return {name: column for name, column in columns.items() if column is not None}


def _gold(config: EvaluateConfig) -> Source:
    assert config.gold.path
    columns = {"id": config.gold.id_column, "text": config.gold.text_column, "gold": config.gold.column}
    return _source(config, "gold", config.gold.path, {n: column for n, column in columns.items() if column is not None})


def _source(config: EvaluateConfig, name: str, path: str, columns: dict[str, str]) -> Source:
    listing = list_shards(storage.absolute(path), columns.get("text"))
    problems = [f"{name}: {corrupt.uri}: {corrupt.reason}" for corrupt in listing.corrupt]
    problems += [line for shard in listing.shards for line in _missing(name, shard, columns)]
    if not sum(shard.rows for shard in listing.shards):
        problems.append(f"{name}: {path} has no rows")
    if problems:
        raise UserError("\n".join(problems))
    units = plan_units(listing.shards, config.job.unit_rows, config.job.unit_bytes)
    return Source(name, units, columns, config.predictions.task, config.predictions.rejected == "keep")


def _missing(name: str, shard: Shard, columns: dict[str, str]) -> list[str]:
    fields = {"id": "id_column", "text": "text_column", "entities": "column", "gold": "column"}
    there = f"in {shard.uri} ({name}); there are {', '.join(shard.columns)}"
    return [
        f"{'gold' if 'gold' in (ours, name) else 'predictions'}.{fields[ours]}: no column {column!r} {there}"
        for ours, column in columns.items()
        if column not in shard.columns
    ]


def _unfinished(path: str) -> bool:
    """Whether a run's manifest says that rows are still to come."""
    manifest = storage.join(path, MANIFEST)
    told = storage.read_json(manifest) if storage.exists(manifest) else None
    return isinstance(told, dict) and told.get("state") != "complete"
