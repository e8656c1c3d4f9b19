"""The study's book: the one writer of the journal. It hands out assignments, judges reports, records endings.

It lives in one small Ray actor, so that both executors ask the same pruner; it is plain Python, so that its rules are
tested without Ray. A trial that the journal calls RUNNING when the book is opened belonged to a driver that died: it is
handed out again under its own number, and its worker continues from its last checkpoint.
"""

import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from gapwise.spec.search import SearchSpec
from gapwise.tuning.assignment import Assignment, Finished, Outcome, Phase, State, Values, failure
from gapwise.tuning.journal import open_journal
from gapwise.tuning.searchers import build_pruner, build_sampler, question_seed
from gapwise.tuning.space import default_values, distributions

_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_STOPPED = "stopped"
_TRIAL_STATES = {name: state for state, name in _STATES.items()}


class Event(NamedTuple):
    """Something that observers (MLflow, the progress display) want to know."""

    kind: str
    """started, reported or finished."""
    assignment: Assignment
    body: dict[str, Any]
    time: float
    """Seconds since the epoch, on the book's clock."""


class Repeat(NamedTuple):
    """A configuration to run again with one more seed."""

    arm: str
    source: int
    values: Values
    seed: int


class StudyBook:
    """One study: an Optuna study for each (phase, arm) in one journal."""

    def __init__(self, space: SearchSpec, journal: Path) -> None:
        self._space = space
        self._storage = open_journal(journal)
        self._studies: dict[tuple[Phase, str], optuna.Study] = {}
        self._live: dict[tuple[Phase, str, int], Trial] = {}
        self._adopted: deque[Assignment] = deque()
        self._events: list[Event] = []
        for arm in space.arm_names():
            self._open("search", arm)
            self._open("seeds", arm)

    def _open(self, phase: Phase, arm: str) -> None:
        pruner = build_pruner(self._space.pruner) if phase == "search" else optuna.pruners.NopPruner()
        study = optuna.create_study(
            storage=self._storage,
            study_name=f"{phase}/{arm}",
            pruner=pruner,
            sampler=build_sampler(self._space.sampler, question_seed(self._space.seed, arm, 0)),
            load_if_exists=True,
        )
        self._studies[phase, arm] = study
        trials = study.get_trials(deepcopy=False)
        if phase == "search" and not trials:
            study.enqueue_trial(default_values(self._space, arm))
        for trial in trials:
            if trial.state is TrialState.RUNNING:
                self._live[phase, arm, trial.number] = self._completed(arm, study, trial)
                whole = study.get_trials(deepcopy=False)[trial.number]
                self._adopted.append(_assignment(phase, arm, whole, self._space.seed))

    def _completed(self, arm: str, study: optuna.Study, trial: FrozenTrial) -> Trial:
        """A RUNNING trial, live again. A driver may die between two parameters of a question: ask for the rest.

        A value that is there already is drawn once more and thrown away, so that the others are what they would have
        been.
        """
        study.sampler = build_sampler(self._space.sampler, question_seed(self._space.seed, arm, trial.number))
        live = Trial(study, trial._trial_id)
        for path, distribution in distributions(self._space, arm).items():
            if path in trial.params and path not in live.relative_params:
                study.sampler.sample_independent(study, trial, path, distribution)
            live._suggest(path, distribution)
        return live

    def next_search(self) -> Assignment | None:
        """The next configuration: first what a dead driver left, then the arm that is furthest behind its share."""
        adopted = self._adopt("search")
        if adopted is not None:
            return adopted
        behind = [(self.asked(arm) / self._space.trials_of(arm), arm) for arm in self._space.arm_names()]
        share, arm = min(behind, key=lambda one: one[0])
        if share >= 1.0:
            return None
        study = self._studies["search", arm]
        study.sampler = build_sampler(self._space.sampler, question_seed(self._space.seed, arm, self.asked(arm)))
        trial = study.ask(distributions(self._space, arm))
        trial.set_user_attr("seed", self._space.seed)
        return self._start("search", arm, trial)

    def plan_repeats(self, repeats: list[Repeat]) -> int:
        """Queue the second phase's runs, those in the journal excepted; returns how many wait."""
        for repeat in repeats:
            study = self._studies["seeds", repeat.arm]
            known = {_repeat_of(trial) for trial in study.get_trials(deepcopy=False)}
            if (repeat.source, repeat.seed) not in known:
                study.enqueue_trial(repeat.values, user_attrs={"source": repeat.source, "seed": repeat.seed})
        waiting = [
            trial
            for arm in self._space.arm_names()
            for trial in self._studies["seeds", arm].get_trials(deepcopy=False, states=(TrialState.WAITING,))
        ]
        return len(waiting) + sum(one.phase == "seeds" for one in self._adopted)

    def next_repeat(self) -> Assignment | None:
        adopted = self._adopt("seeds")
        if adopted is not None:
            return adopted
        for arm in self._space.arm_names():
            study = self._studies["seeds", arm]
            if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                return self._start("seeds", arm, study.ask(distributions(self._space, arm)))
        return None

    def _adopt(self, phase: Phase) -> Assignment | None:
        for one in self._adopted:
            if one.phase == phase:
                self._adopted.remove(one)
                self._note("started", one, {})
                return one
        return None

    def _start(self, phase: Phase, arm: str, trial: Trial) -> Assignment:
        self._live[phase, arm, trial.number] = trial
        frozen = trial.study.get_trials(deepcopy=False)[trial.number]
        assignment = _assignment(phase, arm, frozen, self._space.seed)
        self._note("started", assignment, {})
        return assignment

    def asked(self, arm: str) -> int:
        """Searched trials of an arm that were handed out so far, whatever became of them."""
        trials = self._studies["search", arm].get_trials(deepcopy=False)
        return sum(trial.state is not TrialState.WAITING for trial in trials)

    def unfinished(self) -> int:
        """Searched trials still to run: those left by a dead driver and those never asked for."""
        left = sum(self._space.trials_of(arm) - self.asked(arm) for arm in self._space.arm_names())
        return max(0, left) + sum(one.phase == "search" for one in self._adopted)

    def report(self, assignment: Assignment, epoch: int, cost: float, body: dict[str, Any]) -> bool:
        """Journal one epoch, unless it is there already; True asks the trial to stop."""
        trial = self._live[assignment.phase, assignment.arm, assignment.number]
        self._note("reported", assignment, body | {"epoch": epoch, "cost": cost})
        if assignment.phase == "seeds":
            return False
        frozen = trial.study.get_trials(deepcopy=False)[trial.number]
        if _STOPPED in frozen.user_attrs:  # the verdict stands, though its trial did not live to hear it
            return epoch >= int(frozen.user_attrs[_STOPPED])
        last = frozen.last_step
        if last is not None and epoch < last:  # told before, and it went on
            return False
        if epoch != last:
            trial.report(cost, epoch)
        stop = trial.should_prune()
        if stop:
            trial.set_user_attr(_STOPPED, epoch)
        return stop

    def finish(self, assignment: Assignment, outcome: Outcome) -> None:
        """Record an ending once: curve and reason first, then the state, so that a finished trial is always whole."""
        place = (assignment.phase, assignment.arm, assignment.number)
        if place not in self._live:
            return
        trial = self._live[place]
        trial.set_user_attr("outcome", outcome._asdict())
        value = outcome.cost if outcome.state == "complete" else None
        self._studies[assignment.phase, assignment.arm].tell(trial, value, state=_TRIAL_STATES[outcome.state])
        del self._live[place]
        self._note("finished", assignment, outcome._asdict())

    def finished(self, phase: Phase) -> list[Finished]:
        """Every assignment of a phase that has ended, in the order of arms and numbers."""
        return [
            read_back(phase, arm, trial, self._space.seed)
            for arm in self._space.arm_names()
            for trial in self._studies[phase, arm].get_trials(deepcopy=False)
            if trial.state.is_finished()
        ]

    def _note(self, kind: str, assignment: Assignment, body: dict[str, Any]) -> None:
        self._events.append(Event(kind, assignment, body, time.time()))

    def events(self, after: int) -> list[Event]:
        """Events from position `after` on; a reader keeps its own position."""
        return self._events[after:]


def _repeat_of(trial: FrozenTrial) -> tuple[int, int]:
    return trial.user_attrs.get("source", -1), trial.user_attrs.get("seed", -1)


def _assignment(phase: Phase, arm: str, trial: FrozenTrial, seed: int) -> Assignment:
    attributes = trial.user_attrs
    return Assignment(
        phase=phase,
        arm=arm,
        number=trial.number,
        values=dict(trial.params),
        seed=attributes.get("seed", seed),
        source=attributes.get("source", trial.number),
    )


def _outcome(trial: FrozenTrial) -> Outcome:
    recorded = trial.user_attrs.get("outcome")
    return Outcome(**recorded) if recorded else failure("ended without a record")


def read_back(phase: Phase, arm: str, trial: FrozenTrial, seed: int) -> Finished:
    """A trial that was handed out, as the journal has it; a running one's outcome is its best epoch so far."""
    assignment = _assignment(phase, arm, trial, seed)
    if trial.state.is_finished():
        return Finished(assignment, _outcome(trial))
    costs = trial.intermediate_values
    best = min(costs, key=lambda epoch: costs[epoch], default=0)
    return Finished(assignment, Outcome("running", costs.get(best), best, {}, 0.0))
