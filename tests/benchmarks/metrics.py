"""The shape of a checkout's package in numbers: `python tests/benchmarks/metrics.py [CHECKOUT ...]`.

The demo is left out. A box is a package or module directly under ner_batch, an arrow an import from one box to another.
"""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def box_of(parts: tuple[str, ...]) -> str:
    """The box a module lies in, by its path below ner_batch."""
    return parts[0].removesuffix(".py")


def measure(checkout: Path) -> dict[str, str]:
    """Figures by name."""
    package = checkout / "ner_batch"
    files = [f for f in package.rglob("*.py") if f.relative_to(package).parts[0] != "demo"]
    lines, functions, definitions, private = [], [], 0, 0
    arrows: set[tuple[str, str]] = set()
    for file in files:
        text = file.read_text(encoding="utf-8")
        lines.append(len(text.splitlines()))
        here = box_of(file.relative_to(package).parts)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, DEFINITIONS):
                definitions += 1
                private += node.name.startswith("_") and not node.name.startswith("__")
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                functions.append((node.end_lineno or 0) - node.lineno + 1)
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                parts = name.split(".")
                if parts[0] == "ner_batch" and len(parts) > 1 and parts[1] not in {here, "demo"}:
                    there = package / parts[1]
                    if there.is_dir() or there.with_suffix(".py").is_file():
                        arrows.add((here, parts[1]))
    boxes = {box_of(f.relative_to(package).parts) for f in files} - {"__init__", "__main__"}
    return {
        "files": f"{len(files)}",
        "lines": f"{sum(lines):,}",
        "longest file": f"{max(lines)}",
        "function lines, median / longest": f"{statistics.median(functions):.0f} / {max(functions)}",
        "definitions per 100 lines": f"{100 * definitions / sum(lines):.1f}",
        "private definitions": f"{private}",
        "boxes / arrows": f"{len(boxes)} / {len({(a, b) for a, b in arrows if a in boxes})}",
        "README bytes": f"{(checkout / 'README.md').stat().st_size:,}",
    }


def main() -> None:
    """A column per checkout."""
    checkouts = [Path(argument) for argument in sys.argv[1:]] or [Path(__file__).parents[2]]
    columns = [measure(checkout) for checkout in checkouts]
    for name in columns[0]:
        print("| " + " | ".join([name, *(column[name] for column in columns)]) + " |")


if __name__ == "__main__":
    main()
