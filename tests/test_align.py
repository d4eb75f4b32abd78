"""Mentions placed on a text: whole evidence or none, and always real spans."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ner_batch.data import Entity, Ungrounded
from ner_batch.text.align import EMPTY, INSIDE_A_WORD, NOT_IN_TEXT, ground
from ner_batch.text.boundaries import cuts, word_chunks

PIECES = [*"aAbZ9_ .-'’\n\t\u3000ßİﬁ…Ａ北京大ーｶﾞกิม", "\r\n", "e\u0301", "é", "한", "\u1112\u1161\u11ab", "नरेन्द्र", "𠀀"]
PIECES += [
    "\u00ad",
    "\u200b",
    "\u0301",
    "\ufe0f",
    "👨\u200d👩\u200d👧",
    "❤\ufe0f",
    "🇺",
    "🇸",
    "\u0600",
    "\ud800",
    "US",
    "USA",
]
texts = st.one_of(st.text(max_size=25), st.lists(st.sampled_from(PIECES), max_size=20).map("".join))
types = st.sampled_from(["LOC", "ORG"])


def spans(text: str, *surfaces: str) -> list[tuple[int, int]]:
    """Where ``ground`` puts surfaces of one type, checked to be all of them."""
    entities, ungrounded = ground([(surface, "X") for surface in surfaces], text)
    assert ungrounded == ()
    return [(entity.start, entity.end) for entity in entities]


@pytest.mark.parametrize(
    ("rule", "text", "surfaces", "expected"),
    [
        ("the next occurrence for the next mention", "Ohio, Ohio, Ohio", ["Ohio", "Ohio"], [(0, 4), (6, 10)]),
        ("reading order", "Ohio or Iowa or Ohio", ["Iowa", "Ohio"], [(8, 12), (16, 20)]),
        ("order not kept: anywhere", "Ohio or Iowa", ["Iowa", "Ohio"], [(0, 4), (8, 12)]),
        ("and on from where it was", "Ada Bo Cy Bo", ["Cy", "Ada", "Bo"], [(0, 3), (7, 9), (10, 12)]),
        ("said again", "Ohio and Iowa", ["Ohio", "Ohio", "Ohio"], [(0, 4)]),
        ("nested, outer first", "University of Ohio", ["University of Ohio", "Ohio"], [(0, 18), (14, 18)]),
        ("nested, same start", "Ohio State", ["Ohio", "Ohio State"], [(0, 4), (0, 10)]),
        ("overlapping", "New York City Hall", ["New York City", "City Hall"], [(0, 13), (9, 18)]),
        ("inside another one only at need", "Ohio State in Ohio", ["Ohio State", "Ohio"], [(0, 10), (14, 18)]),
        ("inside and outside", "Ohio State in Ohio", ["Ohio State", "Ohio", "Ohio"], [(0, 4), (0, 10), (14, 18)]),
        ("the longer one is named later", "副主任、主任", ["主任", "副主任"], [(0, 3), (4, 6)]),
        ("not inside a word", "USA, US", ["US"], [(5, 7)]),
        ("nor a number", "12019 2019", ["2019"], [(6, 10)]),
        ("apostrophe", "Trump's", ["Trump"], [(0, 5)]),
        ("hyphen", "Franco-German", ["German"], [(7, 13)]),
        ("Han without spaces", "我在北京大学", ["北京"], [(2, 4)]),
        ("Han beside Latin", "在IBM工作", ["IBM"], [(1, 4)]),
        ("CJK extension B", "𠀀𠀁𠀂", ["𠀁"], [(1, 2)]),
        ("Thai without spaces", "ไปกรุงเทพมหานคร", ["กรุงเทพ"], [(2, 9)]),
        ("Hangul before a particle", "서울에서", ["서울"], [(0, 2)]),
        ("Arabic after a clitic", "والقاهرة", ["القاهرة"], [(1, 8)]),
        ("Hebrew after a clitic", "בישראל", ["ישראל"], [(1, 6)]),
        ("Devanagari", "नरेन्द्र मोदी ने", ["मोदी"], [(9, 13)]),
        ("white space around a surface", "in Ohio", [" Ohio\n"], [(3, 7)]),
        ("an exact one wins over an earlier variant", "OHIO Ohio", ["Ohio"], [(5, 9)]),
        ("case", "in OHIO", ["Ohio"], [(3, 7)]),
        ("case that changes length", "die Straße.", ["STRASSE"], [(4, 10)]),
        ("dotted I", "İstanbul'da", ["i\u0307stanbul"], [(0, 8)]),
        ("ligature", "a ﬁnance", ["finance"], [(2, 8)]),
        ("full width", "在ＩＢＭ工作", ["IBM"], [(1, 4)]),
        ("half-width kana", "ﾊﾟﾝ屋", ["パン屋"], [(0, 4)]),
        ("one character for several", "㈱ソニー", ["(株)ソニー"], [(0, 4)]),
        ("decomposed in the text", "Cafe\u0301 Noir", ["Café Noir"], [(0, 10)]),
        ("decomposed in the answer", "Café Noir", ["Cafe\u0301 Noir"], [(0, 9)]),
        ("order of marks", "xa\u0323\u0307 a\u0323\u0307", ["a\u0307\u0323"], [(5, 8)]),
        ("jamo", "\u1112\u1161\u11ab\u1100\u116e\u11a8", ["한국"], [(0, 6)]),
        ("line break", "New\r\n  York", ["New York"], [(0, 11)]),
        ("no-break space", "New\xa0York", ["New York"], [(0, 8)]),
        ("space in Han", "北 京 大学", ["北京大学"], [(0, 6)]),
        ("space only in the answer", "用iPhone手机", ["iPhone 手机"], [(1, 9)]),
        ("soft hyphen", "Colum\u00adbus.", ["Columbus"], [(0, 9)]),
        ("zero-width space", "Colum\u200bbus.", ["Columbus"], [(0, 9)]),
        ("variation selector", "I ❤\ufe0f you", ["❤"], [(2, 4)]),
        ("joined emoji", "a 👨\u200d👩\u200d👧!", ["👨\u200d👩\u200d👧"], [(2, 7)]),
        ("quotes", "the “Old” O’Neil", ['"Old" O\'Neil'], [(4, 16)]),
        ("dashes", "1914–1918", ["1914-1918"], [(0, 9)]),
        ("middle dots", "玛丽·博拉", ["玛丽・博拉"], [(0, 5)]),
        ("lone surrogate", "a \ud800 b", ["\ud800"], [(2, 3)]),
    ],
)
def test_placed(rule: str, text: str, surfaces: list[str], expected: list[tuple[int, int]]) -> None:
    """One case for each rule."""
    assert spans(text, *surfaces) == expected, rule


@pytest.mark.parametrize(
    ("text", "surface", "reason"),
    [
        ("Alice went home", "Alice Cooper", NOT_IN_TEXT),
        ("Alice Cooper", "Bob", NOT_IN_TEXT),
        ("Café", "Cafe", NOT_IN_TEXT),
        ("İstanbul", "istanbul", NOT_IN_TEXT),
        ("", "Alice", NOT_IN_TEXT),
        ("the USA", "US", INSIDE_A_WORD),
        ("the usa", "US", INSIDE_A_WORD),
        ("in 12019", "2019", INSIDE_A_WORD),
        ("snake_case", "snake", INSIDE_A_WORD),
        ("cafe\u0301", "cafe", INSIDE_A_WORD),
        ("北\u0301", "北", INSIDE_A_WORD),
        ("👨\u200d👩\u200d👧", "👨", INSIDE_A_WORD),
        ("🇺🇸🇨🇳", "🇸🇨", INSIDE_A_WORD),
        ("㈱ソニー", "株", INSIDE_A_WORD),
        ("नरेन्द्र", "नर", INSIDE_A_WORD),
        ("Alice", "", EMPTY),
        ("Alice Cooper", " \n", EMPTY),
        ("a\u200bb", "\u200b\u00ad", EMPTY),
    ],
)
def test_not_placed(text: str, surface: str, reason: str) -> None:
    """What is not wholly there is reported, with the surface as the model said it and the reason."""
    assert ground([(surface, "PER")], text) == ((), (Ungrounded(surface, "PER", reason),))


@pytest.mark.parametrize(
    "surface",
    [
        '"Priya"', "'Priya'", "“Priya”", "„Priya“", "«Priya»", "「Priya」", "**Priya**", "*Priya*", "__Priya__", "`Priya`",
        "- Priya", "* Priya", "• Priya", "1. Priya", "12) Priya", "(3) Priya", '- **"Priya"**', '  1. "Priya" ',
    ],
)  # fmt: skip
def test_decoration_is_taken_off(surface: str) -> None:
    """What models put around a mention, unless it stands in the text."""
    assert ground([(surface, "PER")], "Anna met Priya.")[0] == (Entity(9, 14, "PER", "Priya"),)
    written = surface.strip()
    places = [(e.start, e.text) for e in ground([(surface, "PER")], f"Priya met {written} here")[0]]
    assert places == [(10, written)]


@pytest.mark.parametrize("surface", ['"Priya', "Priya.5", "3 Priya", "Dr. Priya", "Priya and Anna", '""', "- ", "****"])
def test_other_words_are_not_decoration(surface: str) -> None:
    """Evidence is whole or it is none."""
    assert ground([(surface, "PER")], "Anna met Priya.")[0] == ()


def test_types_are_independent() -> None:
    """Each type reads from the beginning, and one span may have two types."""
    text = "Ohio or Iowa"
    entities, ungrounded = ground([("Iowa", "LOC"), ("Ohio", "ORG"), ("Iowa", "ORG")], text)
    assert entities == (Entity(0, 4, "ORG", "Ohio"), Entity(8, 12, "LOC", "Iowa"), Entity(8, 12, "ORG", "Iowa"))
    assert ungrounded == ()


def test_an_entity_has_the_texts_spelling() -> None:
    """An entity says what stands in the text, not what the model wrote."""
    assert ground([("NEW YORK", "LOC")], "in New\nYork")[0] == (Entity(3, 11, "LOC", "New\nYork"),)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(texts, types), max_size=6), texts)
def test_every_span_is_real(mentions: list[tuple[str, str]], text: str) -> None:
    """Whatever was said about whatever text: spans slice back, begin and end on boundaries, are distinct and sorted."""
    entities, ungrounded = ground(mentions, text)
    keys = [(entity.start, entity.end, entity.type) for entity in entities]
    assert keys == sorted(set(keys))
    for entity in entities:
        assert text[entity.start : entity.end] == entity.text != ""
        assert cuts(text)[entity.start]
        assert cuts(text)[entity.end]
    assert all((mention.text, mention.type) in mentions for mention in ungrounded)


@settings(max_examples=200, deadline=None)
@given(st.data(), texts)
def test_every_mention_is_accounted_for(data: st.DataObject, text: str) -> None:
    """A mention is either ungrounded or an entity, and which of them depends on its surface alone."""
    surfaces = st.one_of(texts, st.sampled_from([*word_chunks(text), "x"]), st.just(text.upper()))
    mentions = data.draw(st.lists(st.tuples(surfaces, types), max_size=6))
    entities, ungrounded = ground(mentions, text)
    alone = [ground([mention], text) for mention in mentions]
    assert ungrounded == tuple(reported for _, reports in alone for reported in reports)
    assert all(len(placed) + len(reports) == 1 for placed, reports in alone)
    grounded = {mention for mention, (placed, _) in zip(mentions, alone, strict=True) if placed}
    assert len({label for _, label in grounded}) == len({entity.type for entity in entities})
    assert len(entities) <= len(mentions) - len(ungrounded)


@settings(max_examples=200, deadline=None)
@given(st.data(), texts)
def test_what_is_in_the_text_is_found(data: st.DataObject, text: str) -> None:
    """Pieces of the text between boundaries, named in reading order, are all found as they are written."""
    edges = [0]
    for chunk in word_chunks(text):
        edges.append(edges[-1] + len(chunk))
    pairs = st.tuples(st.sampled_from(edges), st.sampled_from(edges)).map(sorted).map(tuple)
    chosen = sorted(data.draw(st.sets(pairs, max_size=5)))
    surfaces = [text[start:end] for start, end in chosen]
    mentions = [(s, "X") for s in surfaces if s == s.strip() and any(c.isalnum() for c in s)]
    entities, ungrounded = ground(mentions, text)
    assert ungrounded == ()
    assert {entity.text for entity in entities} == {surface for surface, _ in mentions}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["Ann", "Bo", "Cy", "北京", "한국"]), min_size=1, max_size=12), st.data())
def test_names_that_do_not_overlap_come_back_in_place(names: list[str], data: st.DataObject) -> None:
    """If all occurrences of the names that are said are said, in order, each mention has its own place."""
    text = " ".join(names)
    starts = [0]
    for name in names:
        starts.append(starts[-1] + len(name) + 1)
    said = data.draw(st.sets(st.sampled_from(names)))
    chosen = [(start, end - 1) for (start, end), name in zip(pairwise(starts), names, strict=True) if name in said]
    assert spans(text, *(text[start:end] for start, end in chosen)) == chosen
