"""The normalised form: which spellings it makes equal, and the way back to the source."""

from __future__ import annotations

from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ner_batch.text.folding import fold

PIECES = [
    *"aIßİŉﬁ…½㈱ﾊﾟＡ，'’«–·・ \n\u3000\xa0中カーㅋ한",
    "e\u0301",
    "a\u0323\u0307",
    "q\u0307\u0323",
    "\u1112\u1161\u11ab",
]
PIECES += [
    "\u00ad",
    "\u200b",
    "\u200d",
    "\ufe0f",
    "क\u093c",
    "\u0958",
    "J\u030c",
    "ᾳ",
    "\U0001f1fa",
    "𠀀",
    "\ue000",
    "\u0344",
]
texts = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PIECES), max_size=15).map("".join))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("NEW YORK", "New York"),
        ("STRASSE", "Straße"),
        ("ΟΔΟΣ", "οδος"),
        ("İ", "i\u0307"),
        ("ﬁnance", "finance"),
        ("ＡＢＣ１２３，（", "ABC123,("),
        ("ﾊﾟﾝ", "パン"),
        ("㈱", "(株)"),
        ("…", "..."),
        ("é", "e\u0301"),
        ("a\u0323\u0307", "a\u0307\u0323"),
        ("한국", "\u1112\u1161\u11ab\u1100\u116e\u11a8"),
        ("\u0958", "क\u093c"),
        ("\uf900", "\u8c48"),
        ("New\r\n\t York", "New York"),
        ("New\xa0York", "New York"),
        ("北京 大\n学", "北京大学"),
        ("iPhone 手机", "iPhone手机"),
        ("Colum\u00adbus\u200b", "Columbus"),
        ("❤\ufe0f", "❤"),
        ("“O’Neil”", '"O\'Neil"'),
        ("1914–1918", "1914-1918"),
        ("玛丽·博拉", "玛丽・博拉"),
    ],
)
def test_spellings_of_one_name(left: str, right: str) -> None:
    """Case, width, normal form, white space, invisible characters, quotes, dashes and dots make no difference."""
    assert fold(left).text == fold(right).text


@pytest.mark.parametrize(("left", "right"), [("e", "é"), ("a b", "ab"), ("İ", "i"), ("O'Neil", "ONeil"), ("中", "国")])
def test_different_names(left: str, right: str) -> None:
    """Accents, missing spaces in spaced scripts and missing marks do make one."""
    assert fold(left).text != fold(right).text


def test_origin_and_ends() -> None:
    """Each character knows where its piece begins; pieces longer than one code point know where they end."""
    folded = fold("\u00adß  e\u0301X")
    assert (folded.text, list(folded.origin), folded.ends) == ("ss éx", [1, 1, 2, 4, 6], {1: 2, 4: 6})


@settings(max_examples=200, deadline=None)
@given(texts)
def test_the_way_back(text: str) -> None:
    """There is an origin for each character; origins never fall, lie in the text, and pieces do not overlap."""
    folded = fold(text)
    origin = list(folded.origin)
    assert len(origin) == len(folded.text)
    assert origin == sorted(origin)
    starts = sorted(set(origin))
    ends = [folded.ends.get(start, start + 1) for start in starts]
    assert all(end <= following for end, following in zip(ends, [*starts[1:], len(text)], strict=False))


@settings(max_examples=200, deadline=None)
@given(texts, texts)
def test_folding_is_local(left: str, right: str) -> None:
    """A text folds line by line, each as it would alone: what a surface folds to does not depend on the text around it."""
    whole = fold(f"{left}x\nx{right}").text
    assert whole == fold(f"{left}x").text + " " + fold(f"x{right}").text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([p for p in PIECES if p not in "\u00ad\u200b\u200d\ufe0f"]), max_size=15).map("".join))
def test_normal_forms_fold_alike(text: str) -> None:
    """Composed and decomposed text fold to the same."""
    assert fold(normalize("NFD", text)).text == fold(normalize("NFC", text)).text
