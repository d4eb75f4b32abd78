"""A text with its spans marked, and a list of those that marks cannot show."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ner_batch.evaluate.matching import Span

SURFACE = 60
"""Characters of a surface in a list."""


def nested(spans: Collection[Span]) -> tuple[list[Span], list[Span]]:
    """Spans that lie beside or in each other, outer ones first, and the rest: each crosses one of the former."""
    fits: list[Span] = []
    crosses: list[Span] = []
    around: list[Span] = []
    for span in sorted(set(spans), key=lambda span: (span[0], -span[1], span[2])):
        while around and around[-1][1] <= span[0]:
            around.pop()
        crossing = bool(around) and span[1] > around[-1][1]
        (crosses if crossing else fits).append(span)
        if not crossing:
            around.append(span)
    return fits, crosses


def pieces(text: str, spans: Collection[Span]) -> Iterator[tuple[str, Span | None]]:
    """The text with ``[Ohio|LOC]`` around each span that :func:`nested` lets be marked, in pieces.

    Each piece comes with the span that it marks, or else with the innermost one that it lies in.
    """
    around: list[Span] = []
    done = 0
    for span in [*nested(spans)[0], None]:
        while around and (span is None or around[-1][1] <= span[0]):
            yield text[done : around[-1][1]], around[-1]
            done = around[-1][1]
            yield f"|{around[-1][2]}]", around.pop()
        yield text[done : span[0] if span else None], around[-1] if around else None
        if span:
            done = span[0]
            around.append(span)
            yield "[", span


def marked(text: str, spans: Collection[Span]) -> str:
    """The text with marks around its spans, nested ones inside each other."""
    return "".join(piece for piece, _ in pieces(text, spans))


def unmarked(bad: dict[str, Any], side: str) -> list[tuple[str, bool]]:
    """What the marked text of a row in a report does not show of a side (gold, predicted), and whether it is right.

    Those are spans that cross another one, and errors beyond the excerpt; offsets are those of the whole text.
    """
    other = {tuple(span) for span in bad["predicted" if side == "gold" else "gold"]}
    _, crosses = nested([(start, end, type_) for start, end, type_ in bad[side]])
    found = []
    for start, end, type_ in crosses:
        surface, shift = bad["text"][start:end], bad["offset"]
        found.append((_named(start + shift, end + shift, type_, surface), (start, end, type_) in other))
    return found + [(_named(*span), False) for span in bad[f"{side}_beyond"]]


def _named(start: int, end: int, type_: str, surface: str) -> str:
    return f"[{shortened(surface)}|{type_}] at {start}-{end}"


def shortened(surface: str) -> str:
    """A surface that may be a whole document, for a list."""
    return surface if len(surface) <= SURFACE else f"{surface[: SURFACE - 3]}..."


def head(found: Sequence[tuple[str, bool]], most: int) -> list[tuple[str, bool]]:
    """The first ones of a list, errors before the others, and how many more there are."""
    first = sorted(found, key=lambda entry: entry[1])
    more = len(first) - most
    return first if more <= 0 else [*first[:most], (f"{more:,} more", first[most][1])]
