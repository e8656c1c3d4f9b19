"""Ray Tune as the scheduler of trials: a searcher that asks the study's book, and the two trainables.

*warm*: a function trainable whose actors are reused, so that the second trial on a device starts in a fraction of a
second. *train*: a trial that takes no device itself and runs a Ray Train job of its own. Tune decides nothing about
configurations or early stopping: the book does, for both alike.

All phases of a study are one run of Tune: when nothing of a phase is left and nothing runs, the searcher asks for the
next. A worker that has nothing to do until then waits, because Tune stops all idle actors but one.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ray
import ray.exceptions
from ray import tune
from ray.tune.search import ConcurrencyLimiter, SearchAlgorithm, Searcher

from gapwise.distributed.cluster import resources
from gapwise.distributed.launch import Restart, next_attempt, run_workers
from gapwise.distributed.notice import Notice
from gapwise.distributed.placement import Needs, Share, fitting, most_at_once, place
from gapwise.distributed.side_by_side import Run
from gapwise.distributed.threads import keep_to_own_cpus
from gapwise.spec.search import SearchSpec
from gapwise.tuning.actor import ActorHand, ActorLine
from gapwise.tuning.assignment import Assignment, Phase, failure
from gapwise.tuning.pack import Pack
from gapwise.tuning.pack_size import at_once
from gapwise.tuning.refit import refit_one
from gapwise.tuning.trial import Place, job_of, run_trial

_log = logging.getLogger(__name__)
logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
"""Tune would say, with a traceback, that it cannot keep a state which nothing here reads."""
_NEXT_TO_NOTHING: dict[str, int | float] = {"memory": 1}
"""For a trial that waits for its own workers: Tune refuses nothing at all, and where a hundredth of a core is taken, as
many workers as there are cores wait for ever."""
_SECONDS_BETWEEN_LOOKS = 2.0
"""At the nodes that are there."""
_SECONDS_BETWEEN_CALLS = 0.3
"""Of a worker that waits for the next phase."""
NO_LIMIT = 1_000_000
"""Tune wants one of its own before it starts several trials at a time; the searcher's is the one that counts."""
_KILLED_FOR_MEMORY = ("OutOfMemoryError", "NODE_OUT_OF_MEMORY", "running low on memory")
"""What Ray says of a worker that its memory monitor killed."""


class PhaseRun(NamedTuple):
    """One phase of one study, as Tune is to run it."""

    phase: Phase | Literal["refit"]
    book: str
    """By which workers reach the book."""
    place: Place
    concurrency: int
    deadline: float | None = None
    """Of the search, on `time.monotonic`'s clock: nothing starts later but what a dead driver left."""
    grows: bool = False
    """Whether the concurrency is as many as fit, and so changes with the nodes that go and come."""
    refits: tuple[Run, ...] = ()
    """Of the refit, which the book knows nothing of: what is to be trained."""


