"""Prompts word for word, in every format and language, and what of a task file stands in them."""

import json
from pathlib import Path
from typing import Any

import pytest
from format_cases import TASKS, TEXT, entity, hard
from hypothesis import given
from strategies import texts

from ner_batch.data import Example
from ner_batch.prompts.builder import PromptBuilder
from ner_batch.prompts.chat import load_tokenizer
from ner_batch.prompts.formats import NAMES, get
from ner_batch.task import Label, Task, load_task

ROOT = Path(__file__).parent.parent


def roles(messages: list[Any]) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in messages]


COLUMBUS = Example("1", TEXT, (entity(TEXT, "Columbus"), entity(TEXT, "Ohio")))
BRACKETS = Example("2", "mail a@b [now]", (entity("mail a@b [now]", "now", "PER"),))
HEAD = "Find the named entities in the text.\n"
ZH_HEAD = "找出文本中的命名实体。\n"
LABELS = "Types:\nLOC: a place\nPER: a person\nORG\nNo titles.\n"
GUIDELINES = "No titles.\n"

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
                + GUIDELINES
                + "Answer the question with the entities, copied exactly, one per line, in text order; if there are "
                "none, answer none.",
            ),
            ("user", "Text:\nColumbus is a city in Ohio.\nPER: a person\nWho?"),
            ("assistant", "none"),
            ("user", "Text:\nmail a@b [now]\nPER: a person\nWho?"),
            ("assistant", "now"),
            ("user", "Text:\nNone sleeps.\nPER: a person\nWho?\nIf there are none, answer nothing"),
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
                + GUIDELINES
                + "Copy the text with each entity of the type asked for as @@entity##; if there are none, copy it "
                "unchanged.",
            ),
            ("user", "Text:\nColumbus is a city in Ohio.\nMark every PER entity (a person)."),
            ("assistant", "Columbus is a city in Ohio."),
            ("user", "Text:\nmail a@b [now]\nMark every PER entity (a person).\nWrite <<entity>>"),
            ("assistant", "mail a@b [<<now>>]"),
            ("user", "Text:\nAnna sleeps.\nMark every PER entity (a person)."),
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
                ZH_HEAD + "不含头衔。\n" + "用原文中的实体回答问题，逐字照抄，每行一个，按出现的顺序；没有则答：无",
            ),
            ("user", "文本：\n张三在无锡。\n文中有哪些LOC实体（地名）？\n没有则答：没有"),
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
                ZH_HEAD + "不含头衔。\n" + "照抄原文，把所问类型的每个实体写成@@实体##；没有则原样照抄。",
            ),
            ("user", "文本：\n张三在#北京。\n标出每个LOC实体（地名）。\n写成<<实体>>"),
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
    assert roles(get(name).messages(text, labels, TASKS[language], demonstrations)) == expected


@pytest.mark.parametrize("name", ["mrc", "gpt-ner"])
@hard
@given(texts)
def test_types_of_one_text_share_their_prompt(name: str, text: str) -> None:
    """Per-type prompts are the same up to the end of the text, so a replica computes that once."""
    form = get(name)
    prompts = [form.messages(text, labels, TASKS["en"], []) for labels in form.groups(TASKS["en"])]
    assert len(prompts) == 3
    assert len({json.dumps(prompt[:-1]) for prompt in prompts}) == 1
    assert all(prompt[-1]["content"].startswith(f"Text:\n{text}\n") for prompt in prompts)


def system_lines(name: str, labels: tuple[str, ...], task: Task) -> list[str]:
    return get(name).messages(TEXT, labels, task, [])[0]["content"].splitlines()


@pytest.mark.parametrize("name", ["mrc", "gpt-ner"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_type_asked_about_is_defined_beside_the_text(name: str, language: str) -> None:
    """Name and definition stand in the user turn, once, and no other type anywhere."""
    task = TASKS[language]
    for label in task.names:
        system, turn = (message["content"] for message in get(name).messages(TEXT, (label,), task, []))
        assert turn.count(task.definition(label)) == 1 or task.definition(label) == label.lower()
        others = [other for other in task.names if other != label]
        assert not any(f"{other}:" in system + turn or f" {other} " in system + turn for other in others)
    task = load_task(str(ROOT / "jobs" / "task.yaml"))  # of ORG the question is written, and leaves the definition out
    assert f"ORG: {task.definition('ORG')}\nWhich organisations" in get("mrc").turn(TEXT, ("ORG",), task)


@pytest.mark.parametrize("name", NAMES)
def test_questions_stand_in_mrc_prompts_alone(name: str) -> None:
    """What the task file's documentation says of `question` and `definition`."""
    plain = Task(name="t", labels={"LOC": "a place", "PER": "a person"})
    form, labels = get(name), get(name).groups(plain)[0]

    def prompt(**loc: str) -> str:
        task = plain.model_copy(update={"labels": {**plain.labels, "LOC": Label(**loc)}})
        return json.dumps(form.messages(TEXT, labels, task, []))

    assert ("Where?" in prompt(definition="a place", question="Where?")) is (name == "mrc")
    assert (prompt(definition="a place", question="Where?") != prompt(definition="a place")) is (name == "mrc")
    assert prompt(definition="a town") != prompt(definition="a place")


FINGERPRINTS = {
    "demo": {
        "json": "da0fbb6ef101c0b6",
        "inline": "94cb1937adcd0af9",
        "mrc": "b9779e88343ed4a9",
        "gpt-ner": "a4ef4da7d37cb66d",
    },
    "zh": {
        "json": "374ec028ff120c7a",
        "inline": "e2254ba9ef0716ae",
        "mrc": "ff64bdc8b7c3c93b",
        "gpt-ner": "27f1840fb134aa2e",
    },
}


@pytest.mark.parametrize("task_name", FINGERPRINTS)
def test_prompts_of_adapters_that_exist_are_valid(task_name: str) -> None:
    """The fingerprints of prompts as released: whatever changes one makes every adapter trained on such prompts useless."""
    files = ROOT / "tests" / "data" / "tiny"
    zh = Task(name="zh", language="zh", labels={"NAME": "人名", "ORG": "机构"})
    task = zh if task_name == "zh" else load_task(str(files / "task.yaml"))
    chat = load_tokenizer(str(files / "base"))
    fingerprints = {name: PromptBuilder(get(name), task, chat, 2048).fingerprint() for name in NAMES}
    assert fingerprints == FINGERPRINTS[task_name]
