"""Memory and cores on a real local cluster of four logical CPUs, through Ray Tune and Ray Train.

Faked, inside the workers: memory, as models that fit so many samples only. The functions that do it are defined in the
tests, so that Ray sends them along.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from gapwise.cli.main import main
from gapwise.spec.search import SearchSpec
from gapwise.tuning import executor
from gapwise.tuning.actor import Record, running_book
from gapwise.tuning.assignment import Finished
from gapwise.tuning.executor import PhaseRun, run_phases
from gapwise.tuning.trial import Place

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPACE: dict[str, Any] = {
    "question": "does it fit?",
    "trials": 1,
    "common": {"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2},
    "train": {
        "epochs": 1,
        "patience": 0,
        "batch_size": 200,
        "objective": {"metric": "mae"},
        "protocol": {"rates": [0.0, 0.5]},
    },
    "arms": {"prlf": {}},
    "pruner": {"name": "none"},
}


def searched(data: Path, folder: Path, **changes: Any) -> dict[str, Finished]:
    """A trial of each arm, all at once."""
    folder.mkdir()
    space = SearchSpec.model_validate(SPACE | changes)
    with running_book(folder.name, space, Record(folder)) as book:
        run_phases(book, iter([PhaseRun("search", folder.name, Place(space, str(data), str(folder)), concurrency=2)]))
        finished: list[Finished] = ray.get(book.finished.remote("search"))
        return {one.assignment.key: one for one in finished}


def inside(most: int, notes: Path) -> Callable[[], None]:
    """What a worker does first: from then on models fit `most` samples, and note the threads they found."""

    def prepare() -> None:
        import os

        import torch
        from threadpoolctl import threadpool_info

        from gapwise.models.catalogue import MODELS

        os.environ.pop("OMP_NUM_THREADS", None)
        torch.set_num_threads(3)
        seen: dict[str, Any] = {}

        def note(samples: int) -> None:
            if not seen:
                blas = [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]
                seen.update(torch=torch.get_num_threads(), blas=max(blas), omp=os.environ["OMP_NUM_THREADS"])
                torch.set_num_threads(1)  # On a busy machine further threads wait for very long.
            with notes.open("a") as opened:
                opened.write(json.dumps({"samples": samples, **seen}) + "\n")

        for kind in MODELS.values():
            whole: Any = kind.__dict__.get("whole", kind.forward)

            def forward(self: Any, incomplete: Any, *others: Any, whole: Any = whole) -> Any:
                note(incomplete.size)
                if incomplete.size > most:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return whole(self, incomplete, *others)

            kind.whole, kind.forward = whole, forward  # type: ignore[attr-defined, method-assign]

    return prepare


def noted(notes: Path, name: str) -> set[Any]:
    return {json.loads(line)[name] for line in notes.read_text().splitlines()}


def check(found: dict[str, Finished], micro_batch: int) -> None:
    assert {one.outcome.state for one in found.values()} == {"complete"}
    assert {one.assignment.micro_batch for one in found.values()} == {micro_batch}
    for one in found.values():
        assert one.outcome.objective_changed == (one.assignment.arm == "prlf")


def test_trials_that_do_not_fit_are_cut_and_keep_to_their_cores(
    ray_cluster: None, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = inside(most=60, notes=tmp_path / "notes")

    def cramped(config: dict[str, Any]) -> None:
        from gapwise.tuning.executor import warm_trainable

        prepare()
        warm_trainable(config)

    monkeypatch.setattr(executor, "warm_trainable", cramped)
    found = searched(small, tmp_path / "warm")
    assert sorted(found) == ["late_fusion-0", "prlf-0"]
    check(found, micro_batch=50)
    assert max(noted(tmp_path / "notes", "samples")) == 200
    for name, threads in (("torch", {2}), ("blas", {2}), ("omp", {"2"})):
        assert noted(tmp_path / "notes", name) == threads, "two trials on four cores"


def test_two_workers_a_trial_on_all_cores_are_started_again_when_one_does_not_fit(
    ray_cluster: None, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = inside(most=40, notes=tmp_path / "notes")

    def cramped(config: dict[str, Any]) -> None:
        from gapwise.tuning import executor as there

        def worker(config: dict[str, Any]) -> None:
            from gapwise.distributed.threads import keep_to_own_cpus
            from gapwise.tuning.executor import train_worker

            prepare()
            keep_to_own_cpus()
            train_worker(config)

        run_workers = there.run_workers
        there.run_workers = lambda _, *rest, **named: run_workers(worker, *rest, **named)  # type: ignore[assignment]
        there.train_trainable(config)

    monkeypatch.setattr(executor, "train_trainable", cramped)
    alone = {"late_fusion": None}
    found = searched(small, tmp_path / "train", executor="train", workers_per_trial=2, arms=alone)
    assert list(found) == ["late_fusion-0"]
    check(found, micro_batch=25)
    assert noted(tmp_path / "notes", "torch") == {1}
    attempts = sorted(one.name for one in (tmp_path / "train" / "train").iterdir())
    assert attempts == [f"late_fusion-0-attempt-{number}" for number in (1, 2)]


def test_more_trials_at_once_than_fit_are_refused_before_there_is_a_study(
    ray_cluster: None,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "space.yaml").write_text(json.dumps(SPACE))
    monkeypatch.setenv("GAPWISE_HOME", str(tmp_path / "home"))
    words = ["gapwise", "tune", str(tmp_path / "space.yaml"), "--data", str(small), "--concurrency", "64"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == "error: --concurrency: 64 trials at once do not fit (allowed: at most 4 on 0 GPU, 4 CPU)\n"
    assert not (tmp_path / "home" / "studies").exists()
