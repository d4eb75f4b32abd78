"""A tally to the report: plain values, everything that tables, plots and report.json show."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from ner_batch.config import dump
from ner_batch.evaluate import bootstrap, calibration
from ner_batch.evaluate.bootstrap import Figures
from ner_batch.evaluate.metrics import Counts, Scores
from ner_batch.evaluate.plan import Plan
from ner_batch.evaluate.settings import EvaluateConfig
from ner_batch.evaluate.tally import RunTally, Tally
from ner_batch.evaluate.units import CORRECT, EXACT, GOLD, GROUPS, PARTIAL, PREDICTED, TYPE, Layout

SCHEMA_VERSION = 1
Report = dict[str, Any]


def build(plan: Plan, tally: Tally) -> Report:
    """The report of one run, or of two and their difference."""
    config = plan.config
    totals = tally.units.total()
    drawn = bootstrap.draw(tally.units, config.groups, config.bootstrap.resamples, config.bootstrap.seed)
    paths = [config.predictions.path, config.against][: plan.runs]
    runs = [
        {"predictions": path} | _run(config, tally.units.layout, total, figures, told)
        for path, total, figures, told in zip(paths, totals, drawn, tally.runs, strict=True)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "rows": {
            "scored": tally.rows,
            "gold_skipped": tally.gold_skipped,
            "predictions_skipped": tally.predictions_skipped,
        },
        "unfinished": list(plan.unfinished),
        "bootstrap": dump(config.bootstrap)
        | {"drawn": f"{GROUPS:,} random groups of rows" if plan.grouped else "rows"},
        "runs": runs,
        "comparison": _comparison(config, tally.units.layout, totals, drawn) if plan.runs > 1 else None,
        "config": dump(config),
        "versions": {name: version(name) for name in ("ner-batch", "numpy", "scipy", "pyarrow")},
    }


def scores_of(totals: np.ndarray, layout: Layout) -> Scores:
    """Strict counts by type, from one run's counts of shape (len(types) + 1, 3)."""
    counts = totals[:-1].tolist()
    return Scores({t: Counts(c[CORRECT], c[PREDICTED], c[GOLD]) for t, c in zip(layout.types, counts, strict=True)})


def _run(config: EvaluateConfig, layout: Layout, totals: np.ndarray, drawn: Figures, told: RunTally) -> Report:
    strict = scores_of(totals, layout)
    level = config.bootstrap.level
    exact = bootstrap.figures(totals, layout, config.groups)

    def shown(name: str, counts: Counts | None = None) -> Report:
        figures = {
            part: {
                "value": float(exact[f"{name}/{part}"]),
                "interval": list(bootstrap.interval(drawn[f"{name}/{part}"], level)),
            }
            for part in ("precision", "recall", "f1")
        }
        return figures | (asdict(counts) if counts else {})

    groups = bootstrap.members(config.groups, layout.types)
    hits = {"exact": totals[-1, EXACT], "partial": totals[-1, PARTIAL] / 2, "type": totals[-1, TYPE]}
    micro = strict.micro
    return {
        "strict": {
            "micro": shown("strict/micro", micro),
            "macro": shown("strict/macro"),
            "types": {t: shown(f"strict/type/{t}", counts) for t, counts in strict.per_type.items()},
            "groups": {
                name: shown(f"strict/group/{name}", sum((strict.per_type[layout.types[i]] for i in inside), Counts()))
                | {"types": [layout.types[i] for i in inside]}
                for name, inside in groups.items()
            },
        },
        "schemes": {
            name: shown(f"{name}/micro") | {"correct": float(hit), "predicted": micro.predicted, "gold": micro.gold}
            for name, hit in hits.items()
        },
        "errors": _errors(told, layout),
        "worst": [asdict(bad) for bad in told.worst],
        "statuses": dict(sorted(told.statuses.items())),
        "unanswered": {status: list(ids) for status, ids in told.unanswered.items()},
        "calibration": calibration.summary(told.reliability),
    }


def _errors(told: RunTally, layout: Layout) -> Report:
    cells = sorted(told.confusion.counts.items(), key=lambda cell: (-cell[1], cell[0]))
    return {
        "kinds": told.confusion.by_kind(),
        "types": {t: told.confusion.of_type(t) for t in layout.types},
        "confusion": [{"kind": k, "gold": g or None, "predicted": p or None, "count": n} for (k, g, p), n in cells],
    }


def _comparison(config: EvaluateConfig, layout: Layout, totals: np.ndarray, drawn: list[Figures]) -> Report:
    """By figure: the run under `predictions` (this) beside the one under `against` (other)."""
    this, other = (bootstrap.figures(total, layout, config.groups) for total in totals)
    return {
        name: bootstrap.compared(
            float(this[name]), float(other[name]), drawn[0][name], drawn[1][name], config.bootstrap.level
        )
        for name in this
        if name.endswith("/f1")
    }
