"""What a job writes down about itself: versions of the packages that decided its result, digests of what went in."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def versions(*packages: str) -> dict[str, str]:
    """Python, the platform, and those of the packages (by distribution name) that are installed."""
    installed = {"python": platform.python_version(), "platform": sys.platform}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def digest(value: Any, length: int = 16) -> str:
    """SHA-256 of a value as JSON, the first ``length`` hex digits. Stored digests are made so: the form must stay."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]
