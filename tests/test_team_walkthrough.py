"""The README's section "As a team", run as it is written: each block that is marked `run-team`, in order, in one shell.

Faked: the set-up. The folder it runs in is fresh and has links to this checkout's files and to the environment that
runs the tests, in place of a clone and `make setup`. Servers, cluster, studies and promotion are real, and small.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gapwise.errors import SpecError
from gapwise.testing.mlflow_server import environment
from gapwise.testing.postgres import binaries

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[1]
LINKED = ("Makefile", "pyproject.toml", "constraints.txt", "platform", "cluster", "search_spaces")


def blocks(readme: str) -> list[str]:
    return re.findall(r"^```console run-team\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)


@pytest.fixture
def checkout() -> Iterator[Path]:
    """As after `make setup`; below /tmp and open, because root's PostgreSQL is another account's."""
    try:
        binaries()
    except SpecError as none:
        pytest.skip(str(none))
    folder = Path(tempfile.mkdtemp(prefix="gapwise-walk-"))
    folder.chmod(0o711)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (folder / ".venv" / ".ready").touch()
    yield folder
    subprocess.run(["make", "team-down", "PURGE=1"], cwd=folder, env=environment(), check=False, capture_output=True)
    shutil.rmtree(folder)


def test_the_walk_through_of_the_readme_runs_as_it_is_written(checkout: Path) -> None:
    written = blocks((ROOT / "README.md").read_text())
    assert len(written) >= 4
    assert written[0].startswith("make team-up") and written[-1].startswith("make team-down")
    script = "\n".join(["set -euo pipefail", *written])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=checkout,
        env=environment(OMP_NUM_THREADS="1", PATH=os.environ["PATH"]),
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    for study in ("first", "ada", "ben"):
        assert re.search(rf"{study} .*finished", done.stdout), said[-6000:]
    _, _, shown = done.stdout.partition("small: champions\n")  # as `registry show` begins
    assert re.search(r"^ *0\.0 +v1 ", shown, re.MULTILINE), said[-6000:]
    assert "stopped ray-worker-2, ray-worker-1, ray-head, mlflow, postgres" in done.stdout
    assert not list((checkout / ".team" / "home" / "studies").rglob("journal.log")), "the studies are in PostgreSQL"
    assert not (checkout / ".gapwise").exists(), "everything went to the shared home and the team's server"
