"""docs/api.md is current, and every example on it runs: on the tiny model, at the places that the page names."""

import doctest
import re
import runpy
from pathlib import Path

import pytest
from tiny import ADAPTER, BASE

import ner_batch

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_code_says():
    """docs/api.md is what `python docs/api.py` writes, and has every public name."""
    page = runpy.run_path(str(ROOT / "docs" / "api.py"))["api_page"]()
    assert page == PAGE, "run: python docs/api.py"
    assert set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)) == set(ner_batch.__all__) - {"__version__"}


def blocks(page):
    """Python blocks that can be run; a signature is none."""
    found = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return [block for block in found if re.match(r">>> |from |import ", block)]


@pytest.mark.engine
def test_examples_run(tmp_path, monkeypatch):
    """Those of the page, with what they print, and those of the README and the package's docstring that need no Ray."""
    monkeypatch.chdir(tmp_path)
    for place, target in (("Qwen/Qwen3-4B-Instruct-2507", BASE), ("adapters/news", ADAPTER)):
        Path(place).parent.mkdir()
        Path(place).symlink_to(target, target_is_directory=True)
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    examples = blocks(PAGE)
    assert len(examples) >= 5
    for number, block in enumerate(examples):
        if block.startswith(">>> "):
            runner.run(parser.get_doctest(block, {}, f"example {number}", "docs/api.md", None))
        else:
            exec(compile(block, "docs/api.md", "exec"), {})
    assert runner.summarize().failed == 0
    assert runner.tries >= 15
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (first, *_) = blocks(readme.partition("## Ten lines of Python")[2])
    assert first == examples[0]
    assert first.partition("\n\n")[2].strip() in re.sub(r"(?m)^    ", "", ner_batch.__doc__)
