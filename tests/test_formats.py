"""Answer formats: prompts word for word, and answers as an inverse pair over hostile text."""

import json
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import TYPES, annotated, annotated_plainly, answers, texts

from ner_batch.data import Entity, Example, Parsed, Status, Ungrounded
from ner_batch.prompts.formats import NAMES, Format, load
from ner_batch.task import Task

hard = settings(max_examples=200, deadline=None)
each_format = pytest.mark.parametrize("form", [load(name) for name in NAMES], ids=NAMES)
TASK = Task(name="test", labels=list(TYPES))
TASKS = {
    "en": Task(
        name="news",
        language="en",
        labels={"LOC": "a place", "PER": {"definition": "a person", "question": "Who?"}, "ORG": None},
        guidelines="No titles.",
    ),
    "zh": Task(
        name="新闻",
        language="zh",
        labels={"LOC": "地名", "PER": {"definition": "人名", "question": "文中提到了谁?"}},
        guidelines="不含头衔。",
    ),
}
TEXT = "Columbus is a city in Ohio."


def entity(text: str, surface: str, label: str = "LOC", nth: int = 0) -> Entity:
    start = -1
    for _ in range(nth + 1):
        start = text.index(surface, start + 1)
    return Entity(start, start + len(surface), label, surface)


def there_and_back(form: Format, text: str, entities: list[Entity], task: Task = TASK) -> list[Parsed]:
    return [form.parse(form.answer(text, entities, x, task), text, x, task) for x in form.groups(task)]


def said(form: Format, text: str, entities: list[Entity], task: Task = TASK) -> list[Entity]:
    return sorted(e for parsed in there_and_back(form, text, entities, task) for e in parsed.entities)


@each_format
@pytest.mark.parametrize("task", [TASK, TASK.model_copy(update={"language": "zh"})], ids=["en", "zh"])
@hard
@given(annotated())
@example(("none", []))
@example(("无", [Entity(0, 1, "LOC", "无")]))
@example(("[a|LOC] @@b## {c}", [Entity(1, 2, "LOC", "a"), Entity(10, 11, "LOC", "b")]))
@example(("\u0600 a", [Entity(0, 2, "PER", "\u0600 ")]))
def test_parse_inverts_answer(form: Format, task: Task, case: tuple[str, list[Entity]]) -> None:
    """Whatever the text and the entities, the sayable ones come back, exactly and alone."""
    text, entities = case
    parsed = there_and_back(form, text, entities, task)
    assert sorted(e for p in parsed for e in p.entities) == list(form.sayable(text, entities))
    assert all((p.ungrounded, p.status, p.faithful) == ((), Status.OK, True) for p in parsed)


@each_format
@hard
@given(annotated_plainly())
def test_all_plain_entities_are_sayable(form: Format, case: tuple[str, list[Entity]]) -> None:
    """Disjoint, unique, whole words: nothing is lost in any format."""
    text, entities = case
    assert list(form.sayable(text, entities)) == sorted(entities) == said(form, text, entities)


@each_format
@hard
@given(annotated())
def test_sayable_is_a_part_and_stays(form: Format, case: tuple[str, list[Entity]]) -> None:
    """Sayable takes away, never adds, and has nothing to take away twice; scores are not said."""
    text, entities = case
    part = form.sayable(text, [Entity(e.start, e.end, e.type, e.text, 0.5, True) for e in entities])
    assert set(part) <= set(entities)
    assert form.sayable(text, part) == part


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
        for lost in parsed.ungrounded:
            (lost.text + lost.type).encode()
        if parsed.status == Status.MALFORMED:
            assert parsed == Parsed((), (), Status.MALFORMED, False)


@pytest.mark.parametrize("form", [load("json"), load("inline"), load("gpt-ner")], ids=["json", "inline", "gpt-ner"])
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
    kept = sorted(set(entities) - set(lost))
    assert list(load(name).sayable(NESTED, entities)) == kept == said(load(name), NESTED, entities)


@pytest.mark.parametrize("name", ["json", "mrc"])
def test_what_a_list_cannot_say(name: str) -> None:
    """A list has no places: a later occurrence alone, a span inside a word, a white edge. Order fixes some."""
    form, text = load(name), "Ohio and Iowa, not Ohio; New Ohioans"
    late = entity(text, "Ohio", nth=1)
    assert form.sayable(text, [late]) == ()
    assert form.sayable("Ohio State, Ohio", [Entity(12, 16, "LOC", "Ohio")]) == ()
    state = Entity(0, 10, "LOC", "Ohio State")
    assert form.sayable("Ohio State, Ohio", [state, Entity(12, 16, "LOC", "Ohio")]) == (
        state,
        Entity(12, 16, "LOC", "Ohio"),
    )
    assert form.sayable(text, [entity(text, "Iowa"), late]) == (entity(text, "Iowa"), late)
    assert form.sayable(text, [entity(text, "Ohio"), late]) == (entity(text, "Ohio"), late)
    assert form.sayable(text, [entity(text, "hio", nth=2)]) == ()
    assert form.sayable(text, [entity(text, "Iowa,"), entity(text, " Iowa")]) == (entity(text, "Iowa,"),)


