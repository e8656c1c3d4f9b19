"""The rules of the house that a tool cannot be told, written as tests. Nothing is faked: they read the repository.

Layers and whole packages are import-linter's; here stand what it cannot name (`ray.train`, `ray.tune`), what importing
the command line may load, what may lie at the top level, and that errors survive a process boundary.
"""

import ast
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gapwise import errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "platform" / "gapwise"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PRESCRIBED = {"pyproject.toml", "README.md", "Makefile", "platform", "search_spaces", "cluster", "tests"}
TOOL_FILES = {
    ".ci",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
    "constraints.txt",
    "LICENSE",
    "CHANGELOG.md",
}
HOMES = {"ray.train": "distributed", "ray.tune": "tuning"}
ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.GapwiseError)]


def imported(source: str) -> Iterator[str]:
    """Every module that a source names in an import, at any depth; `from a import b` may name the module a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


@pytest.mark.parametrize(
    "source", ["import ray.train", "def f():\n    from ray import train", "from ray.train.torch import TorchTrainer"]
)
def test_the_policy_below_sees_every_way_of_importing(source):
    assert any(name == "ray.train" or name.startswith("ray.train.") for name in imported(source))


@pytest.mark.parametrize("module", HOMES)
def test_ray_train_and_ray_tune_are_imported_in_their_own_folders_only(module):
    found = [
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if path.relative_to(PACKAGE).parts[0] != HOMES[module]
        for name in imported(path.read_text(encoding="utf-8"))
        if name == module or name.startswith(f"{module}.")
    ]

    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_opens_with_a_docstring(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_source_root_is_no_package_because_it_would_hide_the_standard_library_s_platform():
    assert not (ROOT / "platform" / "__init__.py").exists()


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("gapwise.cli.main", ("torch", "ray", "mlflow", "optuna")),
        ("gapwise.tuning.actor", ("torch", "ray.train", "ray.tune", "pandas", "mlflow", "scipy.stats", "sqlalchemy")),
        ("gapwise.tuning.executor", ("mlflow", "scipy.stats", "scipy.linalg", "sqlalchemy")),
    ],
)
def test_a_process_loads_no_library_that_it_does_without_and_prints_nothing(module, heavy):
    """Each costs up to seconds at the start of every command, of every study's book, of every worker."""
    script = f"import sys, {module}\nsys.exit(','.join(sorted({{*{heavy!r}}} & {{*sys.modules}})) or 0)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_top_level_holds_what_is_prescribed_and_tool_files():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so what is ignored cannot be told")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

    assert {Path(name).parts[0] for name in listed} - PRESCRIBED - TOOL_FILES == set()


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
class TestErrors:
    def test_an_error_survives_pickling_with_its_line_unchanged(self, kind):
        error = kind("cannot be", where="there", allowed=["this", "that"])

        copy = pickle.loads(pickle.dumps(error))

        assert type(copy) is kind
        assert str(copy) == str(error) == "there: cannot be (allowed: this, that)"
        assert (copy.what, copy.where, copy.allowed) == (error.what, error.where, error.allowed)

    def test_an_error_is_a_single_line_whatever_it_was_given(self, kind):
        error = kind("a\n  b\u2028c", where="file\nname\r", allowed="x,\n\ty")

        assert str(error) == "file name: a b c (allowed: x, y)"

    def test_what_is_not_known_is_not_written(self, kind):
        assert str(kind("alone")) == "alone"
