"""The page: values to HTML by a template, everything escaped, nothing that comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ner_batch.data import Status, clean
from ner_batch.evaluate.match import OUTCOMES
from ner_batch.jobs.progress import duration
from ner_batch.report import charts
from ner_batch.report.against import Differences
from ner_batch.report.output import Output
from ner_batch.report.totals import Timeline, Totals

TYPES = 40
"""Types in a table: those that occur most; more are counted."""
SURFACE_TYPES, SURFACES = 12, 10
CONFUSED_TYPES = 12
REASONS = 8
DASH = "–"
# What must not stand in a script element as it is, and its form in JSON.
_IN_SCRIPT = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029\x7f"})


@dataclass(frozen=True, slots=True)
class Run:
    """What the page tells of a run. ``course`` is None where the times of its files tell nothing."""

    output: Output
    totals: Totals
    course: Timeline | None = None


def script_json(value: object) -> Markup:
    """A value as JSON that may stand in a script element: no text can end it, or begin a comment in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_IN_SCRIPT))  # noqa: S704 - no markup is left in it


def render(
    runs: Sequence[Run],
    rows: Mapping[str, Any],
    gold: dict[str, Any] | None = None,
    differences: Differences | None = None,
    notes: Sequence[str] = (),
) -> bytes:
    """The page of one run, or of two; ``rows`` is what its script gets, ``gold`` the values of an evaluation."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "share": share, "three": three, "last_part": last_part}
    folder = files("ner_batch.report") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    page = environment.from_string((folder / "report.html.jinja").read_text(encoding="utf-8")).render(
        runs=[summary(run) for run in runs],
        types=type_counts(runs),
        places={name: place for place, name in enumerate(rows["types"])},
        surfaces=surfaces(runs[0].totals),
        charts=_charts(runs[0]),
        gold=_gold(gold) if gold else None,
        differences=_differences(differences) if differences else None,
        notes=notes,
        rows=rows,
        data=script_json(rows),
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        policy=f"default-src 'none'; script-src {digest(script)}; style-src {digest(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'",
    )
    return clean(page).replace("\0", "\ufffd").encode()


def digest(content: str) -> str:
    """What a content security policy calls an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def number(value: float) -> str:
    """1,234,567 or 87.5."""
    return f"{value:,.12g}"


def share(part: float, whole: float) -> str:
    """A percentage."""
    return f"{part / whole:.1%}" if whole else DASH


def three(value: float) -> str:
    """A score with its three digits."""
    return f"{value:.3f}"


def last_part(value: str) -> str:
    """Of a path on a disk its last part; other names as they are."""
    return value.rstrip("/").rpartition("/")[2] if value.startswith("/") else value


def summary(run: Run) -> dict[str, Any]:
    """A run's headline, its figures by name, and what it ran with."""
    status, totals, manifest = run.output.status, run.totals, run.output.manifest
    config, fingerprint = manifest.get("config", {}), manifest.get("fingerprint", {})
    # Rows that an earlier release's manifest does not have are simply not there.
    seconds = sum(entry.get("seconds", 0) for entry in status.runs)
    rows_run = sum(entry.get("rows", 0) for entry in status.runs)
    figures = {
        "rows": f"{totals.rows:,}" if status.state == "complete" else f"{totals.rows:,} of {status.rows:,}",
        "entities": f"{totals.entities:,}",
        "entities a row": f"{totals.entities / totals.rows:.2f}" if totals.rows else DASH,
        "rows with entities": share(totals.rows_with_entities, totals.rows),
        "ungrounded mentions": f"{totals.ungrounded.total():,}",
        "prompt tokens": f"{totals.prompt_tokens:,}",
        "completion tokens": f"{totals.completion_tokens:,}",
        "time": duration(seconds) if seconds else DASH,
        "rows/s": f"{rows_run / seconds:,.2f}" if seconds else DASH,
    }
    if verified := totals.verified[True] + totals.verified[False]:
        figures["verified"] = share(totals.verified[True], verified)
    order = [status.value for status in Status]
    statuses = sorted(totals.statuses.items(), key=lambda item: order.index(item[0]) if item[0] in order else 99)
    model = config.get("engine", {}).get("model") or fingerprint.get("model", "")
    return {
        "folder": status.folder,
        "state": status.state,
        "lines": status.lines,
        "figures": figures,
        "rows": totals.rows,
        "statuses": statuses,
        "reasons": list(status.reasons.items()),
        "ungrounded": totals.ungrounded.most_common(REASONS),
        "settings": {
            "model": model,
            "adapter": config.get("adapter") or DASH,
            "task": config.get("task") or fingerprint.get("task", DASH),
            "format": config.get("format") or fingerprint.get("format", DASH),
            "ner_batch": manifest.get("versions", {}).get("ner-batch", DASH),
        },
        "fingerprint": {key: str(value) for key, value in fingerprint.items()},
        "config": json.dumps(config, indent=2, ensure_ascii=False),
        "versions": manifest.get("versions", {}),
    }


