"""The command line in this process: `sys.argv` is replaced, stdout and stderr are caught, Ray is never started.

Every command runs in an empty working directory, so that what it leaves behind is seen.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from gapwise.cli.main import main


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """`call("data", "check", folder)` in `tmp_path/here`."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("GAPWISE_HOME", "GAPWISE_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["gapwise", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Answer(code, said.out, said.err)

    return run
