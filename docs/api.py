"""Writes docs/api.md: the public names of `ner_batch` with signatures, fields and docstrings. `python docs/api.py`."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import ner_batch

ROOT = Path(__file__).resolve().parent.parent
NAMES = re.compile(r":(?:class|func):`(\w+)`")
PLAIN = {"Uri": "str", "Count": "int", "Share": "float"}  # types with limits, as a reader knows them
INTRO = """# Python API

Written by `python docs/api.py` from the code's own docstrings. A test runs every example on this page, on a tiny model
in the place of the one that is named.

Texts in, entities out, in this process:

```python
from ner_batch import Task, extract

task = Task("diseases", {"Disease": "illnesses and syndromes, by name"})
for prediction in extract(["Mutations of CFTR cause cystic fibrosis."], task, model="Qwen/Qwen3-4B-Instruct-2507"):
    print(prediction.entities)
```

A generator of any length is read as its predictions are taken; an `Extractor` keeps the model loaded.

- **No file is needed.** A task is written in code or read from a YAML file, with the same fingerprint; an adapter
  brings its own task, and its own base model where `model` is not given. A few annotated `Example`s are shown to the
  model with `demonstrations=examples`.
- **A wrong setting is an error before the model is loaded**, one line for each problem: `formt: unknown option (did you
  mean format?)`. Whatever stands in a job's YAML may be given, sections as dicts: `engine={"max_model_len": 8192}`,
  `windows={"max_tokens": 256}`.
- **A row's trouble is its `status`**, never an exception: `ok`, `empty`, `partial`, `truncated`, `malformed`,
  `too_long`, `failed`.
- **A plain script will do.** `if __name__ == "__main__":` is not needed, though on a GPU vLLM runs in a process of its
  own. On a CPU it runs in yours, where it starts in seconds; `engine={"in_process": True}` or `False` chooses.
- **Memory comes back** when an extractor is closed, dropped, or left by its `with`; on a GPU with vLLM's process.
- **Ray is not started.** Nothing of this package imports it here; vLLM does, where it is installed. Neither prints
  anything but errors, unless `NER_BATCH_VERBOSE=1` is set.
- **For a corpus take the job** (`ner-batch extract`): it goes on after a crash, and finds the row that kills an engine.
  Here such a row ends everything with an `EngineDeadError`.
"""


def api_page() -> str:
    """The page: groups and their order are those of the package's docstring."""
    _, table, _ = re.split(r"^=+  =+$\n?", inspect.getdoc(ner_batch) or "", flags=re.MULTILINE)[0:3]
    lines = [INTRO]
    for group in re.split(r"\n(?=\w)", table.strip("\n")):
        title, _, text = group.partition(" ")
        names = [name for name in dict.fromkeys(NAMES.findall(text)) if name in ner_batch.__all__]
        lines += [f"## {title.capitalize()}", ""]
        for name in names:
            lines += entry(name)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def entry(name: str) -> list[str]:
    """A public name: heading, signature, docstring, fields, methods."""
    value = getattr(ner_batch, name)
    node = definition(value)
    if isinstance(node, ast.FunctionDef):
        return [f"### {name}", "", *signature(name, node), *described(value), ""]
    lines = [f"### {name}", ""]
    if makers := [part for part in ast.walk(node) if isinstance(part, ast.FunctionDef) and part.name == "__init__"]:
        lines += signature(name, makers[0])
    lines += [*described(value), ""]
    classes = [c for c in reversed(value.__mro__) if c.__module__.startswith("ner_batch.") and c.__name__ != "Config"]
    public = [c for c in classes if c is not value and c.__name__ in ner_batch.__all__]
    own = [c for c in classes if not any(issubclass(other, c) for other in public)]
    rows = [row for c in own for row in fields(c)]
    lines += ["| field | type | default | |", "|---|---|---|---|", *rows, ""] if rows else []
    lines += [f"And the fields of `{c.__name__}`.\n" for c in public[-1:]]
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and not part.name.startswith("_") and is_told(part):
            member = inspect.getattr_static(value, part.name)
            if isinstance(member, property):
                lines += [f"#### {name}.{part.name}", "", *described(member), ""]
            else:
                lines += [f"#### {name}.{part.name}()", "", *signature(part.name, part), *described(member), ""]
    return lines


