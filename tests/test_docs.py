"""The documentation is true: its commands, configs, Python and links hold; its figures are those of the tables.

What stands right before a block of code, in an HTML comment that no reader sees, says how it is checked:

- nothing: bash is parsed (verbs, options, files, settings), Python is run, text is an answer that a command gave;
- ``not run: REASON``: Python is compiled, other bash than this file knows is passed over, YAML only parsed;
- ``file: PATH (KIND)``: YAML that the reader saves there; it loads, and commands of the page may name it;
- ``part of: PATH``: YAML that goes into that shipped config; both together load.

Blocks of Python of one page run one after another in one folder.
"""

import contextlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
import yaml
from typer.testing import CliRunner

from ner_batch.cli import app
from ner_batch.config import Config, load, read_yaml
from ner_batch.data import Entity, Prediction, predictions_table
from ner_batch.encoder.settings import TrainEncoderConfig
from ner_batch.evaluate.settings import EvaluateConfig
from ner_batch.experiments.settings import AblateConfig
from ner_batch.extraction.settings import ExtractConfig
from ner_batch.jobs.index import IndexConfig
from ner_batch.task import load_task
from ner_batch.train.settings import TrainConfig

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
KINDS: dict[str, type[Config]] = {
    "ablate": AblateConfig,
    "doctor": ExtractConfig,
    "evaluate": EvaluateConfig,
    "extract": ExtractConfig,
    "index": IndexConfig,
    "train": TrainConfig,
    "train-encoder": TrainEncoderConfig,
}
VERBS = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FENCE = re.compile(r"(?:<!-- ([^\n]*?) -->\n)?^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"(not run|file|part of): (\S.*)")
LINK = re.compile(r"(?<!`)\[[^\]\[]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: Path
    line: int
    language: str
    mark: str
    """`not run`, `file`, `part of`, or nothing."""
    about: str
    """What the mark says: a reason or a path."""
    text: str

    @property
    def place(self) -> str:
        """For a message."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page; comments before them that are no marks count for nothing."""
    text, blocks = page.read_text(encoding="utf-8"), []
    for fence in FENCE.finditer(text):
        comment, indent, language, body = fence.groups()
        mark, about = found.groups() if (found := MARK.fullmatch(comment or "")) else ("", "")
        body = re.sub(f"^{indent}", "", body, flags=re.MULTILINE)
        blocks.append(Block(page, text.count("\n", 0, fence.start(2)) + 1, language, mark, about, body))
    assert len(blocks) * 2 == len(re.findall(r"^ *```", text, re.MULTILINE)), f"{page.name}: a block is not closed"
    return blocks


BLOCKS = {page: blocks_of(page) for page in PAGES}
ALL = [block for blocks in BLOCKS.values() for block in blocks]
# README's own lines, which has no marks: what stands in place of one, by how the block begins.
ELSEWHERE = {
    "import ray\n": "tests/test_extract_job.py runs it on a tiny model",
    "from ner_batch import Task, extract\n": "tests/test_api_page.py does",
}
LIBRARIES = {"pd": "pandas", "pl": "polars", "duckdb": "duckdb"}


# Written by scripts out of the code, whose docstrings' examples have tests of their own (test_api_page, test_cli_docs).
GENERATED = ("api.md", "cli.md", "files.md")


def prose(page: Path) -> str:
    """A page without its blocks and comments."""
    return re.sub(r"<!--.*?-->", "", FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The commands of a block of bash, as words, without `$ ` before, comments behind, and where what they print goes."""
    split: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        split.append([])
        for word in lexer:
            if set(word) <= set("|&;()"):
                split.append([])
            elif set(word) <= set("<>&"):
                lexer.get_token()
            else:
                split[-1].append(word)
    return [words for words in split if words]


def check_verb(words: list[str], folder: Path) -> None:
    """A `ner-batch` command without its first word: verb, options and their values, config file and overrides."""
    name, *arguments = words
    verb = VERBS.commands[name]
    if arguments == ["--help"]:
        return
    if name == "init" and "--input" not in arguments:
        return  # it asks
    if name == "init":
        with contextlib.chdir(folder):
            done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        return
    given = verb.make_context(name, arguments).params
    config = given.get("config_file")
    if name not in KINDS or str(config or "-") == "-":
        return
    path = folder / config if (folder / config).is_file() else ROOT / config
    load(KINDS[name], path, given["overrides"] or ())


def check_command(words: list[str], folder: Path) -> bool:
    """Check a command of a page; False where it is of a kind that is not known here."""
    if words[0].endswith("ner-batch"):
        check_verb(words[1:], folder)
    elif words[0] == "make":
        assert next(word for word in words[1:] if "=" not in word) in TARGETS
    elif words[:3] == ["ray", "job", "submit"]:
        python, script, *arguments = words[words.index("--") + 1 :]
        assert python == "python"
        assert (ROOT / script).is_file()
        check_verb([Path(script).stem.replace("_", "-"), *arguments], ROOT)
    elif words[0].endswith(("python", "pytest")) and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file(), words[1]
    elif words[0] == "$EDITOR":
        assert all((folder / name).is_file() or (ROOT / name).is_file() for name in words[1:])
    elif words[:2] == ["kubectl", "apply"] or words[:2] == ["ray", "up"]:
        assert (ROOT / words[-1]).is_file()
    else:
        return False
    return True


@pytest.fixture(params=PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def page(request):
    """Every page in turn."""
    return request.param


def save_files(page: Path, folder: Path) -> None:
    """What the page has its reader save."""
    for block in BLOCKS[page]:
        if block.mark == "file":
            path = folder / block.about.split(" (")[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")


def test_every_block_is_of_a_kind_that_is_checked():
    """A language that nothing checks, and a mark without a meaning here, would pass unseen."""
    for block in ALL:
        assert block.language in {"bash", "yaml", "python", "text"}, block.place
        assert block.mark in {"", "not run"} or block.language == "yaml", block.place
        if block.language == "yaml":
            assert block.mark, f"{block.place}: say before it whether it is a file or part of one"


def test_bash(page, tmp_path):
    """Every command of a page exists, with its options; its configs load with the overrides."""
    save_files(page, tmp_path)
    for block in BLOCKS[page]:
        folder = tmp_path
        shell = block.language == "bash"
        text = block.text if shell else "\n".join(re.findall(r"^\$ .*(?:\\\n.*)*", block.text, re.MULTILINE))
        for words in commands(text) if shell or block.language == "text" else ():
            if words[0] == "cd":
                folder /= words[1]
                assert folder.is_dir(), f"{block.place}: {folder}"
                continue
            try:
                known = check_command(words, folder)
            except Exception as error:
                error.add_note(f"{block.place}: {' '.join(words)}")
                raise
            assert known or block.mark, f"{block.place}: {words[0]}: nothing checks it: mark the block `not run`"


def test_commands_in_sentences(page, tmp_path):
    """`ner-batch ...` and `python FILE` between backticks: whole commands as above, of others the verb and the options."""
    save_files(page, tmp_path)
    if page.name in GENERATED:
        return
    for code in re.findall(r"(?<!`)`([^`]*(?:\bner-batch|\bpython [a-z]+/)[^`]*)`", prose(page)):
        words = shlex.split(code.replace("\n", " "))
        if "python" in words:
            assert (ROOT / words[words.index("python") + 1]).is_file(), f"{page.name}: {code}"
        if "ner-batch" not in words or len(words) == words.index("ner-batch") + 1:
            continue
        name, *arguments = words[words.index("ner-batch") + 1 :]
        if name.startswith("-") or name == "VERB":
            continue
        assert name in VERBS.commands, f"{page.name}: {code}"
        if any("..." in word or word.isupper() for word in arguments) or not arguments:
            options = {option for parameter in VERBS.commands[name].params for option in parameter.opts}
            assert {word for word in arguments if word.startswith("--")} <= options, f"{page.name}: {code}"
        else:
            check_verb([name, *arguments], tmp_path)


def test_yaml(page, tmp_path):
    """A file loads as what it says it is; a part loads within the config it is a part of."""
    save_files(page, tmp_path)
    for block in BLOCKS[page]:
        if block.language != "yaml":
            continue
        if block.mark == "file":
            name, kind = re.fullmatch(r"(\S+) \((\S+)\)", block.about).groups()
            load_task(str(tmp_path / name)) if kind == "task" else load(KINDS[kind], tmp_path / name)
        elif block.mark == "part of":
            values, fragment = yaml.safe_load((ROOT / block.about).read_text()), yaml.safe_load(block.text)
            if "tasks" in fragment:
                values = {key: values[key] for key in ("input", "output", "engine")}
            for key, value in fragment.items():
                together = isinstance(value, dict) and isinstance(values.get(key), dict)
                values[key] = {**values[key], **value} if together else value
            (tmp_path / "whole.yaml").write_text(yaml.safe_dump(values))
            kinds = [kind for kind in KINDS if Path(block.about).stem.startswith(kind)]
            load(KINDS[max(kinds, key=len)], tmp_path / "whole.yaml")
        else:
            (tmp_path / "alone.yaml").write_text(block.text)
            read_yaml(tmp_path / "alone.yaml")


def write_an_output(folder: Path) -> None:
    """`entities/`, as `extract` writes it: what the README's lines for pandas, Polars and DuckDB read."""
    table = predictions_table([Prediction((Entity(0, 5, "CITY", "Paris"),))]).append_column("doc_id", [["a"]])
    (folder / "entities").mkdir()
    pq.write_table(table, folder / "entities" / "part.parquet")


def test_python(page, tmp_path, monkeypatch):
    """Blocks run, one after another in one folder; those that are marked compile."""
    blocks = [block for block in BLOCKS[page] if block.language == "python" and page.name not in GENERATED]
    names: dict[str, object] = {"__name__": "__main__"}
    save_files(page, tmp_path)
    (tmp_path / "ner_batch").symlink_to(ROOT / "ner_batch")
    monkeypatch.chdir(tmp_path)
    if any("pl." in block.text for block in blocks):
        names |= {name: pytest.importorskip(package) for name, package in LIBRARIES.items()}
        write_an_output(tmp_path)
    for block in blocks:
        code = compile("\n" * block.line + block.text, str(block.page), "exec")
        if not block.mark and not block.text.startswith(tuple(ELSEWHERE)):
            exec(code, names)


def anchors_of(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = [
        re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", line)
        for line in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    ]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_links(page):
    """Every link inside of the repository leads to a file and a heading that are there."""
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = page if not name else (page.parent / name)
        assert place.exists(), f"{page.name}: {target}: no such file"
        if anchor:
            assert anchor in anchors_of(place), f"{page.name}: {target}: no such heading"


def test_the_index_names_every_page():
    """docs/README.md leads to every page of the folder."""
    named = set(LINK.findall((ROOT / "docs" / "README.md").read_text()))
    reports = {"ablation-resume.md", "ablation-weibo.md", "curve-resume.md", "curve-genia_devtest.md"}
    missing = {path.name for path in (ROOT / "docs").glob("*.md")} - named - reports - {"README.md"}
    assert not missing


@pytest.mark.parametrize("name", ["choosing", "paper-gptner", "paper-packing", "paper-ye2024"])
def test_figures_are_those_of_the_tables(name):
    """What a page quotes to three digits stands in the tables it links to."""
    tables = "".join(path.read_text() for path in (ROOT / "docs").glob("[abc][beu][nlr]*.md"))
    quoted = set(re.findall(r"(?<![\d.])0\.\d{3}(?!\d)", (ROOT / "docs" / f"{name}.md").read_text()))
    assert quoted <= set(re.findall(r"(?<![\d.])0\.\d{3}(?!\d)", tables))