class Room:
    """How many trials may run at once: a fixed number, or as many as fit the nodes that are there now."""

    def __init__(self, run: PhaseRun, share: Share, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._share, self._clock = run, share, clock
        self._most, self._looked = run.concurrency, clock()

    def __call__(self) -> int:
        if self._run.grows and self._clock() - self._looked >= _SECONDS_BETWEEN_LOOKS:
            self._most = max(1, fitting(resources(), needs_of(self._run.place.space), self._share))
            self._looked = self._clock()
        return self._most


class PackRun(NamedTuple):
    """What a worker that trains many at once is told; to Tune it is one trial."""

    name: str
    phase: Phase
    until: float | None
    """In seconds since 1970: nothing new starts later."""
    refill: bool
    """Whether who ends makes room for another; if not, the pack ends, and its device may be somebody else's."""


class BookSearcher(Searcher):
    """Tune's view of a study: suggests what the book hands out, and tells it of workers that died for good.

    When a phase is over `then` is asked for the next; what it raises is kept in `broke`, and ends the run.
    """

    _stays = True
    """Whether devices are kept until all is done. Elsewhere they may be others' at any moment: a pack, too, takes in
    nothing for what ended."""

    def __init__(self, book: Any, run: PhaseRun, share: Share, then: Iterator[PhaseRun] | None = None) -> None:
        super().__init__(metric="done", mode="max")
        self._book, self._share, self._then = book, share, then or iter(())
        self._packs = run.place.space.pack != 1
        self._warm = run.place.space.executor == "warm"
        self._running: dict[str, Assignment | Run] = {}
        self._waiting: set[str] = set()
        self._workers = 0
        """Most that worked at once: so many actors are there to be kept."""
        self._released = 0
        """How often those that waited were told to go."""
        self.broke: BaseException | None = None
        self._begin(run)

    def _begin(self, run: PhaseRun) -> None:
        self._run, self._room = run, Room(run, self._share)
        self._refits = deque(run.refits)
        self._dry = False

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy on disk, which nothing reads."""
        return {}

    def given_up(self, trial_id: str, error: str) -> None:
        """A run whose worker died more often than the space allows; of a pack, what it had begun with."""
        self._make_room()
        if trial_id in self._waiting:
            self._waiting.remove(trial_id)
            return
        deaths = self._run.place.space.worker_deaths + 1
        kind = "OOM" if killed_for_memory(error) else "crash"
        last = next((line.strip() for line in reversed(error.splitlines()) if line.strip()), "no word from Ray")
        reason = f"{kind}: the worker died {deaths} times, the last time of: {last[:300]}"
        given = self._running.pop(trial_id)
        if isinstance(given, Run):
            _log.warning("refit %s: %s", given.name, reason)
        elif self._packs:
            ray.get(self._book.give_up_pack.remote(trial_id, failure(reason)))
        else:
            ray.get(self._book.give_up.remote(given, failure(reason)))

    def starts_again(self, trial_id: str, error: str) -> None:
        """A run whose worker died: with a smaller micro-batch, if that was for lack of memory. A pack halves itself."""
        self._make_room()
        given = self._running.get(trial_id)
        if self._packs or not isinstance(given, Assignment):
            return
        now = ray.get(self._book.begin.remote(given)) if killed_for_memory(error) else None
        if now is not None:
            ray.get(self._book.out_of_memory.remote(now))

    def _make_room(self) -> None:
        """What a dead worker left may have no other place than that of one who waits: nobody does any more.

        Until work is handed out again.
        """
        self._dry, self._workers = False, 0
        self._release()

    def _release(self) -> None:
        """Those that wait may go."""
        if self._waiting:
            self._released += 1
            ray.get(self._book.release.remote(self._released))

    def _late(self) -> bool:
        return self._run.deadline is not None and time.monotonic() > self._run.deadline

    def suggest(self, trial_id: str) -> Any:
        busy = len(self._running) + len(self._waiting)
        if self._running and busy >= self._room():
            return None  # not now
        given = None if self._dry else self._next(trial_id)
        if given is None:
            return self._without(trial_id, busy)
        self._release()
        self._running[trial_id] = given
        self._workers = max(self._workers, busy + 1)
        if isinstance(given, Run):
            return self._config(refit=given._asdict())
        if self._packs:
            assert self._run.phase != "refit"
            return self._config(pack=PackRun(trial_id, self._run.phase, self._until(), self._stays)._asdict())
        return self._config(assignment=given._asdict())

    def _config(self, **what: Any) -> dict[str, Any]:
        return {"place": self._run.place, "book": self._run.book, "share": self._share, **what}

    def left(self) -> int:
        """How many runs of this phase wait."""
        if self._run.phase != "refit":
            counted: int = ray.get(self._book.on_hand.remote(self._run.phase, self._late()))
            return counted
        return 0 if self._refits and ray.get(self._book.paused.remote()) else len(self._refits)

    def _next(self, trial_id: str) -> Assignment | Run | None:
        if self._run.phase == "refit":
            return self._refits.popleft() if self.left() else None
        if self._packs:
            asked = self._book.take.remote(trial_id, self._run.phase, self._late())
        elif self._run.phase == "search":
            asked = self._book.next_search.remote(self._late())
        else:
            asked = self._book.next_repeat.remote()
        assignment: Assignment | None = ray.get(asked)
        return assignment

    def _without(self, trial_id: str, busy: int) -> Any:
        """What a worker is to do for which nothing of this phase is left."""
        if not self._stays:
            return str(Searcher.FINISHED)
        self._dry = True
        if self._running:
            if not self._warm or busy >= self._workers:
                return None
            self._waiting.add(trial_id)
            return self._config(wait=self._released)
        try:
            run = next(self._then, None)
        except BaseException as error:  # noqa: BLE001 - raised again where Tune has ended
            self.broke, run = error, None
        self._release()
        if run is None:
            return str(Searcher.FINISHED)
        self._begin(run)
        return self.suggest(trial_id)  # where nothing runs, Tune sleeps for a second after a None

    def _until(self) -> float | None:
        """The deadline on a clock that other machines have too."""
        deadline = self._run.deadline
        if deadline is None or deadline == math.inf:
            return None
        return time.time() + deadline - time.monotonic()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        del result
        if not error:
            self._dry = False
            self._running.pop(trial_id, None)
            self._waiting.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal is the study."""

    def restore(self, checkpoint_path: str) -> None:
        del checkpoint_path
        raise AssertionError("a study is continued from its journal, never from Tune's state")


class Deaths(tune.Callback):
    """Tells the searcher of runs whose worker died, and of those that Tune gave up."""

    def __init__(self, searcher: BookSearcher) -> None:
        self._searcher = searcher

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        del iteration, trials, info
        self._searcher.starts_again(trial.trial_id, str(trial.get_error()))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        del iteration, trials, info
        self._searcher.given_up(trial.trial_id, str(trial.get_error()))


def killed_for_memory(error: str) -> bool:
    return any(words in error for words in _KILLED_FOR_MEMORY)


def warm_trainable(config: dict[str, Any]) -> None:
    """What this actor was given, on its device. At a notice it leaves, and Tune goes on with it on another node."""
    what = next(kind for kind in _WARM if kind in config)
    keep_to_own_cpus()
    try:
        _WARM[what](config)
    except Restart as left:  # in the words in which Ray tells it, which Tune does not count as a failure
        raise ray.exceptions.RayActorError(error_msg=str(left), preempted=True) from left
    tune.report({"done": 1})


def _one(config: dict[str, Any]) -> None:
    where, assignment, line = _unpack(config)
    run_trial(where, assignment, job_of(where, assignment), line, Notice())


def _pack(config: dict[str, Any]) -> None:
    """As many assignments as are left, many at once."""
    where, line, told = config["place"], ActorLine(config["book"]), PackRun(**config["pack"])
    hand = ActorHand(config["book"], told.name, told.phase, until=told.until, refills=told.refill)
    left, deaths = hand.start()
    most = max(1, at_once(where, left) >> deaths)
    hand.fill(most, len(left))
    Pack(where, hand, line, most=most, left=left, notice=Notice()).run()


def _refit(config: dict[str, Any]) -> None:
    line = ActorLine(config["book"])
    refit_one(config["place"], Run(**config["refit"]), line, Notice(), Notice(line.paused))


def _wait(config: dict[str, Any]) -> None:
    """Keep this actor, and all that it has loaded, for the next phase."""
    line = ActorLine(config["book"])
    while line.released() == config["wait"]:
        time.sleep(_SECONDS_BETWEEN_CALLS)


_WARM = {"assignment": _one, "pack": _pack, "refit": _refit, "wait": _wait}


def train_trainable(config: dict[str, Any]) -> None:
    """One assignment as a Ray Train run with workers of its own; another one where memory was short."""
    where, assignment, line = _unpack(config)
    now = line.begin(assignment)
    while now is not None:
        now = _train_run(where, now, line, config)
    tune.report({"done": 1})


def _train_run(where: Place, assignment: Assignment, line: ActorLine, config: dict[str, Any]) -> Assignment | None:
    """Returns what is to be run next."""
    storage = Path(where.folder) / "train"
    try:
        run_workers(
            train_worker,
            config,
            workers=where.space.workers_per_trial,
            name=next_attempt(storage, f"{assignment.key}-attempt"),
            storage=storage,
            share=config["share"],
        )
    except Restart:
        return line.begin(assignment)
    except ray.exceptions.RayError as error:
        again = line.out_of_memory(assignment) if killed_for_memory(str(error)) else None
        if again is None:
            raise
        return again
    return None


def train_worker(config: dict[str, Any]) -> None:
    """What each of those workers does."""
    from gapwise.distributed.worker import data_parallel, tell_driver

    where, assignment, line = _unpack(config)
    run_trial(where, assignment, data_parallel(job_of(where, assignment)), line, Notice())
    tell_driver({"done": 1})


def _unpack(config: dict[str, Any]) -> tuple[Place, Assignment, ActorLine]:
    return config["place"], Assignment(**config["assignment"]), ActorLine(config["book"])


def run_phases(book: Any, phases: Iterator[PhaseRun]) -> None:
    """Run everything that the book hands out for a phase, then the next; returns when there is none.

    Of more trials at once than fit by now, those that fit run. Raises SpecError where not even one does, and what
    `phases` raises, when nothing runs any more.
    """
    first = next(phases, None)
    if first is None:
        return
    found, needs = resources(), needs_of(first.place.space)
    fit = most_at_once(found, needs)
    at_once, share = place(found, needs, None if first.grows or first.concurrency > fit else first.concurrency)
    each = (run._replace(concurrency=at_once) for run in phases)
    searcher = BookSearcher(book, first._replace(concurrency=at_once), share, each)
    run_on_tune(first.place, searcher, ConcurrencyLimiter(searcher, max_concurrent=NO_LIMIT), share)
    if searcher.broke is not None:
        raise searcher.broke


def run_on_tune(where: Place, searcher: BookSearcher, asked: Searcher | SearchAlgorithm, share: Share) -> None:
    """Until what Tune asks, which is around the searcher, is finished and nothing runs."""
    tuner = tune.Tuner(
        _trainable(where.space, share),
        tune_config=tune.TuneConfig(
            search_alg=asked,
            num_samples=-1,
            reuse_actors=where.space.executor == "warm",
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(Path(where.folder) / "tune"),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=where.space.worker_deaths),
            callbacks=[Deaths(searcher)],
        ),
    )
    tuner.fit()


def _trainable(space: SearchSpec, share: Share) -> Any:
    if space.executor == "train":
        return tune.with_resources(train_trainable, tune.PlacementGroupFactory([_NEXT_TO_NOTHING]))
    gpu = {"GPU": share.gpus} if share.gpus else {}
    return tune.with_resources(warm_trainable, {"CPU": share.cpus, **gpu})


def needs_of(space: SearchSpec) -> Needs:
    return Needs(space.workers_per_trial, space.trials_per_device)
