"""Nothing is skipped silently in CI: with CI=true a skip that is not listed here is a failure.

A pytest plugin (`pytest -p skips`); conftest.py loads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

ALLOWED = {
    "root may read everything": "a permission that is denied cannot be shown to root, as whom containers run",
    "NER_BATCH_DATA is not set": "the whole gold sets are not ours to ship; slices of them in tests/data always run",
    "no Resume data": "the same, in test_retrieval.py",
}
"""What may be skipped in CI, by how the reason begins, and why."""


def _refused(report: pytest.TestReport | pytest.CollectReport) -> pytest.TestReport | pytest.CollectReport:
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""
        if not reason.startswith(tuple(ALLOWED)):
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid}: skipped in CI ({reason}): make it run, or allow it in tests/skips.py"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Of tests."""
    return _refused((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """Of modules: `pytest.importorskip` at the top of a file."""
    return _refused((yield))
