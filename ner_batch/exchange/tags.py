"""Tokens with tags and spans of text, both ways: conlleval's rule for what tags mean, and tokens cut out of a text."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from ner_batch.data import Entity, Example
from ner_batch.exchange.files import Tokens, example
from ner_batch.text.boundaries import word_chunks

Span = tuple[int, int, str]
"""First token, token after the last, type."""

SCHEMES: Mapping[str, str] = {"BIO": "BIIB", "BIOES": "BIES", "BILOU": "BILU", "BMES": "BMES"}
"""The prefixes of an entity's first, inner and last token, and of the only one."""

TAG = re.compile(r"([BIOMESLUW])(?:[-_](.+))?")
HEADLESS, OPEN = "entities without their first tag, kept", "entities without their last tag, kept"
NESTED = "entities inside or across others, left out"
CUT = "tokens cut where an entity begins or ends"

_BEGINS, _ENDS = "BSUW", "ESUWL"  # B-egin, S-ingle, U-nit, W-hole; E-nd, L-ast
_VISIBLE = re.compile(r"\S+")


def has_end_tags(sequences: Iterable[Iterable[str]]) -> bool:
    """Whether tags are of a scheme that marks last tokens (BIOES, BILOU, BMES)."""
    return any(tag[0] in "EMSLUW" for tags in sequences for tag in tags)


def tagged_spans(tags: Sequence[str], counts: Counter[str], *, has_ends: bool) -> list[Span]:
    """The spans that tags mark, by conlleval's rule.

    An entity begins at B, S, U or W, and wherever a tag inside of one follows O, an end or another type. It ends at E,
    L, S, U or W, and wherever the next tag does not go on with it: an illegal sequence loses no token that was marked.
    Entities without a first tag are counted, and where the scheme ``has_ends`` those without a last one. A tag without
    a type marks an ``ENTITY``.
    """
    spans: list[Span] = []
    start: int | None = None
    kind = ""

    def close(end: int, *, ended: bool) -> None:
        nonlocal start
        if start is not None:
            spans.append((start, end, kind))
            counts[OPEN] += has_ends and not ended
        start = None

    for position, tag in enumerate(tags):
        match = TAG.fullmatch(tag)
        assert match
        prefix, type_ = match[1], match[2] or "ENTITY"
        if prefix == "O":
            close(position, ended=False)
            continue
        if prefix in _BEGINS or start is None or type_ != kind:
            close(position, ended=False)
            start, kind = position, type_
            counts[HEADLESS] += prefix not in _BEGINS
        if prefix in _ENDS:
            close(position + 1, ended=True)
    close(len(tags), ended=False)
    return spans


def without_iob1(counts: Counter[str], examples: Sequence[Example]) -> Counter[str]:
    """The counts of a whole file; in IOB1, where B stands only between two entities of a type, none lacks its first."""
    if 2 * counts[HEADLESS] > sum(len(one.entities) for one in examples):
        del counts[HEADLESS]
    return counts


def tags_of(length: int, spans: Iterable[Span], scheme: str) -> list[str]:
    """The tags of ``length`` tokens, by a scheme of :data:`SCHEMES`; spans do not overlap."""
    first_prefix, inner, last, only = list(SCHEMES[scheme])
    tags = ["O"] * length
    for first, after, type_ in spans:
        tags[first:after] = [f"{inner}-{type_}"] * (after - first)
        tags[first] = f"{first_prefix}-{type_}"
        if last != inner:
            tags[after - 1] = f"{last}-{type_}"
        if after - first == 1:
            tags[first] = f"{only}-{type_}"
    return tags


def choose_joiner(joiner: str | None, sentences: Iterator[Sequence[str]]) -> str:
    """What tokens are joined by: ``joiner``, else nothing or a space by the tokens' lengths."""
    if joiner is not None:
        return joiner
    lengths = Counter(min(len(token), 2) for sentence in sentences for token in sentence)
    return "" if lengths[1] > 9 * lengths[2] else " "


def example_of_tokens(id_: str, tokens: Sequence[str], joiner: str, spans: Sequence[Span], place: str) -> Example:
    """Tokens joined to a text, spans of tokens as spans of it."""
    text = joiner.join(tokens)
    starts = list(accumulate((len(token) + len(joiner) for token in tokens), initial=0))
    edges = [
        {"start": starts[first], "end": starts[after] - len(joiner), "type": type_} for first, after, type_ in spans
    ]
    return example(id_, text, edges, place)


def flat(entities: Sequence[Entity], counts: Counter[str]) -> list[Entity]:
    """Entities of which none overlaps another, in reading order: the longest stay, of equal ones the first.

    The others are counted.
    """
    disjoint: list[Entity] = []
    ends: list[int] = []
    for entity in sorted(entities, key=lambda entity: (entity.start - entity.end, entity.start, entity.type)):
        place = bisect_right(ends, entity.start)
        if place < len(disjoint) and disjoint[place].start < entity.end:
            continue
        disjoint.insert(place, entity)
        ends.insert(place, entity.end)
    counts[NESTED] += len(entities) - len(disjoint)
    return disjoint


def tokenize(
    text: str, entities: Sequence[Entity], how: Tokens, counts: Counter[str]
) -> tuple[list[tuple[int, int]], list[Span]]:
    """Tokens of a text as (start, end) in code points, and the entities as spans of tokens.

    ``how``: ``words`` and grapheme clusters of :mod:`ner_batch.text.boundaries` without white space, what white
    ``space`` parts, or ``characters``, which are code points, white ones too. A token is cut where an entity begins or
    ends inside of it, and counted. Entities begin and end with visible characters.
    """
    if how == "characters":
        pieces = [(position, position + 1) for position in range(len(text))]
    elif how == "space":
        pieces = [match.span() for match in _VISIBLE.finditer(text)]
    else:
        chunks = word_chunks(text)
        starts = accumulate(map(len, chunks), initial=0)
        pieces = [
            (start + match.start(), start + match.end())
            for start, chunk in zip(starts, chunks, strict=False)
            for match in _VISIBLE.finditer(chunk)  # a grapheme cluster may begin with a space
        ]
    edges = sorted({edge for entity in entities for edge in (entity.start, entity.end)})
    tokens: list[tuple[int, int]] = []
    for start, end in pieces:
        inner = edges[bisect_right(edges, start) : bisect_left(edges, end)]
        counts[CUT] += bool(inner)
        tokens += zip([start, *inner], [*inner, end], strict=True)
    firsts, lasts = [start for start, _ in tokens], [end for _, end in tokens]
    spans = [(bisect_left(firsts, entity.start), bisect_right(lasts, entity.end), entity.type) for entity in entities]
    return tokens, spans
