"""What CI promises: it runs what a person runs, every test has its marker, and nothing is skipped silently."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
TESTS = sorted(Path(__file__).parent.glob("test_*.py"))
MARKERS = {"engine", "ray", "slow"}
ENGINES = {"engine", "random_engine", "start_engine"}
"""Fixtures of conftest.py that start an engine."""


def recipe(target: str) -> str:
    """The commands of a target of the Makefile, with what it depends on before the first newline."""
    match = re.search(rf"^{target}:(.*\n(?:\t.*\n)*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert match, target
    return match[1]


def test_make_test_runs_all_tests() -> None:
    """Lint, the quick tests, and then exactly the tests that the quick ones leave out."""
    assert {"lint", "unit"} <= set(recipe("test").partition("\n")[0].split())
    quick, rest = (re.search(r'-m "(.*?)"', recipe(target)) for target in ("unit", "test"))
    assert quick
    assert rest
    assert set(quick[1].replace("not ", "").split(" and ")) == set(rest[1].split(" or ")) == MARKERS
    for tool in ("ruff check", "ruff format --check", "mypy", "lint-imports"):
        assert tool in recipe("lint")


def planned(venv: Path, *arguments: str) -> str:
    """What `make install` would do to an environment."""
    command = ["make", "--dry-run", "install", f"VENV={venv}", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_builds_of_vllm_share_no_environment(tmp_path: Path) -> None:
    """The CPU's torch satisfies the GPU's lock, and so would stay. What is installed stays until GPU says otherwise."""
    (tmp_path / ".installed-cpu.lock").touch()
    assert "Nothing to be done" in planned(tmp_path)
    assert planned(tmp_path, "GPU=1").startswith(f"rm -rf {tmp_path}\n")
    (tmp_path / ".installed-cpu.lock").rename(tmp_path / ".installed-gpu.lock")
    assert "Nothing to be done" in planned(tmp_path)
    assert planned(tmp_path, "GPU=").startswith(f"rm -rf {tmp_path}\n")
    (tmp_path / ".installed-gpu.lock").unlink()
    assert "rm -rf" not in planned(tmp_path)


def test_the_workflow_runs_what_a_person_runs() -> None:
    """The workflow calls .ci/run, which calls `make test`; its Pythons are those the package names."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    assert "bash .ci/run" in [step.get("run") for step in jobs["test"]["steps"]]
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    locked = next(step["with"]["python-version"] for step in jobs["test"]["steps"] if "with" in step)
    tested = {locked, *jobs["pythons"]["strategy"]["matrix"]["python-version"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {line.rpartition(" :: ")[2] for line in project["classifiers"] if re.search(r"Python :: 3\.\d", line)}
    assert tested == named
    assert project["requires-python"] == f">={min(named, key=lambda v: int(v[2:]))}"


def test_pre_commit_formats_as_ci_does() -> None:
    """Its ruff is the locked one: another would format, and complain, otherwise."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    version = next(repo["rev"] for repo in hooks if repo["repo"].endswith("/ruff-pre-commit")).removeprefix("v")
    assert f"ruff=={version}" in (ROOT / "requirements" / "cpu.lock").read_text(encoding="utf-8").splitlines()


def functions(path: Path) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions of a test file by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


def markers(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Markers of a test: its own and those of its whole file."""
    of_file = re.findall(r"^pytestmark = .*$", path.read_text(encoding="utf-8"), re.MULTILINE)
    words = " ".join([*of_file, *(ast.unparse(decorator) for decorator in node.decorator_list)])
    return set(re.findall(r"pytest\.mark\.(\w+)", words))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_what_starts_an_engine_is_marked(path: Path) -> None:
    """A test that takes a running engine, itself or through a fixture of its file, must not run among the quick ones."""
    there = functions(path)

    def starts(node: ast.FunctionDef | ast.AsyncFunctionDef, seen: frozenset[str] = frozenset()) -> bool:
        names = {argument.arg for argument in node.args.args} - seen
        return bool(names & ENGINES - there.keys()) or any(
            starts(there[name], seen | names) for name in names & there.keys()
        )

    tests = {name: node for name, node in there.items() if name.startswith("test_")}
    assert [n for n, node in tests.items() if starts(node) and not markers(path, node) & MARKERS] == []


SKIPPING = """
import pytest

def test_fine(): pass

def test_root(): pytest.skip("root may read everything")

@pytest.mark.xfail(strict=True)
def test_known(): raise AssertionError

def test_quiet(): pytest.skip("no such thing here")
"""


@pytest.mark.parametrize(("ci", "code", "ends"), [("true", 1, "1 failed, 1 passed, 1 skipped"), ("", 0, "2 skipped")])
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_skip_that_is_not_allowed_fails_ci(tmp_path: Path, ci: str, code: int, ends: str, workers: str) -> None:
    """With CI=true, and not without; the same in the workers of xdist. Its reason is printed."""
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "skips", "-n", workers, "test_skipping.py"]
    environment = os.environ | {"CI": ci, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert ends in done.stdout
    assert ("test_quiet: skipped in CI (no such thing here)" in done.stdout) == bool(ci)


def test_a_module_that_is_not_there_fails_ci(tmp_path: Path) -> None:
    """`importorskip` at the top of a file would leave out all of its tests."""
    (tmp_path / "test_away.py").write_text(
        "import pytest\npytest.importorskip('no_such_module')\ndef test_it(): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "skips", "-p", "no:cacheprovider", "test_away.py"]
    environment = os.environ | {"CI": "true", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "could not import 'no_such_module'" in done.stdout


@pytest.mark.parametrize(("folder", "outcome"), [("", "1 skipped"), ("here", "1 failed")])
def test_gold_that_is_named_and_not_there_fails(tmp_path: Path, folder: str, outcome: str) -> None:
    """NER_BATCH_DATA may be unset; where it is set, the files must be there."""
    (tmp_path / "test_gold.py").write_text("from real_data import whole\ndef test_it(): whole('weibo/test.parquet')\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    named = str(tmp_path / folder) if folder else ""
    environment = os.environ | {"NER_BATCH_DATA": named, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "pytest", "test_gold.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert outcome in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("there", [True, False])
def test_ci_run_finds_the_gold_sets_beside_the_checkout(tmp_path: Path, there: bool) -> None:
    """NER_BATCH_DATA is ../shared/data where that is, and unset elsewhere; what a person has set stays."""
    (tmp_path / "checkout" / ".ci").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    make = tmp_path / "bin" / "make"
    make.write_text('#!/bin/sh\necho "$1 with ${NER_BATCH_DATA:-none}"\n')
    make.chmod(0o755)
    script = tmp_path / "checkout" / ".ci" / "run"
    script.write_bytes((ROOT / ".ci" / "run").read_bytes())
    if there:
        (tmp_path / "shared" / "data").mkdir(parents=True)

    def output(**environment: str) -> str:
        path = {"PATH": f"{make.parent}:/usr/bin:/bin"}
        return subprocess.run(["bash", script], env=path | environment, capture_output=True, text=True).stdout.strip()

    assert output() == (f"test with {tmp_path / 'shared' / 'data'}" if there else "test with none")
    assert output(NER_BATCH_DATA="/mine") == "test with /mine"
