"""What jobs write down about themselves: versions and digests."""

import platform
import sys
from importlib.metadata import version

import pytest

from ner_batch.jobs.record import digest, versions


def test_versions_are_of_what_is_installed():
    """Python and platform always; a package that is not there is left out."""
    assert versions("torch", "no-such-package-at-all") == {
        "python": platform.python_version(),
        "platform": sys.platform,
        "torch": version("torch"),
    }


def test_a_digest_is_of_the_content():
    """Not of the order of keys; its form is pinned, for manifests and checkpoints of earlier releases hold it."""
    assert digest({"b": [1, "é"], "a": None}) == digest({"a": None, "b": [1, "é"]}) == "1c3d52eb78675f43"
    assert digest([1]) != digest([2])
    assert len(digest("x", length=64)) == 64
    with pytest.raises(TypeError):
        digest(object())
