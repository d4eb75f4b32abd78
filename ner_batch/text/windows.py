"""Long texts cut into windows that fit a budget of tokens, at the best places there are.

Best first: the end of a sentence or paragraph, the end of a line, a clause mark, white space, other punctuation, and
last any grapheme cluster boundary (Unicode Standard Annex 29). The windows of a text tile it: joined they are the
text, so an entity at ``i`` of a window is at ``window.start + i`` of the document.

Token counts do not add up (a tokenizer may merge across a cut), so windows are packed by the counts of their sentences
and then counted themselves; one that came out too long is cut again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import regex

Count = Callable[[Sequence[str]], list[int]]
Span = tuple[int, int, int]  # document, start, end

_CLOSING = r"[\p{Pe}\p{Pf}\"'_*]"  # quotes, brackets, and the marks of Markdown and Gutenberg emphasis
_OPENING = r"[\p{Ps}\p{Pi}\p{Pf}\"'_*]"
_CLOSING_BEFORE_SPACE = r"[\p{Pe}\p{Pf}\p{Pi}\"'_*]"  # German closes with the mark that opens in English
_TITLES = (
    "Mr|Mrs|Ms|Mx|Messrs|Mme|Mlle|Dr|Prof|Rev|Fr|Hon|St|Mt|Ft|Gen|Col|Maj|Capt|Cpt|Lieut|Lt|Sgt|Cpl|Cmdr|Adm|Gov|Sen"
    r"|Rep|Pres|Supt|cf|vs|viz|approx|e\.g|i\.e"
)
_NUMBERED = "No|Nos|Fig|Figs|Eq|Vol|Vols|Ch|Sec|Art|Ref|pp|p|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec"
# A full stop that ends a sentence: not after a title, an initial or the number of a list item, nor before a number.
_STOP = rf"""
    (?: \.(?={_CLOSING}) | (?<! \b(?:\p{{Lu}}|{_TITLES}) | ^\d{{1,3}} ) \. (?! (?<=\b(?:{_NUMBERED})\.) \s++\d ) )
"""
# Every loop is possessive and a run of stops is entered at its first only, so hostile text costs linear time.
_SENTENCE = rf"""
    (?<![.?!…]) (?: [?!…] | {_STOP} ) [.?!…]*+ {_CLOSING_BEFORE_SPACE}*+ \s++ (?={_OPENING}*+[^\p{{Ll}}])
  | (?<![?!]) [?!]++ {_CLOSING}*+ (?={_OPENING}?[\p{{Han}}\p{{Hiragana}}\p{{Katakana}}])
  | [\p{{Sentence_Terminal}}；--.?!]++ {_CLOSING}*+ \s*+
  | \n [^\S\n]*+ \n \s*+
"""
_LEVELS = tuple(
    regex.compile(pattern, regex.VERSION1 | regex.VERBOSE | regex.MULTILINE)
    for pattern in (
        _SENTENCE,
        r"[\n\r\v\f\x85\u2028\u2029] \s*+",
        rf"[,;:] {_CLOSING}*+ \s++ | [，、：…—]++ {_CLOSING}*+ \s*+ | -{{2,}}+ \s*+",
        r"\s++",
        r"[\p{P}\p{S}]++",
        r"\X",
    )
)
_SENTENCE_END = _LEVELS[0]
_CONTINUES = regex.compile(
    r"(?<![\p{GCB=Control}\r\n])[\p{GCB=Extend}\p{GCB=SpacingMark}\p{GCB=ZWJ}]"
    r"|(?<=\p{InCB=Linker}[\p{InCB=Extend}\p{InCB=Linker}]*)\p{InCB=Consonant}"  # rule GB9c: Indic conjuncts
)
_LIKELY_FITS = 6  # characters to a token; English has some 4.3, so a longer text is not worth counting whole
_FILL = 0.9  # of the budget, for parts cut by length, so that few of them come out too long


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of document number ``document`` of the batch; ``start`` is its offset in code points."""

    document: int
    start: int
    text: str


