"""Answer formats: answers as an inverse pair over hostile text, and what is made of imperfect ones."""

import time
import unicodedata
from collections.abc import Callable

import pytest
from format_cases import TASK, TASKS, TEXT, each_format, entity, hard, read_back, there_and_back
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import TYPES, annotated, annotated_plainly, answers, texts

from ner_batch.data import Entity, Parsed, Status, Ungrounded
from ner_batch.prompts.formats import Format, get
from ner_batch.task import Task


@each_format
@pytest.mark.parametrize("task", [TASK, TASK.model_copy(update={"language": "zh"})], ids=["en", "zh"])
@hard
@given(annotated())
@example(("none", []))
@example(("无", [Entity(0, 1, "LOC", "无")]))
@example(("[a|LOC] @@b## {c}", [Entity(1, 2, "LOC", "a"), Entity(10, 11, "LOC", "b")]))
@example(("\u0600 a", [Entity(0, 2, "PER", "\u0600 ")]))
def test_parse_inverts_answer(form: Format, task: Task, case: tuple[str, list[Entity]]) -> None:
    """Whatever the text and the entities, the representable ones come back, exactly and alone."""
    text, entities = case
    parsed = there_and_back(form, text, entities, task)
    assert sorted(e for p in parsed for e in p.entities) == list(form.representable(text, entities))
    assert all((p.ungrounded, p.status, p.faithful) == ((), Status.OK, True) for p in parsed)


@each_format
@hard
@given(annotated_plainly())
def test_all_plain_entities_are_representable(form: Format, case: tuple[str, list[Entity]]) -> None:
    """Disjoint, unique, whole words: nothing is lost in any format."""
    text, entities = case
    assert list(form.representable(text, entities)) == sorted(entities) == read_back(form, text, entities)


@each_format
@hard
@given(annotated())
def test_representable_is_a_part_and_stays(form: Format, case: tuple[str, list[Entity]]) -> None:
    """What is representable: it takes away, never adds, and has nothing to take away twice; scores are not said."""
    text, entities = case
    part = form.representable(text, [Entity(e.start, e.end, e.type, e.text, 0.5, True) for e in entities])
    assert set(part) <= set(entities)
    assert form.representable(text, part) == part


@each_format
@hard
@given(texts, answers, st.data())
def test_parse_survives_anything(form: Format, text: str, noise: str, data: st.DataObject) -> None:
    """Any answer is read without raising; what comes out as an entity is a slice of the text with a known type."""
    whole = form.answer(text, [Entity(0, len(text), "LOC", text)], ("LOC",), TASK)
    cut = data.draw(st.integers(0, len(whole)))
    for answer in (noise, whole[:cut] + noise, noise + whole[cut:], noise + "\ud800"):
        parsed = form.parse(answer, text, ("LOC",), TASK)
        assert all(text[e.start : e.end] == e.text and e.type == "LOC" for e in parsed.entities)
        assert not (parsed.faithful and parsed.ungrounded)
        for mention in parsed.ungrounded:
            (mention.text + mention.type).encode()
        if parsed.status == Status.MALFORMED:
            assert parsed == Parsed((), (), Status.MALFORMED, False)


@pytest.mark.parametrize("form", [get("json"), get("inline"), get("gpt-ner")], ids=["json", "inline", "gpt-ner"])
@hard
@given(annotated_plainly(), st.data())
def test_a_cut_answer_keeps_its_complete_mentions(
    form: Format, case: tuple[str, list[Entity]], data: st.DataObject
) -> None:
    """Wherever an answer breaks off, what is read was said in full: no cut-off mention, and it is not faithful."""
    text, entities = case
    for labels in form.groups(TASK):
        answer = form.answer(text, entities, labels, TASK)
        cut = data.draw(st.integers(0, len(answer)))
        parsed = form.parse(answer[:cut], text, labels, TASK)
        assert set(parsed.entities) <= set(entities)
        assert parsed.ungrounded == ()
        if answer[:cut].strip() != answer.strip():
            assert not parsed.faithful or not any(e.type in labels for e in entities)


NESTED = "Bank of China in Ohio"
BANK, CHINA = entity(NESTED, "Bank of China", "ORG"), entity(NESTED, "China", "LOC")
SAME, CROSSING = entity(NESTED, "China", "ORG"), entity(NESTED, "China in Ohio", "ORG")


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("json", []),
        ("mrc", []),
        ("inline", [CHINA, SAME, CROSSING]),
        ("gpt-ner", [SAME, CROSSING]),
    ],
)
def test_nesting_and_crossing(name: str, lost: list[Entity]) -> None:
    """Lists say all of it; marks of one answer say the longest, then the first; types of different answers are free."""
    entities = [BANK, CHINA, SAME, CROSSING]
    rest = sorted(set(entities) - set(lost))
    assert list(get(name).representable(NESTED, entities)) == rest == read_back(get(name), NESTED, entities)