@pytest.mark.parametrize("name", ["inline", "gpt-ner"])
def test_marks_have_places(name: str) -> None:
    """A copy says any occurrence, and spans that begin inside a word."""
    text = "Ohio and Ohio"
    entities = [entity(text, "Ohio", nth=1), entity(text, "hi")]
    assert said(load(name), text, entities) == sorted(entities)


@pytest.mark.parametrize("answer", ["Ohio and @@Ohio##, Ohio", "\n Ohio and @@Ohio##, Ohio", "Ohio and @@Ohio##,"])
def test_copies_keep_places(answer: str) -> None:
    """Space before a copy, or a copy that breaks off, does not move its marks to another occurrence."""
    text = "Ohio and Ohio, Ohio"
    assert load("gpt-ner").parse(answer, text, ("LOC",), TASK).entities == (entity(text, "Ohio", nth=1),)
    indented = load("gpt-ner").parse(answer, "  " + text, ("LOC",), TASK)
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
    assert load(name).answer(TEXT, entities, labels, TASK) == answer


def test_nothing_word_for_word() -> None:
    """What each format says when there is nothing."""
    zh = TASKS["zh"]
    assert load("json").answer(TEXT, [], TYPES, TASK) == "{}"
    assert load("inline").answer(TEXT, [], TYPES, TASK) == "none"
    assert load("inline").answer(TEXT, [], TYPES, zh) == "无"
    assert load("mrc").answer("none of it", [], ("LOC",), TASK) == "nothing"
    assert load("mrc").answer("无锡没有地铁", [], ("LOC",), zh) == "无实体"
    assert load("mrc").answer("nothing, NONE, no entity", [], ("LOC",), TASK) == "none0"


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
    ("mrc", "- Ohio", [], [Ungrounded("- Ohio", "LOC", "not in text")], Status.OK),
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


@pytest.mark.parametrize(("name", "answer", "found", "ungrounded", "status"), READ, ids=[x[1][:30] for x in READ])
def test_imperfect_answers(
    name: str, answer: str, found: list[str], ungrounded: list[Ungrounded], status: Status
) -> None:
    """What a model may say instead, and what is made of it."""
    labels = TYPES if len(load(name).groups(TASK)) == 1 else ("LOC",)
    parsed = load(name).parse(answer, TEXT, labels, TASK)
    assert [e.text for e in parsed.entities] == found
    assert list(parsed.ungrounded) == ungrounded
    assert parsed.status == status


