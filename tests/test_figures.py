"""Plots with names in Chinese, on a machine with a font for them and on one without."""

import warnings

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from ner_batch.jobs.plots import canvas, png


def save_font(path, family, characters):
    """A font in which each of some characters is a black square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap(dict.fromkeys(map(ord, characters), "square"))
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": square})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def fonts(monkeypatch):
    """matplotlib without fonts for Chinese; registers those a test makes, and forgets them afterwards."""
    known = [font for font in font_manager.fontManager.ttflist if font.name.startswith(("DejaVu", "Last Resort"))]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", known)
    font_manager.fontManager._findfont_cached.cache_clear()
    yield font_manager.fontManager.addfont
    font_manager.fontManager._findfont_cached.cache_clear()


def titled(title):
    """A plot of that title; it must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, axes = canvas(3, 2)
        axes.set_title(title)
        return png(figure)


def test_a_plot_warns_of_no_missing_character(fonts):
    """Not once for each character of each type."""
    assert titled("人名").startswith(b"\x89PNG")


@pytest.mark.parametrize("family", ["WenQuanYi Micro Hei", "SimHei", "PingFang SC", "Noto Serif CJK KR"])
def test_a_font_for_chinese_is_used_where_there_is_one(fonts, tmp_path, family):
    """Latin letters stay as they are."""
    boxes, latin = titled("人名"), titled("LOC")
    save_font(tmp_path / "wide.ttf", family, "人名")
    fonts(str(tmp_path / "wide.ttf"))
    assert titled("人名") != boxes
    assert titled("LOC") == latin


def test_the_better_of_two_fonts(fonts, tmp_path):
    """A serif face is not taken where a plain one is."""
    for family, characters in (("Noto Serif CJK JP", "名"), ("Noto Sans CJK SC", "人")):
        save_font(tmp_path / f"{family}.ttf", family, characters)
        fonts(str(tmp_path / f"{family}.ttf"))
    assert titled("名") == titled("姓")  # the serif face alone has it: both are boxes
