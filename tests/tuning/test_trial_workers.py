"""A run of two workers that leaves early: two real processes over gloo. Faked: the study's book."""

import os
import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

from gapwise.models.collective import WorkerGroup
from gapwise.spec.search import SearchSpec
from gapwise.training.job import Job
from gapwise.tuning.assignment import Assignment, Outcome, Verdict
from gapwise.tuning.trial import Place, job_of, run_trial

ONE = Assignment("search", "late_fusion", 0, {}, 1, 0)
SPACE = SearchSpec.model_validate(
    {
        "question": "who leaves first?",
        "common": {"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2},
        "train": {"epochs": 3, "patience": 0, "batch_size": 40, "protocol": {"rates": [0.0, 0.5]}},
        "arms": {"late_fusion": None},
    }
)


class Line:
    """A book that pauses after the second epoch; what it hears goes to a file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "heard"

    def begin(self, assignment: Assignment) -> Assignment:
        return assignment

    def out_of_memory(self, assignment: Assignment) -> None:
        del assignment

    def report(self, assignment: Assignment, epoch: int, cost: float, body: object) -> Verdict:
        del assignment, cost, body
        self._hear(f"epoch {epoch}")
        return "pause" if epoch == 2 else "go on"

    def pause_for_room(self, said: str) -> None:
        raise AssertionError(said)

    def finish(self, assignment: Assignment, outcome: Outcome) -> None:
        del assignment
        self._hear(f"{outcome.state} {outcome.reason}")

    def _hear(self, words: str) -> None:
        with self._file.open("a") as opened:
            opened.write(f"{words}\n")


def job(rank: int, place: Place, folder: Path) -> Job:
    meeting = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    return replace(job_of(place, ONE), rank=rank, workers=WorkerGroup())


def pausing(rank: int, place: Place, folder: Path) -> None:
    run_trial(place, ONE, job(rank, place, folder), Line(folder))
    dist.barrier()  # as `tell_driver` is one
    (folder / f"left-{rank}").touch()


class Dies(nn.Module):
    def forward(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def dying(rank: int, place: Place, folder: Path) -> None:
    mine = job(rank, place, folder)
    if rank == 1:
        run_trial(place, ONE, replace(mine, wrap=lambda _: Dies()), Line(folder))
    with pytest.raises(RuntimeError):
        run_trial(place, ONE, mine, Line(folder))
    (folder / f"left-{rank}").touch()
    os._exit(0)  # the group cannot be left in peace


def test_a_pause_is_heard_by_all_workers_at_the_same_step(small: Path, tmp_path: Path) -> None:
    spawn(pausing, args=(Place(SPACE, str(small), str(tmp_path)), tmp_path), nprocs=2)
    assert (tmp_path / "heard").read_text().splitlines() == ["epoch 1", "epoch 2"]
    assert (tmp_path / "left-0").exists() and (tmp_path / "left-1").exists()
    assert (tmp_path / "trials" / ONE.key / "resume.safetensors").exists()


def test_a_worker_that_dies_is_no_failure_of_the_trial(small: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="SIGKILL"):
        spawn(dying, args=(Place(SPACE, str(small), str(tmp_path)), tmp_path), nprocs=2)
    assert not (tmp_path / "heard").exists(), "the other one told no ending: the run goes on elsewhere"
