"""Plots as PNG bytes, without a display: what the jobs' plots have in common."""

from __future__ import annotations

import io
from typing import Any


def canvas(width: float, height: float, **options: Any) -> tuple[Any, Any]:
    """A matplotlib figure of that many inches and its axes.

    Names in Chinese, Japanese and Korean are shown where the machine has a font for them.
    """
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["text.parse_math"] = False  # a type may be called $x_$
    mpl.rcParams["font.family"] = ["DejaVu Sans", *_wide_font()]
    from matplotlib import pyplot as plt

    drawn, axes = plt.subplots(figsize=(width, height), layout="constrained", **options)
    return drawn, axes


def png(drawn: Any) -> bytes:
    """The figure as a file; it is closed."""
    from matplotlib import pyplot as plt

    sink = io.BytesIO()
    drawn.savefig(sink, format="png", dpi=110)
    plt.close(drawn)
    return sink.getvalue()


def _wide_font() -> list[str]:
    from matplotlib.font_manager import fontManager

    return sorted({font.name for font in fontManager.ttflist if "CJK" in font.name})[:1]