def split(texts: Sequence[str | None], max_tokens: int, count: Count) -> list[Window]:
    """Cut texts into windows of at most ``max_tokens`` tokens, in order; ``count`` gets large batches of texts.

    White space that would be a window of its own is left out, so an empty text has none. Only a single grapheme
    cluster of more than ``max_tokens`` tokens exceeds the budget.
    """
    documents = [text or "" for text in texts]
    spans = [(i, 0, len(text)) for i, text in enumerate(documents) if text and not text.isspace()]
    short = [span for span in spans if span[2] <= _LIKELY_FITS * max_tokens]
    windows = {span for span, tokens in _counted(documents, short, count) if tokens <= max_tokens}
    long = [span for span in spans if span not in windows]
    sentences = [part for span in long for part in _tiles(span, _cuts(_SENTENCE_END, documents, span))]
    joined = _pack(_fit(documents, sentences, max_tokens, count), max_tokens)
    windows.update(span for span, _ in _fit(documents, joined, max_tokens, count))
    cut = (Window(document, start, documents[document][start:end]) for document, start, end in sorted(windows))
    return [window for window in cut if not window.text.isspace()]


def sentences(text: str) -> list[str]:
    """A text cut at the ends of its sentences and paragraphs; joined they are the text."""
    span = (0, 0, len(text))
    return [text[start:end] for _, start, end in _tiles(span, _cuts(_SENTENCE_END, [text], span))]


def _counted(documents: Sequence[str], spans: Sequence[Span], count: Count) -> Iterable[tuple[Span, int]]:
    tokens = count([documents[document][start:end] for document, start, end in spans]) if spans else []
    return zip(spans, tokens, strict=True)


def _fit(documents: Sequence[str], spans: Sequence[Span], max_tokens: int, count: Count) -> list[tuple[Span, int]]:
    """The spans with their token counts, in order; one over the budget is cut at its best places, about evenly."""
    fitting: list[tuple[Span, int]] = []
    while spans:
        parts: list[Span] = []
        for span, tokens in _counted(documents, spans, count):
            cuts: list[int] = []
            if tokens > max_tokens:
                step = (span[2] - span[1]) * min(max_tokens * _FILL / tokens, 0.5)
                spread = (_spread(_cuts(level, documents, span), span[1], step) for level in _LEVELS)
                cuts = next((places for places in spread if places), [])
            if cuts:
                parts += _tiles(span, cuts)
            else:
                fitting.append((span, tokens))
        spans = parts
    return sorted(fitting)


def _cuts(level: regex.Pattern[str], documents: Sequence[str], span: Span) -> Iterator[int]:
    """The places of one kind strictly inside a span, never inside a grapheme cluster."""
    document, start, end = span
    text = documents[document]
    for match in level.finditer(text, start, end):
        cut = match.end()
        if cut < end and (text[cut] < "\u0300" or not _CONTINUES.match(text, cut)):
            yield cut


def _spread(cuts: Iterator[int], start: int, step: float) -> list[int]:
    """Of the places to cut, those that leave parts of ``step`` code points or more; the last one if none does."""
    selection: list[int] = []
    cut = last = start
    for cut in cuts:
        if cut - last >= step:
            selection.append(cut)
            last = cut
    return selection or [cut][: cut > start]


def _tiles(span: Span, cuts: Iterable[int]) -> list[Span]:
    document, start, end = span
    return [(document, a, b) for a, b in pairwise([start, *cuts, end])]


def _pack(pieces: Sequence[tuple[Span, int]], max_tokens: int) -> list[Span]:
    """Neighbours joined as long as their token counts add up to the budget or less."""
    spans: list[Span] = []
    tokens_of_last = 0
    for (document, start, end), tokens in pieces:
        if spans and spans[-1][0] == document and tokens_of_last + tokens <= max_tokens:
            spans[-1] = (document, spans[-1][1], end)
            tokens_of_last += tokens
        else:
            spans.append((document, start, end))
            tokens_of_last = tokens
    return spans
