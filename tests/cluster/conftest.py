"""What the tests of `cluster/` share: its files, what Kustomize makes of them, and modules that lie beside the tests.

Nothing is faked: `kubectl kustomize` renders offline. Where kubectl is missing, tests that need it are skipped and say
so; CI has it.
"""

import copy
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"


def load(path: Path) -> ModuleType:
    """A module by its file, because neither `cluster/` nor a folder of tests is a package."""
    name = f"cluster_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def render(folder: Path) -> list[dict[str, Any]]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed, and Kustomize comes with it")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def with_study(folder: Path) -> Path:
    """A copy of `cluster/` whose example has the component that starts a study."""
    copied = shutil.copytree(CLUSTER, folder / "cluster")
    overlay = copied / "example" / "kustomization.yaml"
    listed = overlay.read_text(encoding="utf-8").replace("# - ../components/study", "- ../components/study")
    overlay.write_text(listed, encoding="utf-8")
    return copied / "example"


@pytest.fixture(scope="session")
def schemas() -> ModuleType:
    return load(Path(__file__).with_name("schemas.py"))


@pytest.fixture(scope="session")
def rules() -> ModuleType:
    return load(Path(__file__).with_name("rules.py"))


@pytest.fixture(scope="session")
def scaling() -> ModuleType:
    return load(CLUSTER / "scaling.py")


@pytest.fixture(scope="session")
def cluster() -> Path:
    return CLUSTER


@pytest.fixture(scope="session")
def _rendered(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return render(with_study(tmp_path_factory.mktemp("overlay")))


@pytest.fixture
def objects(_rendered: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The example with a study, a copy for each test: tests spoil it."""
    return copy.deepcopy(_rendered)
