"""The package as others use it: its public names, `python -m ner_batch`, and the wheel that is built of it."""

from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib import import_module
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

import ner_batch

ROOT = Path(__file__).parent.parent


def test_public_names_are_there_and_described() -> None:
    """Each is found, is told of in the module's docstring, and has a docstring of its own."""
    for name in set(ner_batch.__all__) - {"__version__"}:
        assert getattr(ner_batch, name).__doc__, name
        assert f":class:`{name}`" in ner_batch.__doc__ or f":func:`{name}`" in ner_batch.__doc__
    assert set(ner_batch.__all__) <= set(dir(ner_batch))
    with pytest.raises(AttributeError, match="no attribute 'extract_entity'"):
        _ = ner_batch.extract_entity


def test_type_checkers_see_what_is_imported() -> None:
    """The imports for type checkers name the very objects that are found at run time, and all of them."""
    tree = ast.parse(Path(ner_batch.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {a.asname or a.name for node in imports for a in node.names} | {"__version__"} == set(ner_batch.__all__)
    for node in imports:
        module = import_module(str(node.module))
        for alias in node.names:
            assert getattr(ner_batch, alias.asname or alias.name) is getattr(module, alias.name)


def test_importing_the_package_loads_nothing_heavy() -> None:
    """Values and tasks need no Ray, torch, vLLM or transformers; the bare import not even Arrow."""
    program = (
        "import sys, ner_batch\n"
        "print([name for name in ('pyarrow', 'pydantic', 'ray') if name in sys.modules])\n"
        "ner_batch.Entity, ner_batch.load_task, ner_batch.score_entities, ner_batch.read_examples\n"
        "print([name for name in ('ray', 'torch', 'vllm', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "[]"], done.stderr


def test_submodules_keep_their_names() -> None:
    """`ner_batch.extraction` and `ner_batch.data` are packages and modules whatever was used before."""
    program = (
        "import ner_batch\n"
        "from ner_batch import Entity, extract\n"
        "import ner_batch.extraction.plan, ner_batch.data\n"
        "print(ner_batch.extraction.__name__, ner_batch.data.__name__, callable(extract))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "ner_batch.extraction ner_batch.data True", done.stderr


def test_the_module_is_the_command() -> None:
    """`python -m ner_batch` answers like `ner-batch`."""
    done = subprocess.run([sys.executable, "-m", "ner_batch", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ner_batch.__version__), done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built of the source distribution, which is built of a copy of the package's sources."""
    source, out = tmp_path_factory.mktemp("source") / "ner-batch", tmp_path_factory.mktemp("dist")
    copytree(ROOT / "ner_batch", source / "ner_batch", ignore=ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment in which the wheel is installed, over the packages of this environment."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    paths = sysconfig.get_paths("venv", {"base": str(home), "platbase": str(home), "installed_base": sys.base_prefix})
    python = Path(paths["scripts"]) / "python"
    # --python: pip works on the new environment and on no other; --ignore-installed: it takes nothing away anywhere.
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", str(python)]
    command = [*pip, "install", "--no-deps", "--no-index", "--ignore-installed", str(wheel)]
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # A path file is not followed again, so the editable install of this environment does not come along.
    (Path(paths["purelib"]) / "below.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every module, the demo's files, the mark of types; no tests, no jobs, no benchmarks."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "ner_batch").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == there
    assert "ner_batch/py.typed" in names
    assert any(name.startswith("ner_batch/demo/files/adapter/") for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("python -m ner_batch --version", ner_batch.__version__),
        ("python -m ner_batch --help", "extract"),
        ("ner-batch extract --help", "--dry-run"),
        ("python -c 'import ner_batch as n; print([getattr(n, name) for name in n.__all__])'", "ner_batch.data.Entity"),
        ("python -c 'import ner_batch; print(ner_batch.__file__)'", "environment"),
    ],
)
def test_the_wheel_runs_outside_the_checkout(installed: Path, tmp_path: Path, command: str, output: str) -> None:
    """The command, the module and the library, from a folder that knows nothing of this one."""
    environment = {
        "PATH": f"{installed.parent}:/usr/bin:/bin",
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert output in done.stdout
    assert str(ROOT) not in done.stdout


@pytest.mark.slow
def test_a_type_checker_reads_the_installed_package(installed: Path, tmp_path: Path) -> None:
    """mypy knows the types of the public names, and a wrong use of them is an error."""
    (tmp_path / "use.py").write_text(
        "from ner_batch import Entity, load_task\nreveal_type(load_task('t.yaml').names)\nEntity('0', 1, 'PER', 'x')\n"
    )
    # The settings of this project: with them the imports of torch, Ray and the like are not followed.
    settings = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache")]
    command = [sys.executable, "-m", "mypy", *settings, "--python-executable", str(installed), "use.py"]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert 'Revealed type is "tuple[str, ...]"' in lines[0].replace("builtins.", ""), done.stdout + done.stderr
    assert 'Argument 1 to "Entity" has incompatible type "str"' in lines[1]
    assert "Found 1 error in 1 file" in lines[2]