@pytest.mark.parametrize("name", ["json", "mrc"])
def test_what_a_list_cannot_say(name: str) -> None:
    """A list has no places: a later occurrence alone, a span inside a word, a white edge. Order fixes some."""
    form, text = get(name), "Ohio and Iowa, not Ohio; New Ohioans"
    late = entity(text, "Ohio", nth=1)
    assert form.representable(text, [late]) == ()
    assert form.representable("Ohio State, Ohio", [Entity(12, 16, "LOC", "Ohio")]) == ()
    state = Entity(0, 10, "LOC", "Ohio State")
    assert form.representable("Ohio State, Ohio", [state, Entity(12, 16, "LOC", "Ohio")]) == (
        state,
        Entity(12, 16, "LOC", "Ohio"),
    )
    assert form.representable(text, [entity(text, "Iowa"), late]) == (entity(text, "Iowa"), late)
    assert form.representable(text, [entity(text, "Ohio"), late]) == (entity(text, "Ohio"), late)
    assert form.representable(text, [entity(text, "hio", nth=2)]) == ()
    assert form.representable(text, [entity(text, "Iowa,"), entity(text, " Iowa")]) == (entity(text, "Iowa,"),)


@pytest.mark.parametrize("name", ["inline", "gpt-ner"])
def test_marks_have_places(name: str) -> None:
    """A copy says any occurrence, and spans that begin inside a word."""
    text = "Ohio and Ohio"
    entities = [entity(text, "Ohio", nth=1), entity(text, "hi")]
    assert read_back(get(name), text, entities) == sorted(entities)


@pytest.mark.parametrize("answer", ["Ohio and @@Ohio##, Ohio", "\n Ohio and @@Ohio##, Ohio", "Ohio and @@Ohio##,"])
def test_copies_keep_places(answer: str) -> None:
    """Space before a copy, or a copy that breaks off, does not move its marks to another occurrence."""
    text = "Ohio and Ohio, Ohio"
    assert get("gpt-ner").parse(answer, text, ("LOC",), TASK).entities == (entity(text, "Ohio", nth=1),)
    indented = get("gpt-ner").parse(answer, "  " + text, ("LOC",), TASK)
    assert [e.start for e in indented.entities] == [11]


@pytest.mark.parametrize(
    ("name", "labels", "answer"),
    [
        ("json", TYPES, '{"LOC":["Columbus","Ohio"],"PER":["Columbus"]}'),
        ("inline", TYPES, "[Columbus|LOC] is a city in [Ohio|LOC]."),
        ("mrc", ("LOC",), "Columbus\nOhio"),
        ("mrc", ("ORG",), "none"),
        ("gpt-ner", ("LOC",), "@@Columbus## is a city in @@Ohio##."),
        ("gpt-ner", ("ORG",), TEXT),
    ],
)
def test_answers_word_for_word(name: str, labels: tuple[str, ...], answer: str) -> None:
    """The answers of the published examples; types in task order, whatever the order given."""
    entities = [entity(TEXT, "Columbus", "PER"), entity(TEXT, "Ohio"), entity(TEXT, "Columbus")]
    assert get(name).answer(TEXT, entities, labels, TASK) == answer


def test_nothing_word_for_word() -> None:
    """What each format says when there is nothing."""
    zh = TASKS["zh"]
    assert get("json").answer(TEXT, [], TYPES, TASK) == "{}"
    assert get("inline").answer(TEXT, [], TYPES, TASK) == "none"
    assert get("inline").answer(TEXT, [], TYPES, zh) == "无"
    assert get("mrc").answer("none of it", [], ("LOC",), TASK) == "nothing"
    assert get("mrc").answer("无锡没有地铁", [], ("LOC",), zh) == "无实体"
    assert get("mrc").answer("nothing, NONE, no entity", [], ("LOC",), TASK) == "none0"


