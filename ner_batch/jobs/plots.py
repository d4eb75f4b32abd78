"""Plots as PNG bytes, without a display: what the jobs' plots have in common."""

from __future__ import annotations

import io
import warnings
from typing import Any

WIDE_FONTS = (
    *("Sans CJK SC", "Sans CJK", "Sans SC", "Source Han Sans", "WenQuanYi", "Microsoft YaHei", "SimHei", "PingFang SC"),
    *("Hiragino Sans", "Arial Unicode MS", "Droid Sans Fallback", "CJK", "Source Han"),
)
"""Parts of the names of families with Chinese characters, the best first."""


def canvas(width: float, height: float, **options: Any) -> tuple[Any, Any]:
    """A matplotlib figure of that many inches and its axes; Chinese names are shown where there is a font for them."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["text.parse_math"] = False  # a type may be called $x_$
    mpl.rcParams["font.family"] = ["DejaVu Sans", *_wide_font()]
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), layout="constrained", **options)
    return figure, axes


def png(figure: Any) -> bytes:
    """The figure as a file; it is closed."""
    from matplotlib import pyplot as plt

    sink = io.BytesIO()
    with warnings.catch_warnings():  # one for each character, where the machine has no font for them: boxes are seen
        warnings.filterwarnings("ignore", r"Glyph .* missing from")
        figure.savefig(sink, format="png", dpi=110)
    plt.close(figure)
    return sink.getvalue()


def _wide_font() -> list[str]:
    """The installed family to take for wide characters, if any; one that is not there would warn at every text."""
    from matplotlib.font_manager import fontManager

    families = sorted({font.name for font in fontManager.ttflist})
    return [family for part in WIDE_FONTS for family in families if part in family][:1]
