"""The Dockerfile, read instruction by instruction, and the wheel that it bakes in, built as it builds it.

No image is built: that needs a registry to pull from. What can be wrong without one is looked at: sources that are not
there or that the ignore file keeps out, root, moving tags, secrets, the stranger's package of our name. The wheel is
real, built offline from a copy of the tree with this environment's setuptools.
"""

import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "cluster" / "Dockerfile"
ALLOWED = {"FROM", "ARG", "RUN", "COPY", "ENV", "WORKDIR", "USER", "CMD"}


class Instruction(NamedTuple):
    verb: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    """Continuation lines joined, comments left out, as Docker reads them."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [Instruction(*line.split(None, 1)) for line in joined.splitlines()]


def ignored(name: str) -> bool:
    """Whether the build would not see this path; the last matching line decides, a folder stands for its contents."""
    answer = False
    lines = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        if (
            fnmatch(name, pattern)
            or fnmatch(name, f"{pattern}/*")
            or fnmatch(name, pattern.replace("**/", "*/") + "/*")
        ):
            answer = not line.startswith("!")
    return answer


def complaints(text: str) -> list[str]:
    steps = instructions(text)
    found = [f"an instruction that nobody thought about: {step.verb}" for step in steps if step.verb not in ALLOWED]
    return found + _bases(steps) + _sources(steps) + _users(steps) + _packages(steps) + _secrets(steps)


def _bases(steps: list[Instruction]) -> list[str]:
    images = [step.rest.split()[0] for step in steps if step.verb == "FROM"]
    found = [f"not a pinned base: {image}" for image in images if not re.fullmatch(r"python:3\.11\.\d+-[a-z-]+", image)]
    return found if len(images) == 2 else [*found, "not two stages"]


def _sources(steps: list[Instruction]) -> list[str]:
    found = []
    for step in steps:
        if step.verb == "COPY" and not step.rest.startswith("--from="):
            for name in step.rest.split()[:-1]:
                if not (ROOT / name).exists() or ignored(name):
                    found.append(f"cannot be copied: {name}")
    return found


def _users(steps: list[Instruction]) -> list[str]:
    users = [step.rest for step in steps if step.verb == "USER"]
    last = next((step for step in reversed(steps) if step.verb in ("USER", "RUN")), None)
    if not users or users[-1].split(":")[0] in ("root", "0") or not users[-1].split(":")[0].isdigit():
        return ["runs as root, or as nobody that Kubernetes can check"]
    return [] if last is not None and last.verb == "USER" else ["something runs after USER"]


def _packages(steps: list[Instruction]) -> list[str]:
    found = []
    for step in steps:
        if step.verb == "RUN":
            for command in re.findall(r"pip (?:install|wheel|download)[^&;|]*", step.rest):
                if re.search(r"[\s\"']gapwise(\[|[=<>~!]|[\s\"']|$)", command):
                    found.append(f"a stranger's package: {command}")
                if "torch" not in command and "install" in command and "-c " not in command:
                    found.append(f"not by our constraints: {command}")
    return found


def _secrets(steps: list[Instruction]) -> list[str]:
    pattern = r"(?i)(password|token|secret|credential|aws_access|api_?key)\w*\s*="
    return [f"a secret in the image: {step}" for step in steps if re.search(pattern, step.rest)]


def test_the_dockerfile_is_as_it_should_be():
    assert complaints(DOCKERFILE.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("python:3.11.14-slim-bookworm AS wheel", "python:latest AS wheel"),
        ("python:3.11.14-slim-bookworm AS wheel", "python:3.11-slim AS wheel"),
        ("COPY platform platform", "COPY plattform platform"),
        ("COPY platform platform", "COPY . ."),
        ("COPY platform platform", "COPY tests tests"),
        ("COPY platform platform", "ADD platform platform"),
        ("USER 1000:1000", "USER root"),
        ("USER 1000:1000", "USER gapwise"),
        ("USER 1000:1000\n", ""),
        ("USER 1000:1000", "USER 1000:1000\nRUN touch x"),
        ('"mlflow[auth]"', "gapwise[train]"),
        ('"mlflow[auth]"', '"gapwise==0.1.1"'),
        ("-c /tmp/constraints.txt", ""),
        ("ARG TORCH=2.13.0", "ARG REGISTRY_TOKEN=abc"),
        ("PYTHONUNBUFFERED=1", "MLFLOW_TRACKING_PASSWORD=abc"),
    ],
)
def test_a_spoiled_dockerfile_would_be_seen(old, new):
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert old in text

    assert complaints(text.replace(old, new)) != []


@pytest.mark.parametrize(
    "name", [".gapwise/mlflow.db", ".git/config", ".env", "demo/data", "tests/conftest.py", "cluster/vm/aws.yaml"]
)
def test_the_build_does_not_see(name):
    assert ignored(name)


@pytest.mark.parametrize("name", ["platform/gapwise/errors.py", "pyproject.toml", "search_spaces/prlf.yaml"])
def test_the_build_sees(name):
    assert not ignored(name)


def test_caches_stay_out_of_the_build():
    assert ignored("platform/gapwise/__pycache__/errors.cpython-311.pyc")


def test_torch_and_the_constraints_agree():
    text = DOCKERFILE.read_text(encoding="utf-8")
    torch = re.search(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)

    assert torch is not None
    assert f"ARG TORCH={torch[1]}\n" in text


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from what the Dockerfile copies, by the command that it runs, offline."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "platform", source / "platform", ignore=unwanted)
    options = [
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--no-cache-dir",
        "--wheel-dir",
        str(wheels),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "."], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = wheels.glob("*.whl")
    return zipfile.ZipFile(built)


@pytest.mark.slow
class TestTheWheel:
    def test_its_name_is_not_the_stranger_s(self, wheel):
        assert Path(str(wheel.filename)).name.startswith("gapwise_platform-")

    def test_it_holds_every_file_of_the_package_whatever_its_kind(self, wheel):
        package = ROOT / "platform" / "gapwise"
        files = {str(path.relative_to(ROOT / "platform")) for path in package.rglob("*") if path.is_file()}
        wanted = {name for name in files if "__pycache__" not in name}

        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}

        assert packed == wanted

    def test_it_brings_the_command(self, wheel):
        (entry,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))

        assert "gapwise = gapwise.cli.main:main" in wheel.read(entry).decode()
