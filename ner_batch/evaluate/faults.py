"""What is wrong with input rows: counted by kind, with the first few named; adds up over shards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Faults:
    """By (what, remedy): how many rows, and the first of them by name. ``a + b`` is what both have found."""

    found: Mapping[tuple[str, str], tuple[int, tuple[str, ...]]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.found)

    def __add__(self, other: Faults) -> Faults:
        both = dict(self.found)
        for kind, (count, names) in other.found.items():
            before, known = both.get(kind, (0, ()))
            both[kind] = (before + count, tuple(sorted({*known, *names})[:SHOWN]))
        return Faults(both)

    def lines(self) -> list[str]:
        """One line for each kind of fault."""
        return [
            f"{what}: {', '.join(names)}{f' and {count - len(names):,} more' if count > len(names) else ''}; {remedy}"
            for (what, remedy), (count, names) in sorted(self.found.items())
        ]


def fault(what: str, remedy: str, count: int, names: Iterable[object]) -> Faults:
    """A fault of ``count`` rows, some of them named; none where the count is 0."""
    return Faults({(what, remedy): (count, tuple(sorted(map(str, islice(names, SHOWN)))))}) if count else Faults()