READ: list[tuple[str, str, list[str], list[Ungrounded], Status]] = [
    ("json", '```json\n{"LOC": ["Ohio"]}\n```\nDone {see above}.', ["Ohio"], [], Status.OK),
    ("json", 'In {braces}: {"LOC":["Ohio"],"LOC":["Columbus"]}', ["Columbus", "Ohio"], [], Status.OK),
    ("json", '{"LOC":"Ohio","PER":null,"ORG":[]}', ["Ohio"], [], Status.OK),
    ("json", '{"LOC":["Columbus","Oh', ["Columbus"], [], Status.TRUNCATED),
    ("json", '{"LOC":["Columbus"],"LOC":["Ohio"],"P', ["Columbus", "Ohio"], [], Status.TRUNCATED),
    ("json", '{"LOC":["Columbus" "Ohio"]}', [], [], Status.MALFORMED),
    ("json", '["Columbus"]', [], [], Status.MALFORMED),
    ("json", "", [], [], Status.MALFORMED),
    ("json", '{"CITY":["Ohio"]}', [], [Ungrounded("Ohio", "CITY", "unknown type")], Status.OK),
    ("json", '{"LOC":[{"a":1}]}', [], [Ungrounded("{'a': ['1']}", "LOC", "not a mention")], Status.OK),
    ("json", '{"LOC":[1984]}', [], [Ungrounded("1984", "LOC", "not in text")], Status.OK),
    ("inline", "[Columbus|LOC] is a city in [Ohio|LOC", ["Columbus"], [], Status.TRUNCATED),
    ("inline", "[Columbus|LOC is a city in [Ohio|LOC].", ["Ohio"], [], Status.OK),
    ("inline", "[Columbus|LOC] was a town in [Ohio|LOC].", ["Columbus", "Ohio"], [], Status.OK),
    ("inline", "[Columbus|CITY] is a city in Ohio.", [], [Ungrounded("Columbus", "CITY", "unknown type")], Status.OK),
    ("inline", "[Kansas|LOC]", [], [Ungrounded("Kansas", "LOC", "not in text")], Status.OK),
    ("inline", "None.", [], [], Status.OK),
    ("inline", TEXT, [], [], Status.OK),
    ("inline", "Here is nothing to see.", [], [], Status.MALFORMED),
    ("mrc", "- Ohio\n2. Columbus", ["Columbus", "Ohio"], [], Status.OK),
    ("mrc", "<think>Iowa?\nNo.</think>\n```text\nOhio\n```", ["Ohio"], [], Status.OK),
    ("mrc", "The places are:\nOhio", ["Ohio"], [Ungrounded("The places are:", "LOC", "not in text")], Status.OK),
    ("json", '[{"LOC":["Ohio"]},{"LOC":["Columbus"]}]', ["Columbus", "Ohio"], [], Status.OK),
    ("json", '{"LOC":["Ohio"]}\n{"LOC":["Columb', ["Ohio"], [], Status.TRUNCATED),
    ("json", '<think>{"LOC":["Iowa"]}</think>{"LOC":["Ohio"]}', ["Ohio"], [], Status.OK),
    ("json", 'Is {"LOC":["Iowa"]} right?\n</think>\n{"LOC":["Ohio"]}', ["Ohio"], [], Status.OK),
    ("mrc", "The text names\nIowa\n</think>\n\nOhio", ["Ohio"], [], Status.OK),
    ("json", '{"LOC":["**Ohio**","\\"Columbus\\""]}', ["Columbus", "Ohio"], [], Status.OK),
    ("inline", "<think>[Iowa|LOC]</think>[Columbus|LOC] is a city in Ohio.", ["Columbus"], [], Status.OK),
    ("mrc", "\n Columbus \r\n\nOhio\n", ["Columbus", "Ohio"], [], Status.OK),
    ("mrc", "None.", [], [], Status.OK),
    ("mrc", " \n", [], [], Status.MALFORMED),
    ("gpt-ner", "  @@Columbus## is a city in Ohio.\n", ["Columbus"], [], Status.OK),
    ("gpt-ner", "@@Columbus## is a ci", ["Columbus"], [], Status.TRUNCATED),
    ("gpt-ner", "@@Columbus## is a city in @@Ohio.", ["Columbus"], [], Status.TRUNCATED),
    ("gpt-ner", "Columbus## is a city in @@Ohio##.", ["Ohio"], [], Status.OK),
    ("gpt-ner", "I found @@Ohio##", ["Ohio"], [], Status.OK),
    ("gpt-ner", "none", [], [], Status.MALFORMED),
]


@pytest.mark.parametrize(("name", "answer", "surfaces", "ungrounded", "status"), READ, ids=[x[1][:30] for x in READ])
def test_imperfect_answers(
    name: str, answer: str, surfaces: list[str], ungrounded: list[Ungrounded], status: Status
) -> None:
    """What a model may say instead, and what is made of it."""
    labels = TYPES if not get(name).per_type else ("LOC",)
    parsed = get(name).parse(answer, TEXT, labels, TASK)
    assert [e.text for e in parsed.entities] == surfaces
    assert list(parsed.ungrounded) == ungrounded
    assert parsed.status == status


