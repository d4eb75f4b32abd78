"""Windows: they tile the text, fit the budget, are cut where a reader would cut, and cost time linear in the text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

import pyarrow.parquet as pq
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from real_data import real_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ner_batch.text.windows import Window, sentences, split

HOSTILE = [
    "One. Two! Three?", "Mr. X", "他说：“你好。”", "然后；走了，", "……", "\n", "\n\n", "\r\n", " ", "\t\u3000", ". ", '"', "“", "”)",
    "word", "猫", "𠀀", "é", "e\u0301", "\u0301", "\u0301" * 5, "👩\u200d🚀", "👍🏽", "🇫🇷", "🇩", "1\ufe0f\u20e3", "!\ufe0f", "\u200d", "นี่คือ", "कि",
    "क्षि", "각", "\u1100\u1161", "\u0600", "مرحبا؟ ", "。", "！\u0301", "<|im_end|>", "\x00", "\u2028", "a/b|c", "3.14", ",", ", ", "--", "x" * 40,
]  # fmt: skip
texts = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=5), max_size=40).map("".join)
# Characters of every break property, so that clusters are made that no list of examples has.
clusters = st.text(st.sampled_from("a\r\n \u0301\u200d\u0600👩🏽🇫ᄀ각ᆨक्षि!।。,\ufe0f"), max_size=60)


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """A byte-level BPE, as the models have."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        HOSTILE * 5, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    return made


def bpe(batch: Sequence[str]) -> list[int]:
    return [len(encoding.ids) for encoding in tokenizer().encode_batch_fast(list(batch))]


def characters(batch: Sequence[str]) -> list[int]:
    return [len(text) for text in batch]


def words(batch: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in batch]


def erratic(batch: Sequence[str]) -> list[int]:
    """Longer joined than apart, and shorter, by the letters at the ends."""
    return [len(text) + 3 * (text[:1] in " .\n") - 2 * (text[-1:] in " e") for text in batch]


COUNTS = {count.__name__: count for count in (bpe, characters, words, erratic)}


def boundaries(text: str) -> set[int]:
    return {0, *(match.end() for match in regex.finditer(r"\X", text))}


def check(texts: Sequence[str | None], windows: Sequence[Window]) -> None:
    """Offsets are exact, and between the windows there is nothing but white space."""
    rest = [list(text or "") for text in texts]
    last = (0, 0)
    for window in windows:
        text = texts[window.document]
        assert text is not None
        assert text[window.start : window.start + len(window.text)] == window.text
        assert not window.text.isspace()
        assert (window.document, window.start) >= last
        last = (window.document, window.start + len(window.text))
        rest[window.document][window.start : last[1]] = " " * len(window.text)
    assert all(not "".join(left).strip() for left in rest)


@given(st.lists(texts | clusters | st.none(), max_size=4), st.integers(1, 40), st.sampled_from(sorted(COUNTS)))
@example(["\u094d\U0001f3fd\u0915"], 1, "bpe")
@settings(max_examples=300, deadline=None)
def test_windows_tile_and_fit(documents: list[str | None], max_tokens: int, name: str) -> None:
    """For hostile text and any tokenizer: exact offsets, nothing lost, no cut inside a grapheme cluster, and no window
    over the budget that is not one cluster."""
    windows = split(documents, max_tokens, COUNTS[name])
    check(documents, windows)
    edges = [boundaries(text or "") for text in documents]
    for window in windows:
        assert {window.start, window.start + len(window.text)} <= edges[window.document]
        if COUNTS[name]([window.text])[0] > max_tokens:
            assert regex.fullmatch(r"\X", window.text)


@given(texts)
@settings(deadline=None)
def test_sentences_tile(text: str) -> None:
    """Joined they are the text."""
    assert "".join(sentences(text)) == text


def test_sentences_end_where_they_should() -> None:
    """At full stops and paragraphs, not at titles or line ends."""
    assert sentences("Dr. Mabuse came\nhome. He slept.\n\nMORNING\n\n他走了。她来了") == [
        "Dr. Mabuse came\nhome. ",
        "He slept.\n\n",
        "MORNING\n\n",
        "他走了。",
        "她来了",
    ]


