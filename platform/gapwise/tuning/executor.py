"""Ray Tune as the scheduler of trials: a searcher that asks the study's book, and the two trainables.

*warm*: a function trainable whose actors are reused, so that the second trial on a device starts in a fraction of a
second. *train*: a trial that takes no device itself and runs a Ray Train job of its own. Tune decides nothing about
configurations or early stopping: the book does, for both alike.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray import tune
from ray.tune.search import Searcher

from gapwise.distributed.cluster import Resources
from gapwise.distributed.launch import run_workers
from gapwise.tuning.actor import ActorLine
from gapwise.tuning.assignment import Assignment, Phase, failure
from gapwise.tuning.trial import Place, job_of, run_trial

_HARDLY_A_CPU = 0.01
"""Tune refuses 0."""


class PhaseRun(NamedTuple):
    """One phase of one study, as Tune is to run it."""

    phase: Phase
    study: str
    place: Place
    concurrency: int
    deadline: float | None = None
    """On `time.monotonic`'s clock: nothing starts later."""


class BookSearcher(Searcher):
    """Tune's view of the book: suggests what the book hands out, and tells it of workers that died for good."""

    def __init__(self, book: Any, run: PhaseRun) -> None:
        super().__init__(metric="done", mode="max")
        self._book, self._run = book, run
        self._running: dict[str, Assignment] = {}

    def given_up(self, trial_id: str, error: str) -> None:
        """A run whose worker died more often than the space allows."""
        deaths = self._run.place.space.worker_deaths + 1
        kind = "OOM" if "OutOfMemoryError" in error else "crash"
        reason = failure(f"{kind}: the worker died {deaths} times; what Ray knows is in the study's tune folder")
        ray.get(self._book.finish.remote(self._running.pop(trial_id), reason))

    def suggest(self, trial_id: str) -> Any:
        if self._run.deadline is not None and time.monotonic() > self._run.deadline:
            return str(Searcher.FINISHED)
        ask = self._book.next_search if self._run.phase == "search" else self._book.next_repeat
        assignment = ray.get(ask.remote())
        if assignment is None:
            return str(Searcher.FINISHED)
        self._running[trial_id] = assignment
        return {"place": self._run.place, "study": self._run.study, "assignment": assignment._asdict()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        del result
        if not error:
            self._running.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal is the study."""

    def restore(self, checkpoint_path: str) -> None:
        del checkpoint_path
        raise AssertionError("a study is continued from its journal, never from Tune's state")


class Deaths(tune.Callback):
    """Tells the searcher of runs that Tune gave up."""

    def __init__(self, searcher: BookSearcher) -> None:
        self._searcher = searcher

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        del iteration, trials, info
        self._searcher.given_up(trial.trial_id, str(trial.get_error()))


def warm_trainable(config: dict[str, Any]) -> None:
    """One assignment on this actor's device."""
    place, assignment, line = _unpack(config)
    run_trial(place, assignment, job_of(place, assignment), line)
    tune.report({"done": 1})


def train_trainable(config: dict[str, Any]) -> None:
    """One assignment as a Ray Train run with workers of its own."""
    place, assignment, _ = _unpack(config)
    storage = Path(place.folder) / "train"
    attempt = len(list(storage.glob(f"{assignment.key}-attempt-*"))) + 1
    run_workers(
        train_worker,
        config,
        workers=place.space.workers_per_trial,
        name=f"{assignment.key}-attempt-{attempt}",
        storage=storage,
    )
    tune.report({"done": 1})


def train_worker(config: dict[str, Any]) -> None:
    """What each of those workers does."""
    from gapwise.distributed.worker import data_parallel, tell_driver

    place, assignment, line = _unpack(config)
    run_trial(place, assignment, data_parallel(job_of(place, assignment)), line)
    tell_driver({"done": 1})


def _unpack(config: dict[str, Any]) -> tuple[Place, Assignment, ActorLine]:
    return config["place"], Assignment(**config["assignment"]), ActorLine(config["study"])


def run_phase(book: Any, run: PhaseRun) -> None:
    """Run everything that the book hands out for a phase; returns when it has nothing left and nothing runs."""
    trainable, needs = _trainable(run.place, run.concurrency)
    searcher = BookSearcher(book, run)
    tuner = tune.Tuner(
        tune.with_resources(trainable, needs),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            max_concurrent_trials=run.concurrency,
            reuse_actors=run.place.space.executor == "warm",
        ),
        run_config=tune.RunConfig(
            name=run.phase,
            storage_path=str(Path(run.place.folder) / "tune"),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=run.place.space.worker_deaths),
            callbacks=[Deaths(searcher)],
        ),
    )
    tuner.fit()


def _trainable(place: Place, concurrency: int) -> tuple[Any, dict[str, float]]:
    if place.space.executor == "train":
        return train_trainable, {"CPU": _HARDLY_A_CPU}
    total = ray.cluster_resources()
    gpu = {"GPU": total["GPU"] / concurrency} if total.get("GPU") else {}
    return warm_trainable, {"CPU": max(1.0, total["CPU"] // concurrency), **gpu}


def default_concurrency(space_executor: str, workers_per_trial: int, available: Resources) -> int:
    """One trial a device: a GPU where there are any, a CPU core otherwise."""
    devices = available.gpus or available.cpus
    return max(1, devices // workers_per_trial if space_executor == "train" else devices)
