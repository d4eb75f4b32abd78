"""Writes docs/files.md: every file of the project with the first line of its own docstring. `python docs/files.py`."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("jobs", "cluster", "ner_batch", "tests", "docs")


def first_sentence(path: Path) -> str:
    """What a file says of itself: a Python docstring's first line, or the comment that a YAML file begins with."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return text.partition("\n")[0].removeprefix("#").strip() if text.startswith("#") else ""


def files_page() -> str:
    """The page. Files are those that git knows, the demo's built files left out."""
    names = subprocess.run(
        ["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    described = [name for name in names if name.endswith((".py", ".yaml")) and "/files/" not in name]
    lines = ["# Files", "", "Written by `python docs/files.py` from each file's own first line.", ""]
    folder = ""
    for name in sorted(described, key=lambda name: (FOLDERS.index(name.partition("/")[0]), Path(name).parent, name)):
        path = ROOT / name
        if not path.is_file():
            continue
        if (parent := path.parent.relative_to(ROOT).as_posix()) != folder:
            folder = parent
            lines += ["", f"## {folder}/", ""] if len(lines) > 4 else [f"## {folder}/", ""]
        if path.name == "__init__.py":
            lines += [f"{first_sentence(path)}", ""] if path.stat().st_size > 1 else []
        else:
            lines.append(f"- `{path.name}`: {first_sentence(path)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "files.md").write_text(files_page(), encoding="utf-8")
