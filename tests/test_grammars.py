"""Grammars of legal answers, compiled by llguidance as the engine does, on a real byte-level tokenizer."""

import json
import random
from collections.abc import Iterator
from functools import cache

import llguidance
import pytest
from hypothesis import example, given, settings
from strategies import PIECES, TYPES, annotated_plainly
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ner_batch.data import Entity, Status
from ner_batch.prompts.formats import MAX_GRAMMAR_CHARS, NAMES, Format, get
from ner_batch.task import Task

each_format = pytest.mark.parametrize("form", [get(name) for name in NAMES], ids=NAMES)
TASK = Task(name="test", labels=list(TYPES))
END = "<end of turn>"
ZH = TASK.model_copy(update={"language": "zh"})


@cache
def bpe() -> Tokenizer:
    """Byte-level BPE whose tokens run across words and marks."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, special_tokens=[END], show_progress=False)
    dice = random.Random(0)
    made.train_from_iterator(("".join(dice.choices(PIECES, k=8)) for _ in range(3000)), trainer)
    return made


@cache
def tokenizer() -> llguidance.LLTokenizer:
    """The same as the grammar engine sees it."""
    return llguidance.LLTokenizer(bpe().to_str(), eos_token=bpe().token_to_id(END))


def matcher(grammar: str) -> llguidance.LLMatcher:
    compiled = llguidance.LLMatcher.grammar_from_lark(grammar)
    assert llguidance.LLMatcher.validate_grammar(compiled, tokenizer()) == ""
    made = llguidance.LLMatcher(tokenizer(), compiled, log_level=0)
    assert not made.is_error(), made.get_error()
    return made


def accepts(grammar: str, answer: str) -> bool:
    tokens = bpe().encode(answer).ids
    made = matcher(grammar)
    return made.try_consume_tokens(tokens) == len(tokens) and made.is_accepting()


def allowed(made: llguidance.LLMatcher) -> list[int]:
    mask = int.from_bytes(made.compute_bitmask(), "little")
    return [i for i in range(tokenizer().vocab_size) if mask >> i & 1]


def walk(grammar: str, dice: random.Random) -> str:
    """An answer with every token chosen evenly among the allowed ones."""
    made, tokens = matcher(grammar), []
    while not made.is_stopped():
        token = dice.choice(allowed(made))
        assert made.consume_token(token), made.get_error()
        if token in tokenizer().eos_tokens:
            break
        tokens.append(token)
    return tokenizer().decode_bytes(tokens).decode()


def hostile(dice: random.Random) -> str:
    text = dice.choice(["", " "]).join(dice.choices(PIECES, k=dice.randint(1, 12)))
    return text if text.strip() else hostile(dice)


@each_format
@settings(max_examples=150, deadline=None)
@given(annotated_plainly())
@example(("none", [Entity(0, 4, "LOC", "none")]))
@example((" \u0301", []))
@example(("\u200b", []))
def test_the_grammar_accepts_the_answer(form: Format, case: tuple[str, list[Entity]]) -> None:
    """What a model is trained to say, it may say under the grammar; half an answer is not enough."""
    text, entities = case
    for task in (TASK, ZH):
        for labels in form.groups(task):
            answer, grammar = form.answer(text, entities, labels, task), form.grammar(text, labels, task)
            assert accepts(grammar, answer)
            assert not accepts(grammar, answer[:-1]) or form.name == "mrc"


@each_format
def test_random_walks_stay_in_the_source(form: Format) -> None:
    """300 answers chosen at random under the grammar: all end, all are faithful, every entity is in its source."""
    dice, found = random.Random(1), 0
    for i in range(300):
        text, task = hostile(dice), (TASK, ZH)[i % 2]
        labels = dice.choice(form.groups(task))
        answer = walk(form.grammar(text, labels, task), dice)
        parsed = form.parse(answer, text, labels, task)
        assert (parsed.ungrounded, parsed.status, parsed.faithful) == ((), Status.OK, True), (text, answer)
        assert all(text[e.start : e.end] == e.text and e.type in labels for e in parsed.entities)
        found += len(parsed.entities)
    assert found > 200


ILLEGAL = [
    ("json", '{"LOC":["Kansas"]}'),
    ("json", '{"LOC":["Ohio","Col"]}'),
    ("json", '{"LOC":[]}'),
    ("json", '{"LOC":[""]}'),
    ("json", '{"LOC":[" "]}'),
    ("json", '{"LOC":["Ohio "]}'),
    ("json", '{"PER":["Ohio"],"LOC":["Ohio"]}'),
    ("json", '{"LOC":["Ohio"],"LOC":["Ohio"]}'),
    ("json", '{"CITY":["Ohio"]}'),
    ("inline", "Columbus is a city in Ohio."),
    ("inline", "[Columbus|CITY] is a city in Ohio."),
    ("inline", "[Columbus|LOC] is a town in Ohio."),
    ("inline", "[Columbus|LOC is a city in Ohio."),
    ("inline", "[Columbus] is a city in Ohio."),
    ("inline", "[Columbus| LOC] is a city in Ohio."),
    ("inline", "[|LOC]Columbus is a city in Ohio."),
    ("inline", "[Columbus |LOC]is a city in Ohio."),
    ("inline", "[Colum|LOC]bus is a city in Ohio."),
    ("mrc", "Ohio\n"),
    ("mrc", "\nOhio"),
    ("mrc", "Ohio\nnone"),
    ("mrc", "Kansas"),
    ("mrc", "hio"),
    ("gpt-ner", "none"),
    ("gpt-ner", "@@Columbus is a city in Ohio."),
    ("gpt-ner", "@@Columbus## is a city in Ohio"),
    ("gpt-ner", "@@@@Columbus#### is a city in Ohio."),
    ("gpt-ner", "Columbus## is a city in @@Ohio."),
    ("gpt-ner", "@@##Columbus is a city in Ohio."),
]


@pytest.mark.parametrize(("name", "answer"), ILLEGAL)
def test_illegal_answers_are_refused(name: str, answer: str) -> None:
    """Foreign words, parts of words, empty and white mentions, unknown types, wrong order, broken pairs."""
    labels = TYPES if not get(name).per_type else ("LOC",)
    assert not accepts(get(name).grammar("Columbus is a city in Ohio.", labels, TASK), answer)


LEGAL = [
    ("json", "Angela Merkel met Tibor", '{"PER":["Angela Merkel","Tibor"],"ORG":["met"]}'),
    ("json", 'a "b"\\c\n', '{"LOC":["\\"b\\"\\\\c","a"]}'),
    ("mrc", "Angela Merkel met Tibor", "Tibor\nAngela Merkel"),
    ("mrc", "one\ntwo \\ three", "one\\ntwo\n\\\\ three"),
    ("inline", "张三李四", "[张三|PER][李四|PER]"),
    ("gpt-ner", "张三李四", "@@张三##@@李四##"),
    ("gpt-ner", "a@b #1", "<<a>>@b #<<1>>"),
]


@pytest.mark.parametrize(("name", "text", "answer"), LEGAL)
def test_legal_answers_are_accepted(name: str, text: str, answer: str) -> None:
    """Delimiters right after mentions, escapes, adjacent marks, other marks."""
    labels = TYPES if not get(name).per_type else ("LOC",)
    assert accepts(get(name).grammar(text, labels, TASK), answer)


@pytest.mark.parametrize("name", ["json", "mrc"])
def test_a_loop_comes_to_an_end(name: str) -> None:
    """No more than 64 mentions of one type of a text of fewer words."""
    open_, between, close = {"json": ('{"LOC":["', '","', '"]}'), "mrc": ("", "\n", "")}[name]
    grammar = get(name).grammar("Ohio", ("LOC",), TASK)
    assert accepts(grammar, open_ + between.join(["Ohio"] * 64) + close)
    assert not accepts(grammar, open_ + between.join(["Ohio"] * 65) + close)


@pytest.mark.parametrize("name", ["json", "mrc"])
def test_every_word_may_be_a_mention(name: str) -> None:
    """An attendance list loses nobody."""
    names = [f"Anna{i}" for i in range(300)]
    text = f"Present: {', '.join(names)}."
    people = [
        Entity(text.index(f"{name}{end}"), text.index(f"{name}{end}") + len(name), "LOC", name)
        for name, end in ((name, "," if name != names[-1] else ".") for name in names)
    ]
    assert accepts(get(name).grammar(text, ("LOC",), TASK), get(name).answer(text, people, ("LOC",), TASK))


def long_texts(size: int) -> Iterator[str]:
    dice = random.Random(size)
    yield ("Angela Merkel met Tibor in Paris, and then went to Berlin with José.\n" * size)[:size]
    yield ("张三和李四在北京大学读书，后来去了上海交通大学。" * size)[:size]
    yield "".join(dice.choices(PIECES, k=size))[:size]
    yield "\\" * size
    yield "aa " * (size // 3)


@each_format
@pytest.mark.parametrize("size", [500, 2000, MAX_GRAMMAR_CHARS])
def test_long_sources_compile(form: Format, size: int) -> None:
    """Up to the limit no text is too much for the compiler, the first mask, or the parser's own limits."""
    for text in long_texts(size):
        labels = form.groups(TASK)[0]
        assert allowed(matcher(form.grammar(text, labels, TASK)))


@each_format
def test_a_long_copy_is_accepted(form: Format) -> None:
    """Lexer limits hold over a whole answer, not only at its start."""
    text = "".join(f"Anna{i} met Tibor{i}. " for i in range(300)).strip()
    entities = [Entity(i, i + len(w), "LOC", w) for w in text.split() if w.startswith("Anna") for i in [text.index(w)]]
    labels = form.groups(TASK)[0]
    assert accepts(form.grammar(text, labels, TASK), form.answer(text, entities[:64], labels, TASK))


def test_json_answers_are_json() -> None:
    """Under the grammar every answer of the json format is JSON, quotes and control characters included."""
    dice = random.Random(2)
    for _ in range(50):
        json.loads(walk(get("json").grammar(hostile(dice) + "\x01\x0b\x7f", TYPES, TASK), dice))
