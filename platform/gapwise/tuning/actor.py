"""The study's book as a Ray actor, and the line by which workers reach it by name."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gapwise.distributed.lock import taken
from gapwise.distributed.threads import keep_to_own_cpus
from gapwise.errors import StudyError
from gapwise.spec.search import SearchSpec
from gapwise.tuning.assignment import Assignment, LineLost, Outcome, Phase, Verdict
from gapwise.tuning.book import StudyBook
from gapwise.tuning.events import events_beside
from gapwise.tuning.history import load_history
from gapwise.tuning.journal import JOURNAL_FILE, repair
from gapwise.tuning.record import shelf_prefix
from gapwise.tuning.storage import JOURNAL

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 60.0


def actor_name(book: str) -> str:
    return f"study {book}"


class Record(NamedTuple):
    """Where a study is recorded, and how it is opened this time."""

    folder: Path
    storage: str = JOURNAL
    retry_failed: bool = False

    @property
    def journal(self) -> Path:
        return self.folder / JOURNAL_FILE

    @property
    def events(self) -> Path:
        """What the study's watchers are told, one JSON line each."""
        return events_beside(self.journal)


class BookActor(StudyBook):
    """The book in a process of its own; no second one opens the record until that process is gone.

    A driver that is killed leaves its actors a moment longer to live.
    """

    def __init__(self, space: SearchSpec, record: Record) -> None:
        self._asked = space, record
        self._released = 0

    def release(self, times: int) -> None:
        """Those that wait for the next phase may go."""
        self._released = times

    def released(self) -> int:
        """How often they were let go in this session."""
        return self._released

    def open(self) -> str | None:
        """Returns the file with what was torn off the journal's end, if anything was.

        Raises StudyError: a constructor's errors would come out as the actor's death.
        """
        keep_to_own_cpus()  # a Gaussian process would take all cores from the trials
        space, record = self._asked
        self._held = _lock(record.folder / "book.lock")
        own = record.storage == JOURNAL
        torn = repair(record.journal) if own else None
        super().__init__(
            space,
            record.journal if own else record.storage,
            events=record.events,
            prefix="" if own else shelf_prefix(record.folder),
            retry_failed=record.retry_failed,
            earlier=load_history(record.folder) if space.warm_start else None,
        )
        return None if torn is None else str(torn)


def _lock(file: Path) -> IO[str]:
    """Held by this process for as long as it lives. Raises StudyError where another one does not let go."""
    opened = file.open("a")
    if not taken(opened, _PATIENCE_SECONDS):
        raise StudyError("the book of an earlier driver is still open", where=str(file))
    return opened


@contextmanager
def running_book(name: str, space: SearchSpec, record: Record) -> Iterator[Any]:
    """The actor that owns the study's record, from when it is open until the context is left.

    It lives on the driver's node: no other node that is lost takes the study with it.
    """
    remote: Any = ray.remote(BookActor)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    book = remote.options(name=actor_name(name), num_cpus=0, scheduling_strategy=here).remote(space, record)
    try:
        torn = ray.get(book.open.remote())
        if torn:
            _log.warning("the journal ended in the middle of a line; it goes on before it, and the rest is in %s", torn)
        yield book
    finally:
        ray.kill(book)


class ActorLine:
    """A worker's `StudyLine`: each call waits for the book's answer, a few milliseconds. Raises LineLost."""

    def __init__(self, book: str) -> None:
        self._book: Any = ray.get_actor(actor_name(book))

    def begin(self, assignment: Assignment) -> Assignment | None:
        now: Assignment | None = _heard(self._book.begin.remote(assignment))
        return now

    def out_of_memory(self, assignment: Assignment) -> Assignment | None:
        again: Assignment | None = _heard(self._book.out_of_memory.remote(assignment))
        return again

    def paused(self) -> bool:
        said: bool = _heard(self._book.paused.remote())
        return said

    def released(self) -> int:
        said: int = _heard(self._book.released.remote())
        return said

    def report(self, assignment: Assignment, epoch: int, cost: float, body: dict[str, Any]) -> Verdict:
        verdict: Verdict = _heard(self._book.report.remote(assignment, epoch, cost, body))
        return verdict

    def pause_for_room(self, said: str) -> None:
        _heard(self._book.pause_for_room.remote(said))

    def finish(self, assignment: Assignment, outcome: Outcome) -> None:
        _heard(self._book.finish.remote(assignment, outcome))


class ActorHand:
    """A worker's `Hand`: what the book gives to this pack. Raises LineLost.

    `until` is when nothing new starts, in seconds since 1970. One that is not refilled takes what fits at once.
    """

    def __init__(self, book: str, pack: str, phase: Phase, *, until: float | None, refills: bool) -> None:
        self._book: Any = ray.get_actor(actor_name(book))
        self._pack, self._phase, self._until, self.refills = pack, phase, until, refills
        self._most, self._left = 1, 0

    def start(self) -> tuple[list[Assignment], int]:
        """What it was given before, and how often its worker died."""
        found: tuple[list[Assignment], int] = _heard(self._book.start_pack.remote(self._pack))
        return found

    def fill(self, most: int, given: int) -> None:
        """So many fit at once, and so many are there."""
        self._most, self._left = most, most - given

    def take(self, arm: str | None) -> Assignment | None:
        if not (self.refills or self._left > 0):
            return None
        self._left -= 1
        late = self._until is not None and time.time() > self._until
        found: Assignment | None = _heard(self._book.take.remote(self._pack, self._phase, late, arm, self._most))
        return found


def _heard(answer: Any) -> Any:
    try:
        return ray.get(answer)
    except ray.exceptions.RayError as error:
        raise LineLost(f"the study's book does not answer: {error}") from error
