"""Where mentions may begin and end."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from ner_batch.text.boundaries import cuts, word_chunks

PIECES = [
    *"aZ9_ .-'\n\r\tß",
    "\r\n",
    *"é́̈\u200d\u200c\u00ad\u2060\ufe0f",
    *"北京𠀀゙ーカ",
    "한",
    "\u1100\u1161\u11a8",
    *"กิ",
    "नरेन्द्र",
    "م",
]
PIECES += ["🇺", "🇸", "👨\u200d👩\u200d👧", "❤\ufe0f", "\u0600", "\u0d4e", "\ud800", "\u2139", "×", "２", "๑"]
texts = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PIECES), max_size=15).map("".join))


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("The US, the USA.", "The| |US|,| |the| |USA|."),
        ("Trump's O’Neil", "Trump|'|s| |O|’|Neil"),
        ("New-York snake_case", "New|-|York| |snake_case"),
        ("12019 3.14 A4", "12019| |3|.|14| |A4"),
        ("2019年US大统领", "2019|年|US|大|统|领"),
        ("カター東京", "カ|タ|ー|東|京"),
        ("LG전자가", "LG|전|자|가"),
        ("ที่นี่", "ที่|นี่"),
        ("ပြည် ກິນ ស្រី", "ပြ|ည်| |ກິ|ນ| |ស្រី"),
        ("والقاهرة", "و|ا|ل|ق|ا|ه|ر|ة"),
        ("בישראל", "ב|י|ש|ר|א|ל"),
        ("๑๒ ١٢", "๑๒| |١٢"),
        ("Москва नरेन्द्र", "Москва| |नरेन्द्र"),
        ("cafe\u0301s 北\u0301京", "cafe\u0301s| |北\u0301|京"),
        ("a\r\nb", "a|\r\n|b"),
        ("🇺🇸🇨🇳👨\u200d👩\u200d👧❤\ufe0f", "🇺🇸|🇨🇳|👨\u200d👩\u200d👧|❤\ufe0f"),
        ("\u1112\u1161\u11ab\u1100\u116e\u11a8", "\u1112\u1161\u11ab|\u1100\u116e\u11a8"),
        ("𠀀𠀁", "𠀀|𠀁"),
        ("Colum\u00adbus\u00ad.", "Colum\u00adbus|\u00ad|."),
        ("", ""),
    ],
)
def test_chunks(text: str, chunks: str) -> None:
    """Words in scripts that set words apart, grapheme clusters elsewhere; a number is one word in every script."""
    assert "|".join(word_chunks(text)) == chunks


@settings(max_examples=200, deadline=None)
@given(texts)
def test_chunks_and_boundaries_agree(text: str) -> None:
    """The chunks are the text cut at exactly its boundaries."""
    chunks = word_chunks(text)
    edges = [0]
    for chunk in chunks:
        edges.append(edges[-1] + len(chunk))
    assert "".join(chunks) == text
    assert all(chunks)
    assert edges == [position for position in range(len(text) + 1) if cuts(text)[position]]


@settings(max_examples=200, deadline=None)
@given(texts)
def test_no_grapheme_cluster_is_split(text: str) -> None:
    """Every boundary is one of Unicode's grapheme cluster boundaries."""
    clusters = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    assert {position for position in range(len(text) + 1) if cuts(text)[position]} <= clusters


@settings(max_examples=200, deadline=None)
@given(texts)
def test_a_line_break_after_it_changes_no_boundary(text: str) -> None:
    """Plain texts take a short cut; beside a CR LF, which must stay whole, they take the long way to the same result."""
    longer = text + "\n\r\n"
    assert [cuts(text)[i] for i in range(len(text))] == [cuts(longer)[i] for i in range(len(text))]