@given(texts, st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_a_text_is_cut_the_same_alone_and_in_company(text: str, max_tokens: int) -> None:
    """Windows of a text do not depend on what else is in the batch."""
    alone = split([text], max_tokens, bpe)
    among = split(["One. Two.", text, None, "x" * 99], max_tokens, bpe)
    assert [(w.start, w.text) for w in among if w.document == 1] == [(w.start, w.text) for w in alone]


@pytest.mark.parametrize("nothing", [None, "", " \n\t\u3000\u2028"])
def test_an_empty_text_has_no_window(nothing: str | None) -> None:
    """Null, empty and white space give none, and nothing is counted."""
    assert split([nothing], 5, lambda _: pytest.fail("counted")) == []


def test_a_text_that_fits_is_one_window_counted_once() -> None:
    """Short texts are the common case: one call of the tokenizer for all, white space at the ends kept."""
    calls: list[int] = []

    def count(batch: Sequence[str]) -> list[int]:
        calls.append(len(batch))
        return words(batch)

    documents = [f" Text {n}. It fits.\n" for n in range(100)]
    assert split(documents, 4, count) == [Window(n, 0, text) for n, text in enumerate(documents)]
    assert calls == [100]


@pytest.mark.parametrize(
    "marked",
    [
        "It rained. |He ran! |“Why?” she said. |Then... |Nothing.",
        "“Go!” |“No.” |He went. |No. |That is all.",
        "Er sagte: „Nein.“ |„Doch!“ |Sie ging.",
        "He said (it was late.) |She left.",
        "Mr. Smith met Dr. J. R. Lee of the U.S. Army. |They talked.",
        "It cost 3.14 dollars. |See No. 5 and Fig. 2 of Vol. 3. |Good.",
        "Cats, e.g. Tom, or i.e. Felix. |Dogs.",
        "A heading\n\n|a paragraph that goes on\nin the next line\n \n\n|another",
        "1. First thing.\n|2. Second thing.\n|3. Third.",
        "It was _real_. |_Really._ |Yes.",
        "他来了。|她走了！|真的吗？|“真的。”|他说；|她笑。",
        "第一条　内容。\n\n|第二条　内容。",
        "他说Hello, World很大。|Then he left. |他走了。",
        "你好吗?|我很好!|再见",
        "هل أنت هنا؟ |نعم۔ |هو",
        "यह है। |वह है॥ |अच्छा",
        "he ended... and began again. |So.",
    ],
)
def test_sentences_end_where_a_reader_ends_them(marked: str) -> None:
    """With room for one sentence, each window is one; ``|`` marks the cuts."""
    sentences = marked.split("|")
    one_each = lambda batch: [1 if any(text in one for one in sentences) else 2 for text in batch]
    assert [window.text for window in split(["".join(sentences)], 1, one_each)] == sentences


@pytest.mark.parametrize(
    ("marked", "max_tokens"),
    [
        ("alpha beta\n|gamma delta, one two\n|epsilon", 22),
        ("one two three, |four five six; |seven eight", 16),
        ("一二三四，|五六七八、|九十", 6),
        ("alpha beta |gamma delta |epsilon", 12),
        ("alpha/|beta/|gamma", 6),
        ("👩\u200d🚀|👩\u200d🚀|👩\u200d🚀", 4),
        ("e\u0301e\u0301|e\u0301e\u0301|e\u0301", 4),
    ],
)
def test_a_long_sentence_is_cut_at_the_best_place(marked: str, max_tokens: int) -> None:
    """Lines before clause marks before white space before punctuation before grapheme clusters; budgets in characters."""
    assert [window.text for window in split([marked.replace("|", "")], max_tokens, characters)] == marked.split("|")


def test_windows_are_filled() -> None:
    """Sentences are joined as long as they fit: 2,000 sentences of 5 words make 100 windows of 100."""
    text = " ".join(f"Sentence number {n} says nothing." for n in range(2000))
    windows = split([text], 100, words)
    assert [len(window.text.split()) for window in windows] == [100] * 100


def test_a_blob_without_any_place_to_cut_is_cut_evenly() -> None:
    """200 KB of one word: windows within the budget, more than 80 % full on average."""
    windows = split(["QWxhZGRpbjpvcGVu" * 12_500], 1000, characters)
    assert max(len(window.text) for window in windows) <= 1000
    assert len(windows) <= 250


@pytest.mark.parametrize(
    "unit",
    [".", ". ", '."', '"', "?", "…", " ", "\n", "\n ", "\r\n", " \u0301", ",", ", ", '," ', "。", "a.", "A. ", "-", "\u0301", "👩\u200d", "x", "。”"],
)  # fmt: skip
def test_time_is_linear(unit: str) -> None:
    """Ten times as much of any one thing takes some ten times as long; backtracking would take a hundred times."""
    seconds = []
    for length in (30_000, 300_000):
        text = unit * (length // len(unit)) + "a"
        started = time.process_time()
        windows = split([text], 500, characters)
        seconds.append(time.process_time() - started)
        check([text], windows)
    assert seconds[1] < 40 * max(seconds[0], 0.02)  # the clock ticks in hundredths on some systems


def real_texts(name: str, documents: int) -> list[str]:
    texts = pq.read_table(real_file(f"{name}/docs.parquet"), columns=["text"])["text"].to_pylist()
    return sorted(texts, key=len)[:: max(1, len(texts) // documents)]


@pytest.mark.parametrize(
    ("name", "documents", "max_tokens"),
    [
        ("slice:raw_en_novels", 2, 400),
        ("slice:raw_zh_laws", 5, 300),
        ("raw_en_novels", 5, 400),
        ("raw_zh_laws", 60, 300),
    ],
)
def test_real_documents(name: str, documents: int, max_tokens: int) -> None:
    """Novels and laws: exact offsets, budget kept, at least 99 % of the windows end where a sentence or paragraph ends,
    and all that is counted is less than 2.5 times the text, in a few calls."""
    documents_read = real_texts(name, documents)
    counted: list[int] = []

    def count(batch: Sequence[str]) -> list[int]:
        counted.append(sum(map(len, batch)))
        return [len(regex.findall(r"\p{Han}|[^\s\p{Han}]{1,5}", text)) for text in batch]

    windows = split(documents_read, max_tokens, count)
    check(documents_read, windows)
    assert sum(counted) < 2.5 * sum(map(len, documents_read))
    assert len(counted) < 12
    assert max(count([window.text for window in windows])) <= max_tokens
    ended = [
        bool(regex.search(r"[.?!。！？；…:：\p{Pe}\p{Pf}\"'_*]\s*$|\n\s*\n\s*$", window.text)) for window in windows
    ]
    assert sum(ended) >= 0.99 * len(windows)
