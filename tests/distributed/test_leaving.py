"""Who leaves when a node says that it is about to go, and who goes on when a worker was lost: no cluster.

Faked: the node's notice, the clock, other workers, and Ray Train's runs.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray.exceptions
import torch
from torch import Tensor

from gapwise.cli.options import worker_count
from gapwise.data.store import opened
from gapwise.distributed import launch
from gapwise.distributed.launch import Restart, least, lost_a_worker, most, run_through_losses
from gapwise.distributed.notice import LeavingSink, Notice
from gapwise.distributed.placement import Needs, Node, Resources, Share, fitting
from gapwise.errors import DataError, SpecError
from gapwise.spec.train import TrainSpec
from gapwise.training.checkpoint import DirectorySink
from gapwise.training.decision import NoReporter
from gapwise.training.job import Job, whole_job
from gapwise.training.loop import fit
from gapwise.training.protocols import Position, Progress, Snapshot

EMPTY = Snapshot({"model": {"w": torch.zeros(1)}}, Progress(Position(1, 1), 0.0, 0, [], 0.0))


def test_a_notice_is_asked_for_once_a_second_and_stays() -> None:
    now, answers, asked = [0.0], [False, True], []

    def gone() -> bool:
        asked.append(now[0])
        return answers.pop(0)

    notice = Notice(gone, lambda: now[0])
    heard = []
    for now[0] in (0.0, 0.5, 1.0, 1.5, 9.0):
        heard.append(notice())
    assert heard == [False, False, True, True, True]
    assert asked == [0.0, 1.0]


class Pair:
    """Two workers, of which the other one says `other`."""

    world = 2

    def __init__(self, other: int) -> None:
        self.other, self.messages = other, 0

    def total(self, local: Tensor) -> Tensor:
        self.messages += 1
        return local + self.other

    def gather(self, local: Tensor) -> Tensor:
        return local


@pytest.fixture
def job(small: Path) -> Job:
    model = {"name": "late_fusion", "width": 16, "heads": 2, "depth": 1}
    fields = {"model": model, "epochs": 3, "batch_size": 100, "patience": 0, "checkpoint_every": 9}
    return whole_job(TrainSpec.model_validate(fields | {"protocol": {"rates": [0.0, 0.5]}}), *opened(str(small)))


def test_a_run_that_leaves_in_the_middle_of_an_epoch_goes_on_there_and_ends_the_same(job: Job, tmp_path: Path) -> None:
    expected = fit(job, NoReporter(), DirectorySink(tmp_path / "whole", job.spec))
    steps = iter([False] * 6)  # four steps an epoch
    sink = DirectorySink(tmp_path / "left", job.spec)
    with pytest.raises(Restart):
        fit(job, NoReporter(), LeavingSink(sink, job, lambda: next(steps, True)))
    snapshot = sink.load()
    assert snapshot is not None and snapshot.progress.position == Position(1, 2)
    again = fit(job, NoReporter(), LeavingSink(sink, job, lambda: False))
    assert again.kept.metrics == expected.kept.metrics
    assert [one.losses for one in again.history] == [one.losses for one in expected.history]


def test_of_several_workers_all_leave_at_a_step_on_which_they_agree_once_rank_0_has_written(
    job: Job, tmp_path: Path
) -> None:
    pair = Pair(other=1)
    sink = LeavingSink(DirectorySink(tmp_path, job.spec, 1), replace(job, rank=1, workers=pair), lambda: False)
    assert [sink.wants(Position(0, batch)) for batch in (1, 9)] == [False, False]
    assert pair.messages == 0, "no message a step"
    assert sink.wants(Position(0, 10))
    with pytest.raises(Restart):
        sink.save(EMPTY)
    assert pair.messages == 2, "the second lets nobody leave before the others"


def test_a_run_that_nobody_told_to_leave_keeps_to_its_checkpoints(job: Job, tmp_path: Path) -> None:
    sink = LeavingSink(DirectorySink(tmp_path, job.spec), replace(job, workers=Pair(other=0)), lambda: False)
    assert not sink.wants(Position(1, 0))
    assert sink.wants(Position(9, 0))
    sink.save(EMPTY)
    assert sink.load() is not None


class Runs:
    """Ray Train runs that end as they are told to."""

    def __init__(self, *endings: Exception) -> None:
        self._endings, self.names = list(endings), list[str]()

    def __call__(self, worker: Any, config: Any, *, workers: Any, name: str, storage: Path) -> dict[str, Any]:
        del worker, config, workers
        self.names.append(name)
        (storage / name).mkdir(parents=True)
        if self._endings:
            raise self._endings.pop(0)
        return {"done": 1}


DIED = ray.exceptions.RayActorError()


@pytest.mark.parametrize(
    ("endings", "starts"),
    [([], 1), ([DIED], 2), ([RuntimeError("gloo: connection closed by peer")] * 3, 4), ([Restart()] * 6, 7)],
    ids=["nothing", "a death", "three deaths", "leaving is no death"],
)
def test_a_run_goes_on_after_it_lost_a_worker_or_was_asked_to_leave(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, endings: list[Exception], starts: int
) -> None:
    monkeypatch.setattr(launch, "run_workers", runs := Runs(*endings))
    assert run_through_losses(lambda _: None, {}, workers=2, storage=tmp_path) == {"done": 1}
    assert runs.names == [f"attempt-{number}" for number in range(1, starts + 1)]


@pytest.mark.parametrize(("endings", "starts"), [([DIED] * 9, 4), ([DataError("broken")], 1)])
def test_a_run_ends_with_a_users_error_and_with_one_loss_too_many(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, endings: list[Exception], starts: int
) -> None:
    monkeypatch.setattr(launch, "run_workers", runs := Runs(*endings))
    with pytest.raises(type(endings[0])):
        run_through_losses(lambda _: None, {}, workers=2, storage=tmp_path)
    assert len(runs.names) == starts


def test_a_worker_that_ray_found_dead_is_a_loss_and_a_failing_model_is_none() -> None:
    class WorkerHealthCheckFailedError(Exception):
        health_check_failure = DIED

    assert lost_a_worker(WorkerHealthCheckFailedError("it does not answer"))
    assert not lost_a_worker(ValueError("shapes differ"))


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("16", 16), ("1:4", (1, 4)), ("2:2", (2, 2))])
def test_workers_are_a_number_or_a_range(text: str, count: int | tuple[int, int]) -> None:
    assert worker_count(text) == count
    assert (least(count), most(count)) == (count if isinstance(count, tuple) else (count, count))


@pytest.mark.parametrize("text", ["4:1", "0:2", "0", "a", "", ":", "1:", ":2", "1:2:3", "-1", "1.5", "٢"])
def test_what_is_no_number_of_workers_is_refused_in_a_line_that_says_what_is(text: str) -> None:
    with pytest.raises(SpecError) as refused:
        worker_count(text)
    assert str(refused.value).startswith(f"--workers: {text!r} is no ")
    assert str(refused.value).endswith("(allowed: N, or MIN:MAX with 1 <= MIN <= MAX)")


@pytest.mark.parametrize(
    ("nodes", "needs", "share", "at_once"),
    [
        ([Node(2), Node(2)], Needs(), Share(2, 0.0), 2),
        ([Node(2), Node(2), Node(3)], Needs(), Share(2, 0.0), 3),
        ([Node(1), Node(1)], Needs(), Share(2, 0.0), 0),
        ([Node(8, 2)], Needs(trials_per_device=2), Share(1, 0.5), 4),
        ([Node(1), Node(1), Node(1)], Needs(workers=2), Share(1, 0.0), 1),
    ],
)
def test_trials_of_a_share_fit_the_nodes_that_are_there(
    nodes: list[Node], needs: Needs, share: Share, at_once: int
) -> None:
    assert fitting(Resources(tuple(nodes)), needs, share) == at_once
