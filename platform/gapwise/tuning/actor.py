"""The study's book as a Ray actor, and the line by which workers reach it by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ray

from gapwise.spec.search import SearchSpec
from gapwise.tuning.assignment import Assignment, Outcome, Verdict
from gapwise.tuning.book import StudyBook
from gapwise.tuning.journal import JOURNAL_FILE
from gapwise.tuning.storage import JOURNAL


def actor_name(study: str) -> str:
    return f"study {study}"


class Record(NamedTuple):
    """Where a study is recorded, and how it is opened this time."""

    folder: Path
    storage: str = JOURNAL
    retry_failed: bool = False


@contextmanager
def running_book(study: str, space: SearchSpec, record: Record) -> Iterator[Any]:
    """The actor that owns the study's record, from when it is open until the context is left."""
    remote: Any = ray.remote(StudyBook)
    own = record.storage == JOURNAL
    book = remote.options(name=actor_name(study), num_cpus=0).remote(
        space,
        record.folder / JOURNAL_FILE if own else record.storage,
        prefix="" if own else f"{study}/",
        retry_failed=record.retry_failed,
    )
    try:
        ray.get(book.unfinished.remote())
        yield book
    finally:
        ray.kill(book)


class ActorLine:
    """A worker's `StudyLine`: each call waits for the book's answer, a few milliseconds."""

    def __init__(self, study: str) -> None:
        self._book: Any = ray.get_actor(actor_name(study))

    def begin(self, assignment: Assignment) -> bool:
        return bool(ray.get(self._book.begin.remote(assignment)))

    def report(self, assignment: Assignment, epoch: int, cost: float, body: dict[str, Any]) -> Verdict:
        verdict: Verdict = ray.get(self._book.report.remote(assignment, epoch, cost, body))
        return verdict

    def finish(self, assignment: Assignment, outcome: Outcome) -> None:
        ray.get(self._book.finish.remote(assignment, outcome))
