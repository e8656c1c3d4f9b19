"""The study's book: the one writer of the journal. It hands out assignments, judges reports, records endings.

It lives in one small Ray actor, so that both executors ask the same rules; it is plain Python, so that those are
tested without Ray. A trial that the journal calls RUNNING when the book is opened belonged to a driver that died: it is
handed out again under its own number, and its worker continues from its last checkpoint.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gapwise.spec.search import SearchSpec
from gapwise.tuning.arm import ArmStudy, Repeat, Shelf
from gapwise.tuning.assignment import PHASES, Assignment, Finished, Outcome, Phase, Verdict, failure
from gapwise.tuning.events import EventLog, events_beside
from gapwise.tuning.history import WarmStart
from gapwise.tuning.storage import open_storage


class Spent(NamedTuple):
    """Used by a search, over all its sessions."""

    epochs: int
    device_seconds: float


@dataclass(kw_only=True, slots=True)
class Hold:
    """What a worker that trains many at once has, by key."""

    given: dict[str, Assignment] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    """Since the worker started, or started again."""
    starts: int = 0


class StudyBook:
    """One study: an `ArmStudy` for each (phase, arm) in one storage.

    `where` is a journal of the study's own, or the URL of a database, where its names begin with `prefix`; `events` is
    the file of its events, beside the journal where none is named; `earlier` is what earlier studies give.
    """

    def __init__(
        self,
        space: SearchSpec,
        where: Path | str,
        *,
        events: Path | None = None,
        prefix: str = "",
        retry_failed: bool = False,
        earlier: WarmStart | None = None,
    ) -> None:
        self._arms = space.arm_names()
        given = {arm: earlier.of(arm) for arm in self._arms} if earlier else {}
        shelf = Shelf(open_storage(where), prefix, given)
        self._studies = {
            (phase, arm): ArmStudy(space, phase, arm, shelf, retry_failed=retry_failed)
            for arm in self._arms
            for phase in PHASES
        }
        self._events = EventLog(events or events_beside(Path(where)))
        self._budget, self._devices = space.budget, space.workers_per_trial
        self._trials_of = space.trials_of
        self._paused, self._full = False, ""
        self._packs: dict[str, Hold] = {}
        for ended in (*self.finished("search"), *self.finished("seeds")):  # a driver may die before it notes an ending
            self._note("finished", ended.assignment, ended.outcome._asdict())

    def pause(self) -> None:
        """From now on nothing starts, and whoever tells an epoch hears that it should leave."""
        self._paused = True

    def pause_for_room(self, said: str) -> None:
        """The same, because a disk is full: no run has failed, whatever becomes of its worker."""
        self._full = self._full or said
        self.pause()

    def paused(self) -> bool:
        return self._paused

    def full(self) -> str:
        """Why it was paused, if for want of room; otherwise empty."""
        return self._full

    def spent(self) -> Spent:
        """What the search has used so far."""
        studies = [self._studies["search", arm] for arm in self._arms]
        return Spent(sum(one.epochs for one in studies), self._devices * sum(one.seconds for one in studies))

    def used_up(self) -> bool:
        """Whether a budget of epochs or device-seconds is."""
        spent, budget = self.spent(), self._budget
        limits = ((spent.epochs, budget.epochs), (spent.device_seconds, budget.device_seconds))
        return any(limit is not None and used >= limit for used, limit in limits)

    def next_search(self, late: bool = False, arm: str | None = None) -> Assignment | None:
        """The next configuration to train: what a dead driver left, then one of the arm that is furthest behind.

        A configuration whose training is on record is answered from there, and the question goes on. None where the
        trials or the budget are used up (`late`: that of time, which only the driver knows), or the study is paused;
        and where an `arm` is asked for that has none left.
        """
        while not self._paused and (assignment := self._adopt("search", arm) or self._ask(late, arm)) is not None:
            self._note("started", assignment, {})
            answer = self._studies["search", assignment.arm].answer(assignment)
            if answer is None:
                return assignment
            self.finish(assignment, answer)
        return None

    def _ask(self, late: bool, arm: str | None) -> Assignment | None:
        if late or self.used_up():
            return None
        behind = min(self._arms, key=lambda name: self._studies["search", name].share)
        study = self._studies["search", arm or behind]
        return study.ask() if study.share < 1.0 else None

    def _adopt(self, phase: Phase, arm: str | None = None) -> Assignment | None:
        left = (self._studies[phase, one].adopt() for one in ([arm] if arm else self._arms))
        return next((assignment for assignment in left if assignment is not None), None)

    def take(
        self, pack: str, phase: Phase, late: bool = False, arm: str | None = None, most: int = 1
    ) -> Assignment | None:
        """One more for a worker that trains many at once, of an `arm` where one is named; the book keeps in mind who
        has it. None as in `next_search`, and where the arm has had `most` trials more than its part.
        """
        hold = self._packs.setdefault(pack, Hold())
        if phase == "search":
            found = None if arm and self._ahead(arm, most) else self.next_search(late, arm)
        else:
            found = self.next_repeat(arm)
        if found is not None:
            hold.given[found.key] = found
        return found

    def _ahead(self, arm: str, most: int) -> bool:
        """Whether others come first: they are so far behind."""
        behind = min(self._studies["search", one].share for one in self._arms)
        return (self._studies["search", arm].share - behind) * self._trials_of(arm) >= most

    def start_pack(self, pack: str) -> tuple[list[Assignment], int]:
        """What a worker has when it starts, and how often it died before."""
        hold = self._packs.setdefault(pack, Hold())
        hold.starts += 1
        hold.begun.clear()
        return list(hold.given.values()), hold.starts - 1

    def give_up_pack(self, pack: str, outcome: Outcome) -> None:
        """Its worker died too often: what it had begun fails, and what it had not goes to others."""
        hold = self._packs.pop(pack, Hold())
        for key, assignment in hold.given.items():
            if key in hold.begun:
                self.give_up(assignment, outcome)
            else:
                self._of(assignment).put_back(assignment)

    def plan_repeats(self, repeats: list[Repeat]) -> int:
        """Queue the second phase's runs, those in the journal excepted; returns how many wait."""
        for arm in self._arms:
            self._studies["seeds", arm].plan([repeat for repeat in repeats if repeat.arm == arm])
        return sum(self._studies["seeds", arm].left for arm in self._arms)

    def next_repeat(self, arm: str | None = None) -> Assignment | None:
        if self._paused:
            return None
        assignment = self._adopt("seeds", arm)
        if assignment is None:
            among = [self._studies["seeds", one] for one in ([arm] if arm else self._arms)]
            waiting = next((study for study in among if study.waits), None)
            assignment = waiting.ask() if waiting is not None else None
        if assignment is not None:
            self._note("started", assignment, {})
        return assignment

    def unfinished(self) -> int:
        """Searched trials still to run."""
        return sum(self._studies["search", arm].left for arm in self._arms)

    def on_hand(self, phase: Phase, late: bool) -> int:
        """How many runs of a phase it would hand out by and by, if nobody paused it; `late` as in `next_search`."""
        if self._paused:
            return 0
        studies = [self._studies[phase, arm] for arm in self._arms]
        only_left_behind = phase == "search" and (late or self.used_up())
        return sum(one.left_behind if only_left_behind else one.left for one in studies)

    def begin(self, assignment: Assignment) -> Assignment | None:
        """How a worker should run this; None if it has ended (its worker died just after), or in a pause."""
        for hold in self._packs.values():
            if assignment.key in hold.given:
                hold.begun.add(assignment.key)
        return None if self._paused else self._of(assignment).current(assignment.number)

    def out_of_memory(self, assignment: Assignment) -> Assignment | None:
        """How to run it once more, because it did not fit; None where there is no other way."""
        return self._of(assignment).shrink(assignment)

    def report(self, assignment: Assignment, epoch: int, cost: float, body: dict[str, Any]) -> Verdict:
        """Journal one epoch, unless it is there already, and say how to go on."""
        self._note("reported", assignment, body | {"epoch": epoch, "cost": cost})
        if self._of(assignment).report(assignment.number, epoch, cost, body):
            return "stop"
        return "pause" if self._paused else "go on"

    def finish(self, assignment: Assignment, outcome: Outcome) -> None:
        """Record an ending that a worker tells; one that is recorded already stays what it is.

        Nobody listens to a worker whose attempt was given up because another worker of the trial ran out of memory.
        """
        now = self._of(assignment).current(assignment.number)
        if now is not None and now.micro_batch == assignment.micro_batch:
            self._end(now, outcome)

    def give_up(self, assignment: Assignment, outcome: Outcome) -> None:
        """Record the ending of a run without workers, whatever they had been told."""
        now = self._of(assignment).current(assignment.number)
        if now is not None and not self._full:
            self._end(now, outcome)

    def _end(self, assignment: Assignment, outcome: Outcome) -> None:
        recorded = self._of(assignment).finish(assignment.number, outcome)
        for hold in self._packs.values():
            hold.given.pop(assignment.key, None)
        if recorded is not None:
            self._note("finished", assignment, recorded._asdict())

    def lose(self, phase: Phase) -> None:
        """End what was handed out and never ended, when no worker is left that could."""
        for arm in self._arms:
            for assignment in self._studies[phase, arm].handed_out():
                self.finish(assignment, failure("crash: its worker went away without a word"))

    def _of(self, assignment: Assignment) -> ArmStudy:
        return self._studies[assignment.phase, assignment.arm]

    def finished(self, phase: Phase) -> list[Finished]:
        """Every assignment of a phase that has ended, in the order of arms and numbers."""
        return [one for arm in self._arms for one in self._studies[phase, arm].finished()]

    def _note(self, kind: str, assignment: Assignment, body: dict[str, Any]) -> None:
        self._events.note(kind, assignment, body)
