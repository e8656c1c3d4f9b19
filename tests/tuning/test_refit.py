"""One run of the refit in a study's own worker: when it leaves, and that it goes on from there.

Faked: the line to the study's book, and Ray's notices.
"""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapwise.distributed import side_by_side
from gapwise.distributed.launch import Restart
from gapwise.distributed.progress import told
from gapwise.distributed.side_by_side import Run, pending
from gapwise.models.saved import load_model_folder
from gapwise.spec.search import SearchSpec
from gapwise.spec.train import OptimiserSpec
from gapwise.tuning.refit import Winner, refit_batch, refit_one, refit_run, shipped
from gapwise.tuning.trial import Place

SPACE = SearchSpec.model_validate(
    {
        "question": "which?",
        "common": {"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2},
        "train": {"batch_size": 50, "objective": {"metric": "mae"}, "protocol": {"rates": [0.0, 0.5]}},
        "arms": {"prlf": None},
        "second_phase": {"mask_seeds": 2},
    }
)
WINNER = Winner("prlf", 0, {}, epochs=2)
HOPELESS = OptimiserSpec().model_copy(update={"lr": 1e30, "warmup": 0.0})
"""What no spec may ask for."""


class Line:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.full: list[str] = []

    def pause_for_room(self, said: str) -> None:
        self.full.append(said)


def never() -> bool:
    return False


def after(steps: int) -> Callable[[], bool]:
    """Says yes from the step after so many on."""
    asked = iter(range(steps + 1))
    return lambda: next(asked, None) is None


@pytest.fixture
def place(small: Path, tmp_path: Path) -> Place:
    return Place(SPACE, str(small), str(tmp_path))


@pytest.fixture
def run(place: Place) -> Run:
    return refit_run(place, WINNER, 1001)


def train(place: Place, run: Run, *, notice: Callable[[], bool] = never, paused: Callable[[], bool] = never) -> Line:
    line: Any = Line()
    refit_one(place, run, line, notice, paused)
    heard: Line = line
    return heard


def test_one_that_was_paused_and_told_to_leave_comes_to_what_it_would_have_alone(
    place: Place, run: Run, tmp_path: Path
) -> None:
    train(place, run, paused=after(5))
    assert pending(refit_batch(place), [run]) == [run]
    with pytest.raises(Restart):
        train(place, run, notice=after(2))
    train(place, run)
    alone = place._replace(folder=str(tmp_path / "alone"))
    train(alone, run)
    found, expected = (load_model_folder(refit_batch(one).place(run)) for one in (place, alone))
    assert found.validation == expected.validation
    assert found.trained["epochs"] == expected.trained["epochs"] == 2
    assert told(refit_batch(place).progress) == [{"done": run.name}]


def test_one_that_is_done_is_not_trained_again(place: Place, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    train(place, run)
    monkeypatch.setattr(side_by_side, "fit", lambda *_: pytest.fail("it trains"))
    train(place, run)


def test_one_that_diverges_is_left_out_and_the_others_ship(place: Place) -> None:
    seeds = [1001, 1002, 1003]
    runs = [refit_run(place, WINNER, seed) for seed in seeds]
    diverges = runs[1]._replace(spec=runs[1].spec.model_copy(update={"optimiser": HOPELESS}))
    for run in (runs[0], diverges, runs[2]):
        train(place, run)
    assert pending(refit_batch(place), runs) == []
    seed, models = shipped(place, WINNER, seeds)
    assert sorted(models) == [1001, 1003]
    assert seed in models
    assert [one["done"] for one in told(refit_batch(place).progress)] == [
        *("prlf-0/seed-1001", "prlf-0/seed-1002 diverged", "prlf-0/seed-1003")
    ]


def test_a_full_disk_pauses_the_study_and_any_other_error_is_raised(
    place: Place, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, *_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(side_by_side, "save_model", full)
    line = train(place, run)
    folder = refit_batch(place).place(run)
    assert line.full == [f"{folder}: cannot be written: No space left on device"]

    monkeypatch.setattr(side_by_side, "save_model", lambda *_: [][0])
    with pytest.raises(IndexError):
        train(place, run)