@pytest.mark.parametrize(
    ("name", "answer", "faithful"),
    [
        ("json", 'Yes: {"LOC":["Ohio"]}', True),
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
    assert load(name).parse(answer, TEXT, ("LOC",), TASK).faithful is faithful


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
    parsed = load(name).parse(answer, TEXT, ("LOC",), TASK)
    assert time.process_time() - started < 5
    assert set(parsed.entities) <= {entity(TEXT, "Ohio")}


def roles(messages: list[Any]) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in messages]


COLUMBUS = Example("1", TEXT, (entity(TEXT, "Columbus"), entity(TEXT, "Ohio")))
BRACKETS = Example("2", "mail a@b [now]", (entity("mail a@b [now]", "now", "PER"),))
HEAD = "Find the named entities in the text.\n"
ZH_HEAD = "找出文本中的命名实体。\n"
LABELS = "Types:\nLOC: a place\nPER: a person\nORG\nNo titles.\n"

PROMPTS: list[tuple[str, str, tuple[str, ...], str, list[Example], list[tuple[str, str]]]] = [
    (
        "json",
        "en",
        ("LOC", "PER", "ORG"),
        "Anna sleeps.",
        [COLUMBUS, BRACKETS],
        [
            (
                "system",
                HEAD
                + LABELS
                + 'Answer in JSON like {"TYPE":["entity"]}: only types that occur, entities copied exactly, in text '
                "order; {} if there are none.",
            ),
            ("user", "Text:\nColumbus is a city in Ohio."),
            ("assistant", '{"LOC":["Columbus","Ohio"]}'),
            ("user", "Text:\nmail a@b [now]"),
            ("assistant", '{"PER":["now"]}'),
            ("user", "Text:\nAnna sleeps."),
        ],
    ),
    (
        "inline",
        "en",
        ("LOC", "PER", "ORG"),
        "Anna sleeps.",
        [COLUMBUS, BRACKETS],
        [
            (
                "system",
                HEAD + LABELS + "Copy the text with each entity as [entity|TYPE]; if there are none, answer none.",
            ),
            ("user", "Text:\nColumbus is a city in Ohio."),
            ("assistant", "[Columbus|LOC] is a city in [Ohio|LOC]."),
            ("user", "Text:\nmail a@b [now]\nWrite {entity|TYPE}"),
            ("assistant", "mail a@b [{now|PER}]"),
            ("user", "Text:\nAnna sleeps."),
        ],
    ),
    (
        "mrc",
        "en",
        ("PER",),
        "None sleeps.",
        [COLUMBUS, BRACKETS],
        [
            (
                "system",
                HEAD
                + "Types:\nPER: a person\nNo titles.\nAnswer the question with the entities, copied exactly, one per line, "
                "in text order; if there are none, answer none.",
            ),
            ("user", "Text:\nColumbus is a city in Ohio.\nWho?"),
            ("assistant", "none"),
            ("user", "Text:\nmail a@b [now]\nWho?"),
            ("assistant", "now"),
            ("user", "Text:\nNone sleeps.\nWho?\nIf there are none, answer nothing"),
        ],
    ),
    (
        "gpt-ner",
        "en",
        ("PER",),
        "Anna sleeps.",
        [COLUMBUS, BRACKETS],
        [
            (
                "system",
                HEAD
                + LABELS
                + "Copy the text with each entity of the type asked for as @@entity##; if there are none, copy it "
                "unchanged.",
            ),
            ("user", "Text:\nColumbus is a city in Ohio.\nType: PER"),
            ("assistant", "Columbus is a city in Ohio."),
            ("user", "Text:\nmail a@b [now]\nType: PER\nWrite <<entity>>"),
            ("assistant", "mail a@b [<<now>>]"),
            ("user", "Text:\nAnna sleeps.\nType: PER"),
        ],
    ),
    (
        "json",
        "zh",
        ("LOC", "PER"),
        "张三在北京。",
        [],
        [
            (
                "system",
                ZH_HEAD
                + "类型：\nLOC: 地名\nPER: 人名\n不含头衔。\n"
                + '用JSON回答，如{"类型":["实体"]}：只写出现的类型，实体照抄原文，按出现的顺序；没有则答{}。',
            ),
            ("user", "文本：\n张三在北京。"),
        ],
    ),
    (
        "inline",
        "zh",
        ("LOC", "PER"),
        "[张三]在北京。",
        [],
        [
            (
                "system",
                ZH_HEAD
                + "类型：\nLOC: 地名\nPER: 人名\n不含头衔。\n"
                + "照抄原文，把每个实体写成[实体|类型]；没有则答：无",
            ),
            ("user", "文本：\n[张三]在北京。\n写成{实体|类型}"),
        ],
    ),
    (
        "mrc",
        "zh",
        ("LOC",),
        "张三在无锡。",
        [],
        [
            (
                "system",
                ZH_HEAD
                + "类型：\nPER: 人名\n不含头衔。\n"
                + "用原文中的实体回答问题，逐字照抄，每行一个，按出现的顺序；没有则答：无",
            ),
            ("user", "文本：\n张三在无锡。\n文中有哪些地名?\n没有则答：没有"),
        ],
    ),
    (
        "gpt-ner",
        "zh",
        ("LOC",),
        "张三在#北京。",
        [],
        [
            (
                "system",
                ZH_HEAD
                + "类型：\nLOC: 地名\nPER: 人名\n不含头衔。\n"
                + "照抄原文，把所问类型的每个实体写成@@实体##；没有则原样照抄。",
            ),
            ("user", "文本：\n张三在#北京。\n类型：LOC\n写成<<实体>>"),
        ],
    ),
]


@pytest.mark.parametrize(
    ("name", "language", "labels", "text", "demonstrations", "expected"),
    PROMPTS,
    ids=[f"{x[0]}-{x[1]}" for x in PROMPTS],
)
def test_prompts_word_for_word(
    name: str,
    language: str,
    labels: tuple[str, ...],
    text: str,
    demonstrations: list[Example],
    expected: list[tuple[str, str]],
) -> None:
    """The whole prompt. Adapters are trained on these words: a change here makes them worthless."""
    assert roles(load(name).messages(text, labels, TASKS[language], demonstrations)) == expected


@pytest.mark.parametrize("name", ["mrc", "gpt-ner"])
@hard
@given(texts)
def test_types_of_one_text_share_their_prompt(name: str, text: str) -> None:
    """Per-type prompts are the same up to the end of the text, so a replica computes that once."""
    form = load(name)
    prompts = [form.messages(text, labels, TASKS["en"], []) for labels in form.groups(TASKS["en"])]
    assert len(prompts) == 3
    assert len({json.dumps(prompt[:-1]) for prompt in prompts}) == 1
    assert all(prompt[-1]["content"].startswith(f"Text:\n{text}\n") for prompt in prompts)


def test_unknown_format() -> None:
    """The message names the formats there are."""
    with pytest.raises(ValueError, match="format 'xml': there are json, inline, mrc, gpt-ner"):
        load("xml")


def test_an_mrc_answer_cut_off_in_a_mention_loses_only_that_mention():
    """`Columbus\nOh` cut in "Ohio" names Columbus; half a mention is no entity even where it occurs in the text."""
    task = Task(name="t", labels={"LOC": {}})
    format_ = load("mrc")
    parsed = format_.parse(format_.complete("Columbus\nOh"), "Oh, Columbus is in Ohio.", ("LOC",), task)
    assert [e.text for e in parsed.entities] == ["Columbus"]