@pytest.mark.parametrize(
    ("name", "answer", "faithful"),
    [
        ("json", 'Yes: {"LOC":["Ohio"]}', True),
        ("json", '```json\n{"LOC":["Ohio"]}\n```', True),
        ("json", '[{"LOC":["Ohio"]},\n{"LOC":["Columbus"]}]', True),
        ("json", '{"LOC":["Ohio"]}\n{"LOC":["Columbus"]}', True),
        ("json", '<think>Is {"LOC":["Iowa"]} right?</think>\n{"LOC":["Ohio"]}', True),
        ("json", 'With none it would be {}. Answer: {"LOC":["Ohio"]}', False),
        ("json", '{"LOC":["Ohio"]} and Columbus', False),
        ("json", 'Columbus, and {"LOC":["Ohio"]}', False),
        ("json", '{"LOC":["Ohio"]}{"LOC":["Columb', False),
        ("json", '["Columbus"] {"LOC":["Ohio"]}', False),
        ("json", '{"LOC":["\\"Ohio\\"","**Columbus**"]}', True),
        ("mrc", '"Ohio"\n- Columbus', True),
        ("mrc", "```\nOhio\n```", True),
        ("mrc", "Here they are:\nOhio", False),
        ("inline", "<think>Hm.</think>\n[Columbus|LOC] is a city in Ohio.", True),
        ("inline", "```\n[Columbus|LOC] is a city in Ohio.\n```", False),
        ("json", '{"LOC":["Ohio","Iowa"]}', False),
        ("mrc", "Ohio\nIowa", False),
        ("inline", "[Columbus|LOC] is a city in Ohio. ", True),
        ("inline", "[Columbus|LOC] is a big city in Ohio.", False),
        ("gpt-ner", "Columbus is a city in @@Ohio##.", True),
        ("gpt-ner", "Columbus is a city in @@Ohio###.", False),
    ],
)
def test_faithful(name: str, answer: str, faithful: bool) -> None:
    """Faithful is an answer made of the source alone."""
    assert get(name).parse(answer, TEXT, ("LOC",), TASK).faithful is faithful


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("json", '{"a":' * 20_000),
        ("json", '{"a":[' * 20_000),
        ("json", '{"' * 50_000),
        ("json", '{"LOC":["Ohio' + ' Ohio"' * 20_000),
        ("json", '{"LOC":["' + '\\"' * 50_000),
        ("json", '{"LOC":["Ohio"' + ',"Ohio"' * 20_000),
        ("inline", "[Ohio|" * 20_000),
        ("inline", "[Ohio|LOC]" * 10_000),
        ("mrc", "Ohio\n" * 20_000),
        ("gpt-ner", "@@" * 50_000),
    ],
    ids=lambda x: x[:16],
)
def test_a_looping_answer_is_read_in_time(name: str, answer: str) -> None:
    """What a model repeats for 100,000 characters is read in less than a second (more for a busy machine)."""
    started = time.process_time()
    parsed = get(name).parse(answer, TEXT, ("LOC",), TASK)
    assert time.process_time() - started < 5
    assert set(parsed.entities) <= {entity(TEXT, "Ohio")}


@pytest.mark.parametrize("name", ["inline", "gpt-ner"])
@pytest.mark.parametrize("change", [
    lambda answer: unicodedata.normalize("NFC", answer),
    lambda answer: unicodedata.normalize("NFC", answer).replace("\r\n", "\n").replace("“", '"').replace("”", '"'),
    lambda answer: answer.strip().replace("\u00ad", ""),
])  # fmt: skip
def test_a_copy_that_is_spelt_otherwise_keeps_places(name: str, change: Callable[[str], str]) -> None:
    """Tokenizers such as Qwen's normalise to NFC, models write plain quotes: the second of two equal names stays it."""
    text = unicodedata.normalize("NFD", "  Le café “Zoë” est fermé, dit Zo\u00adë.\r\nOui, Zoë.")
    form, labels = get(name), TYPES if name == "inline" else ("PER",)
    for start in (text.index("Zo"), text.rindex("Zo")):
        there = Entity(start, start + 4, "PER", text[start : start + 4])
        parsed = form.parse(change(form.answer(text, [there], labels, TASK)), text, labels, TASK)
        assert (parsed.entities, parsed.status, parsed.faithful) == ((there,), Status.OK, True)
    bare = form.parse(change(text), text, labels, TASK)
    assert (bare.entities, bare.status, bare.faithful) == ((), Status.OK, True)
    half = form.parse(change(text[:30]), text, labels, TASK)
    assert (half.entities, half.status, half.faithful) == ((), Status.TRUNCATED, False)


def test_unknown_format() -> None:
    """The message names the formats there are."""
    with pytest.raises(ValueError, match="format 'xml': there are json, inline, mrc, gpt-ner"):
        get("xml")


def test_an_mrc_answer_cut_off_in_a_mention_loses_only_that_mention():
    """`Columbus\nOh` cut in "Ohio" names Columbus; half a mention is no entity even where it occurs in the text."""
    task = Task(name="t", labels={"LOC": {}})
    format_ = get("mrc")
    parsed = format_.parse(format_.complete("Columbus\nOh"), "Oh, Columbus is in Ohio.", ("LOC",), task)
    assert [e.text for e in parsed.entities] == ["Columbus"]
