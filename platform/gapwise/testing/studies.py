"""A study in this process, without Ray: what one worker that nothing happens to would come to."""

from collections.abc import Callable
from pathlib import Path

from gapwise.data.store import open_dataset
from gapwise.spec.search import SearchSpec
from gapwise.tuning.arm import Repeat
from gapwise.tuning.assignment import Assignment, Finished
from gapwise.tuning.book import StudyBook
from gapwise.tuning.opening import settled_space
from gapwise.tuning.second_phase import Rounds, SecondPhase, second_phase
from gapwise.tuning.trial import Place, job_of, run_trial


def run_rounds(rounds: Rounds, run: Callable[[list[Repeat]], list[Finished]]) -> SecondPhase:
    """The second phase, where `run` runs what it asks for and gives all that finished."""
    asked = next(rounds)
    while True:
        try:
            asked = rounds.send(run(asked))
        except StopIteration as ended:
            again: SecondPhase = ended.value
            return again


class StudyHere:
    """Both phases of a study in a folder of its own, trial after trial."""

    def __init__(self, space: SearchSpec, data: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        space = settled_space(space, open_dataset(data))
        self._place = Place(space, str(data), str(folder))
        self._book = StudyBook(space, folder / "journal.log")

    def search(self) -> list[Finished]:
        while (assignment := self._book.next_search()) is not None:
            self._run(assignment)
        return self._book.finished("search")

    def repeat(self) -> list[Finished]:
        """The second phase, after the search."""
        run_rounds(second_phase(self._place, self._book.finished("search")), self._round)
        return self._book.finished("seeds")

    def _round(self, repeats: list[Repeat]) -> list[Finished]:
        self._book.plan_repeats(repeats)
        while (assignment := self._book.next_repeat()) is not None:
            self._run(assignment)
        return self._book.finished("seeds")

    def _run(self, assignment: Assignment) -> None:
        run_trial(self._place, assignment, job_of(self._place, assignment), self._book)
