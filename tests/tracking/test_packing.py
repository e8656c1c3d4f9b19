"""A model's own code, where no gapwise is installed or another project's is. Nothing is faked but that project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gapwise.tracking import served_entry
from gapwise.tracking.packing import write_code

LOOK = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("entry", sys.argv[1])
entry = importlib.util.module_from_spec(spec)
spec.loader.exec_module(entry)
import gapwise
before = gapwise.__file__
print(before, entry._imported("gapwise.tracking.aliases", sys.argv[2]).__file__, sep="\\n")
"""


@pytest.mark.parametrize("installed", ["another project's", "ours"])
def test_the_code_that_travels_answers_where_the_platform_is_not_installed(tmp_path: Path, installed: str) -> None:
    stranger, code = tmp_path / "site" / "gapwise", tmp_path / "gapwise.zip"
    write_code(code)
    stranger.mkdir(parents=True)
    (stranger / "__init__.py").write_text('"""A client of something else."""')
    ours = Path(served_entry.__file__).parents[2]
    path = stranger.parent if installed == "another project's" else ours
    said = subprocess.run(
        [sys.executable, "-c", LOOK, served_entry.__file__, str(code)],
        env=os.environ | {"PYTHONPATH": str(path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    before, imported = said.stdout.splitlines()
    assert Path(before).is_relative_to(path)
    assert Path(imported).is_relative_to(code if installed == "another project's" else ours)


def test_the_same_source_is_the_same_archive(tmp_path: Path) -> None:
    write_code(tmp_path / "one.zip")
    write_code(tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
