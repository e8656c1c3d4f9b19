"""The Python API: what importing costs, what editors see, what is refused, and every example in its docstrings.

The examples run in one fresh process and folder, in the order of the file, as a notebook would; the synthetic `small`
set and a space of one trial are what they use, so that a minute suffices. Nothing else is faked.
"""

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gapwise
from gapwise import api
from gapwise.api.functions import _spec
from gapwise.errors import RegistryError, SpecError, StudyError
from gapwise.spec.search import SearchSpec

WriteStudy = Callable[..., Path]
PLATFORM = Path(gapwise.__file__).parents[1]
FUNCTIONS = [name for name in gapwise.__all__ if name[0].islower()]
EXAMPLES = """
import doctest, sys
from gapwise.api import functions
found = sorted((one for one in doctest.DocTestFinder().find(functions) if one.examples), key=lambda one: one.lineno)
runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
for one in found:
    runner.run(one)
    print("ran", one.name.rpartition(".")[2])
sys.exit(runner.failures)
"""


def run(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "GAPWISE", "RAY"))}
    told = kept | {"PYTHONPATH": str(PLATFORM), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True, check=False)


def test_importing_gapwise_loads_nothing_heavy_writes_nothing_and_offers_its_functions(tmp_path: Path) -> None:
    script = (
        "import sys, gapwise\n"
        "assert 'tune' in dir(gapwise) and not hasattr(gapwise, 'tuna')\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'numpy', 'pandas', 'typer'}\n"
        "sys.exit(','.join(sorted(heavy & {*sys.modules})) or 0)"
    )
    done = run(script, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_a_champion_can_be_asked_for_where_neither_ray_nor_optuna_is_installed(tmp_path: Path) -> None:
    script = (
        "import sys\nsys.modules.update(ray=None, optuna=None)\n"
        "import gapwise\ntry:\n    gapwise.load_champion('nobody')\n"
        "except gapwise.errors.RegistryError as error:\n    sys.exit(0)"
    )
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_editors_and_type_checkers_see_is_what_there_is() -> None:
    tree = ast.parse(Path(gapwise.__file__).read_text(encoding="utf-8"))
    seen = next(node.body[0] for node in tree.body if isinstance(node, ast.If))
    assert isinstance(seen, ast.ImportFrom) and seen.module == "gapwise.api"
    assert sorted(alias.name for alias in seen.names) == sorted(gapwise.__all__) == sorted(api.__all__)
    assert all(getattr(gapwise, name) is getattr(api, name) for name in gapwise.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_what_it_raises_and_has_an_example(name: str) -> None:
    told = inspect.getdoc(getattr(gapwise, name)) or ""
    assert "Raises" in told and ">>> import gapwise" in told


@pytest.mark.ray
@pytest.mark.slow
def test_every_example_runs_as_it_is_written(tmp_path: Path) -> None:
    done = run(EXAMPLES, tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    ran = [line.removeprefix("ran ") for line in done.stdout.splitlines() if line.startswith("ran ")]
    assert sorted(ran) == sorted(FUNCTIONS)


class TestStudies:
    """Studies as a driver leaves them, written by hand; nothing runs."""

    def test_a_study_that_is_not_finished_is_shown_as_far_as_it_is(
        self, write_study: WriteStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GAPWISE_HOME", str(tmp_path))
        write_study(tmp_path / "studies", "night", until="search")
        study = gapwise.load_study("night")
        assert (study.state, study.result) == ("resumable", None)
        assert repr(study).startswith("Study('night', resumable: ")
        frame = study.to_frame()
        assert frame.loc["prlf-1", "state"] == "pruned" and frame.loc["prlf-0", "objective"] == 1.0
        assert "optimiser.lr" in frame.columns and frame.loc["prlf-0", "optimiser.lr"] > 0
        assert "<table" in study._repr_html_()

    def test_a_finished_study_has_its_winner_late_fusion_and_the_floor_side_by_side(
        self, write_study: WriteStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GAPWISE_HOME", str(tmp_path))
        write_study(tmp_path / "studies", "night")
        leaders = gapwise.load_study("night").leaders()
        assert leaders.loc["0.5", "trial"] == "prlf-3"
        assert leaders.loc["0.5", "mean"] == pytest.approx(1.4)
        assert leaders.loc["0.5", "late_fusion_mean"] == pytest.approx(1.6)
        assert (leaders["floor"] == 1.4).all()

    def test_an_unknown_name_is_refused_in_one_line_and_nothing_is_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GAPWISE_HOME", str(tmp_path / "home"))
        with pytest.raises(StudyError, match="no study 'nigth'"):
            gapwise.load_study("nigth")
        assert not (tmp_path / "home").exists()


class TestBadInput:
    def test_a_space_that_is_no_file_needs_a_name(self, small: Path) -> None:
        with pytest.raises(SpecError, match=r'study: a space that is no file has no name \(allowed: study="..."\)'):
            gapwise.tune({"question": "?", "arms": {"prlf": None}}, small)

    @pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
    def test_what_is_no_missing_rate_is_refused_before_the_registry_is_asked(self, rate: float) -> None:
        with pytest.raises(SpecError, match="rate: not a missing rate"):
            gapwise.load_champion("nobody", rate=rate)

    def test_an_unknown_registered_name_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GAPWISE_HOME", str(tmp_path))
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with pytest.raises(RegistryError, match="no registered model 'nobody'"):
            gapwise.load_champion("nobody")

    def test_a_dict_is_checked_as_a_file_is_and_left_as_it_was(self) -> None:
        written: dict[str, Any] = {"question": "?", "arms": {"prlf": None}, "train": {"epochs": 9}}
        spec = _spec(SearchSpec, written, {"train.epochs": 3})
        assert spec.train.epochs == 3 and written["train"] == {"epochs": 9}
        with pytest.raises(SpecError, match=r"SearchSpec: train\.epoch: unknown key 'epoch'; did you mean 'epochs'"):
            _spec(SearchSpec, written, {"train.epoch": 3})


def test_a_uri_is_copied_into_the_home_and_is_the_same_dataset(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPWISE_HOME", str(tmp_path))
    here, copied = gapwise.load_dataset(small), gapwise.load_dataset(small.as_uri())
    assert repr(copied) == repr(here) and copied.manifest.fingerprint == here.manifest.fingerprint
    assert copied.folder == tmp_path / "snapshots" / "loaded" / here.manifest.fingerprint


def test_a_split_as_a_frame_is_what_is_on_disk_and_no_look_at_test(small: Path) -> None:
    data = gapwise.load_dataset(small)
    before = data.exposures()
    frame = data.valid.to_frame()
    assert data.exposures() == before
    assert frame.index.tolist() == data.valid.ids and frame["label"].tolist() == data.valid.labels.tolist()
    batch = data.valid.batch(np.arange(3))
    for row, frames in enumerate(frame["text"].iloc[:3]):
        assert np.allclose(frames, batch.values["text"].numpy()[row, : len(frames)])
    assert data.to_frame().loc["valid", "samples"] == len(frame)


def test_a_sample_of_an_array_that_is_nan_throughout_is_a_missing_modality() -> None:
    from gapwise.api.champion import _cells

    block_BTD = np.zeros((3, 4, 2))
    block_BTD[1] = np.nan
    block_BTD[2, 1:] = np.nan
    first, second, third = _cells(block_BTD)
    assert first.shape == (4, 2) and second is None and np.isnan(third[1:]).all()