def type_counts(runs: Sequence[Run]) -> dict[str, Any]:
    """Entities by type in each run, the most frequent types first."""
    counts = [run.totals.types for run in runs]
    names = sorted({name for run in counts for name in run}, key=lambda n: (-sum(run[n] for run in counts), n))
    most_frequent = [(name, [run[name] for run in counts]) for name in names[:TYPES]]
    most = max((count for _, values in most_frequent for count in values), default=1)
    return {"shown": most_frequent, "more": len(names) - len(most_frequent), "most": most}


def surfaces(totals: Totals) -> dict[str, Any]:
    """The most frequent surfaces of the most frequent types."""
    types = [name for name, _ in sorted(totals.types.items(), key=lambda item: (-item[1], item[0]))]
    listed = totals.surfaces.most_frequent(types[:SURFACE_TYPES], SURFACES)
    return {
        "types": [(name, totals.types[name], listed[name]) for name in types[:SURFACE_TYPES]],
        "more": max(0, len(types) - SURFACE_TYPES),
        "undercount": totals.surfaces.undercount,
    }


def _charts(run: Run) -> list[charts.Chart]:
    plots = [charts.throughput(run.course)] if run.course else []
    return plots + ([charts.histogram(run.totals.scores.tolist())] if run.totals.scores.any() else [])


def _gold(values: dict[str, Any]) -> dict[str, Any]:
    """An evaluation's report as the template shows it: scores, confusions and plots of the run, and the comparison."""
    from ner_batch.evaluate import plots
    from ner_batch.evaluate.report import verdict

    run, strict = values["runs"][0], values["runs"][0]["strict"]
    by_count = sorted(strict["types"], key=lambda t: (-strict["types"][t]["gold"] - strict["types"][t]["predicted"], t))
    confused = sorted(by_count[:CONFUSED_TYPES])
    grid = plots.confusion_grid(run["errors"]["confusion"], confused).astype(int).tolist()
    calibration = run["calibration"]
    calibration_charts = (
        [
            charts.reliability(calibration["reliability"], calibration["ece"]),
            charts.thresholds(calibration["thresholds"]),
        ]
        if calibration
        else []
    )
    comparison = values["comparison"]
    return {
        "rows": values["rows"],
        "level": f"{values['bootstrap']['level']:.0%}",
        "micro": strict["micro"],
        "lines": [(t, strict["types"][t]) for t in by_count[:TYPES]]
        + [("macro", strict["macro"]), ("micro", strict["micro"])],
        "more": max(0, len(by_count) - TYPES),
        "schemes": run["schemes"],
        "kinds": run["errors"]["kinds"],
        "confused": confused,
        "grid": [(name, row, max(1, sum(row))) for name, row in zip([*confused, "spurious"], grid, strict=True)],
        "charts": calibration_charts,
        "verdict": verdict(values) if comparison else None,
        "other_micro": values["runs"][1]["strict"]["micro"] if comparison else None,
    }


def _differences(differences: Differences) -> dict[str, Any]:
    both, this, other = differences.both, differences.this, differences.other
    names = sorted({*both, *this, *other}, key=lambda n: (-this[n] - other[n], n))
    names = [name for name in names if both[name] + this[name] + other[name]]
    return {
        "rows": differences.rows,
        "rows_different": differences.rows_different,
        "rows_this": differences.rows_this,
        "rows_other": differences.rows_other,
        "types": [(name, both[name], this[name], other[name]) for name in names[:TYPES]],
        "more": max(0, len(names) - TYPES),
    }


def kinds(scored: bool) -> list[str]:
    """What the kinds of spans are called: errors against gold, or differences from the other run."""
    if scored:
        return list(OUTCOMES)
    return ["same", "other type", "other boundary", "other type and boundary", "only there", "only here"]