def definition(value: Any) -> ast.ClassDef | ast.FunctionDef:
    """The statement that defines a class or function."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(value))).body
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    return node


def is_told(function: ast.FunctionDef) -> bool:
    """Whether a method is for users: validators of pydantic are not."""
    return not any("validator" in ast.unparse(decorator) for decorator in function.decorator_list)


def signature(name: str, function: ast.FunctionDef) -> list[str]:
    """A call as it may be written, an argument a line where it is long."""
    arguments = ast.unparse(function.args).removeprefix("self, ").removeprefix("self")
    result = f" -> {ast.unparse(function.returns)}" if function.returns and function.name != "__init__" else ""
    parts = re.split(r", (?=\*|[a-z_]+: )", arguments)
    parts = [re.sub(r"^(\w+: .*?)=", r"\1 = ", part) for part in parts]
    call = f"{name}({', '.join(parts)}){result}"
    if len(call) > 100:
        call = f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){result}"
    return ["```python", f"{call}", "```", ""]


def fields(kind: type) -> list[str]:
    """Rows of a table of a class's fields, or of an enumeration's values."""
    source, rows = inspect.getsource(kind).splitlines(), []
    body = definition(kind).body
    for part, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            name, default = part.target.id, part.value
            annotation = ast.unparse(Unlimited().visit(part.annotation))
            type_name = re.sub(r"\w+", lambda word: PLAIN.get(word[0], word[0]), annotation)
        elif isinstance(part, ast.Assign) and ast.unparse(part.targets[0]).isupper():
            name, type_name, default = ast.unparse(part.targets[0]), "", part.value
        else:
            continue
        words = source[part.lineno - 1].partition("  # ")[2]
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            words = inspect.cleandoc(str(following.value.value)).replace("\n", " ")
        shown = "" if default is None else ast.unparse(default)
        shown = "" if "min_length" in shown else re.sub(r"Field\(default_factory=(\w+)\)", r"\1()", shown)
        cells = [f"`{cell}`" if cell else "" for cell in (name, type_name, shown)]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in [*cells, plain(words)]) + " |")
    return rows


class Unlimited(ast.NodeTransformer):
    """Types without what pydantic checks beside them."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """``T`` of ``Annotated[T, ...]``."""
        if ast.unparse(node.value) == "Annotated" and isinstance(node.slice, ast.Tuple):
            return node.slice.elts[0]
        return node


def described(value: Any) -> list[str]:
    """A docstring in Google's style as Markdown."""
    lines: list[str] = []
    section = ""
    for line in (inspect.getdoc(value) or "").splitlines():
        if line.rstrip(":") in ("Args", "Returns", "Raises", "Example") and line.endswith(":"):
            lines += ["```", ""] if section == "Example" else []
            section = line.rstrip(":")
            lines += [f"**{section}**", "", *(["```python"] if section == "Example" else [])]
        elif section == "Example":
            lines.append(line.removeprefix("    "))
        elif section in ("Args", "Raises") and (item := re.match(r"    (\w+): (.*)", line)):
            lines.append(f"- `{item[1]}`: {plain(item[2])}")
        else:
            lines.append(plain("  " + line.strip() if section in ("Args", "Raises") and line.strip() else line.strip()))
    if section == "Example":
        while not lines[-1]:
            lines.pop()
        lines += ["```"]
    return lines


def plain(text: str) -> str:
    """Roles and double backticks of reStructuredText as Markdown has them."""
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text).replace("``", "`")


if __name__ == "__main__":
    (ROOT / "docs" / "api.md").write_text(api_page(), encoding="utf-8")
