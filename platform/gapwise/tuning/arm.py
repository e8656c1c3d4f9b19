"""One arm of a study in one phase: an Optuna study in the journal, and what the book must know of it at once.

Configurations are told apart by the digest of the training they ask for. One that was asked before and has ended is not
trained again: its record answers.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from gapwise.evaluation.objective import objective_costs
from gapwise.spec.fingerprint import fingerprint
from gapwise.spec.search import TRAIN_OBJECTIVE, PrunerSpec, SearchSpec
from gapwise.training.parts import smaller
from gapwise.tuning.assignment import Assignment, Finished, Outcome, Phase, State, Values, failure
from gapwise.tuning.history import Earlier, as_optuna
from gapwise.tuning.limits import excesses
from gapwise.tuning.pruning import Pruning
from gapwise.tuning.sampled import SampledStudy
from gapwise.tuning.searchers import Question, build_sampler, grid_size, settled
from gapwise.tuning.space import assigned_spec, default_values, distributions, trial_spec

_STATES: dict[State, TrialState] = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "infeasible": TrialState.PRUNED,  # with its constraints, by which samplers tell
}
_STOPPED, _OUTCOME, _DIGEST, _RETRY = "stopped", "outcome", "digest", "retry_of"
_MICRO_BATCH = "micro_batch"
"""What a repeat begins with, because its configuration needed it in the search."""
_SHRUNK = "shrunk"
"""What a trial went on with after memory was short: `micro_batch`, and whether that changed its objective."""
_JUDGED = "judged"
"""With an epoch behind it: what pruning looked at, where that is not the trial's objective."""


class Repeat(NamedTuple):
    """A configuration to run again with one more seed."""

    arm: str
    source: int
    values: Values
    seed: int
    micro_batch: int | None = None


class Shelf(NamedTuple):
    """Where arms are recorded, and what earlier studies give to them."""

    storage: BaseStorage
    prefix: str
    """Before the names of Optuna's studies: a database may hold many."""
    earlier: Mapping[str, Earlier] = {}


class ArmStudy:
    """Hands out the arm's assignments, judges its reports, records its endings. One writer at a time."""

    def __init__(self, space: SearchSpec, phase: Phase, arm: str, shelf: Shelf, *, retry_failed: bool) -> None:
        self._space, self._phase, self._arm, self._storage = space, phase, arm, shelf.storage
        self._distributions: dict[str, BaseDistribution] = distributions(space, arm)
        self._objectives = max(1, len(space.objectives)) if phase == "search" else 1
        earlier = shelf.earlier.get(arm, Earlier()) if phase == "search" else Earlier()
        self._first = [default_values(space, arm), *earlier.first]
        self._study = SampledStudy(
            f"{shelf.prefix}{phase}/{arm}",
            shelf.storage,
            self._sampler(0),
            objectives=self._objectives,
            history=[as_optuna(past, self._distributions) for past in earlier.history],
        )
        self._pruning = Pruning(space.pruner if phase == "search" else PrunerSpec(name="none"), space.train.epochs)
        self._live: dict[int, Trial] = {}
        self._answers: dict[str, int] = {}
        self._adopted: deque[Assignment] = deque()
        self._waiting, self._retries, self.asked = 0, 0, 0
        self._seconds: dict[int, float] = {}
        self.epochs = 0
        trials = self._study.get_trials(deepcopy=False)
        if phase == "search":  # nothing is asked before all of these wait, whichever driver puts them there
            for values in self._first[len(trials) :]:
                self._enqueue(values, {})
        for trial in trials:
            self._recall(trial)
        if retry_failed:
            self._enqueue_failures(trials)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        spec = settled(self._space.sampler, number, self._objectives)
        return build_sampler(spec, Question(self._space.seed, self._arm, number), self._distributions)

    def _recall(self, trial: FrozenTrial) -> None:
        """One trial of the journal, read when the study is opened."""
        self._count(trial)
        if _objective_changed(trial):
            self._pruning.set_apart(trial.number)
        self.epochs += len(trial.intermediate_values)
        for epoch, cost in sorted(trial.intermediate_values.items()):
            self._pruning.tell(trial.number, epoch, trial.user_attrs.get(f"{_JUDGED}:{epoch}", cost))
        if trial.state is TrialState.RUNNING:
            live = self._live[trial.number] = self._completed(trial)
            frozen = self._trial(trial._trial_id)
            if self._phase == "search" and _DIGEST not in frozen.user_attrs:  # its driver died just before
                live.set_user_attr(_DIGEST, self._digest(frozen.params))
            self._adopted.append(self._assignment(frozen))
        elif trial.state.is_finished():
            self._remember(trial)

    def _count(self, trial: FrozenTrial) -> None:
        retry = _RETRY in trial.user_attrs
        if trial.state is TrialState.WAITING:
            self._waiting += 1
            self._retries += retry
        elif not retry:
            self.asked += 1

    def _completed(self, trial: FrozenTrial) -> Trial:
        """A RUNNING trial, live again. A driver may die between two parameters of a question: ask for the rest.

        A value that is there already is drawn once more and thrown away, so that the others are what they would have
        been.
        """
        study = self._study
        if self._distributions.keys() <= trial.params.keys():
            study.sampler = optuna.samplers.RandomSampler()  # a sampler of its own would note its state once more
            return Trial(study, trial._trial_id)
        study.sampler = self._sampler(self.asked - 1)
        live = Trial(study, trial._trial_id)
        given = live.relative_params.keys() | trial.system_attrs.get("fixed_params", {}).keys()
        for path, distribution in self._distributions.items():
            if path in trial.params and path not in given:
                study.sampler.sample_independent(study, trial, path, distribution)
            live._suggest(path, distribution)
        return live

    def _enqueue(self, values: Values, attributes: dict[str, Any]) -> None:
        self._study.enqueue_trial(values, user_attrs=attributes)
        self._waiting += 1
        self._retries += _RETRY in attributes

    def _enqueue_failures(self, trials: list[FrozenTrial]) -> None:
        """Each failure once more, under a new number, unless that has been done."""
        retried = {trial.user_attrs.get(_RETRY) for trial in trials}
        for trial in trials:
            failed = trial.state is TrialState.FAIL and _outcome(trial).state == "failed"
            if failed and trial.number not in retried:
                named = ("source", "seed", _MICRO_BATCH)
                kept = {name: trial.user_attrs[name] for name in named if name in trial.user_attrs}
                self._enqueue(trial.params, kept | {_RETRY: trial.number})

    @property
    def left(self) -> int:
        """Trials that are still to run: those that a dead driver left, those that wait, those never asked for."""
        if self._phase == "seeds":
            return self._waiting + len(self._adopted)
        return max(0, self._most - self.asked) + self._retries + len(self._adopted)

    @property
    def left_behind(self) -> int:
        """Those of them that a dead driver left."""
        return len(self._adopted)

    @property
    def share(self) -> float:
        """How much of its trials the search has been asked for; below 0 where some wait to be repeated."""
        return -1.0 if self._retries else self.asked / self._most

    @property
    def _most(self) -> int:
        wanted = self._space.trials_of(self._arm)
        if self._space.sampler.name != "grid":
            return wanted
        return min(wanted, len(self._first) + grid_size(self._distributions, self._space.sampler.points))

    def adopt(self) -> Assignment | None:
        """What a dead driver left, under its own number."""
        return self._adopted.popleft() if self._adopted else None

    def put_back(self, assignment: Assignment) -> None:
        """It was handed out, and nobody has begun with it; unless it has ended."""
        if assignment.number in self._live:
            self._adopted.append(assignment)

    def ask(self) -> Assignment:
        """The next configuration; what waits in the queue comes first."""
        self._study.sampler = self._sampler(self.asked)
        self._study.anything_waits = self.waits
        trial = self._study.ask(self._distributions)
        self._live[trial.number] = trial
        frozen = self._trial(trial._trial_id)
        if self._waiting:
            self._waiting -= 1
            self._retries -= _RETRY in frozen.user_attrs
        self._count(frozen)
        if self._phase == "search":
            trial.set_user_attr(_DIGEST, self._digest(frozen.params))
        return self._assignment(frozen)

    def plan(self, repeats: list[Repeat]) -> None:
        """Queue runs of the second phase, those in the journal excepted."""
        known = {
            (trial.user_attrs["source"], trial.user_attrs["seed"]) for trial in self._study.get_trials(deepcopy=False)
        }
        for repeat in repeats:
            if (repeat.source, repeat.seed) not in known:
                cut = {} if repeat.micro_batch is None else {_MICRO_BATCH: repeat.micro_batch}
                self._enqueue(repeat.values, {"source": repeat.source, "seed": repeat.seed, **cut})

    @property
    def waits(self) -> bool:
        return self._waiting > 0

    def answer(self, assignment: Assignment) -> Outcome | None:
        """The recorded ending of the same training, if this arm has it."""
        known = self._answers.get(self._digest(assignment.values)) if self._phase == "search" else None
        if known is None or known == assignment.number:
            return None
        recorded = _outcome(self._study.get_trials(deepcopy=False)[known])
        return recorded._replace(duplicate_of=known, train_seconds=0.0)

    def _digest(self, values: Values) -> str:
        return fingerprint(trial_spec(self._space, self._arm, values, seed=self._space.seed))

    def current(self, number: int) -> Assignment | None:
        """A trial as it is to be run now; None where it has ended."""
        trial = self._live.get(number)
        return None if trial is None else self._assignment(self._trial(trial._trial_id))

    def shrink(self, told: Assignment) -> Assignment | None:
        """The same trial with fewer samples at once, once: it did not fit as it was told.

        None where it has ended, was cut before, or cannot be cut. The sampler is not to learn from a trial whose
        objective that changes, and the pruner does not compare others with it.
        """
        now = self.current(told.number)
        if now is None or now.micro_batch != told.micro_batch:  # another of its workers was first
            return now
        trial = self._live[told.number]
        micro_batch = smaller(assigned_spec(self._space, now), self._space.workers_per_trial)
        if micro_batch is None or _SHRUNK in self._trial(trial._trial_id).user_attrs:
            return None
        from gapwise.models.catalogue import MODELS  # torch: a book that nobody asks this starts seconds earlier

        changed = not MODELS[self._arm].separable
        trial.set_user_attr(_SHRUNK, {"micro_batch": micro_batch, "objective_changed": changed})
        if changed:
            self._pruning.set_apart(told.number)
        return now._replace(micro_batch=micro_batch)

    def handed_out(self) -> list[Assignment]:
        """Trials that a worker was given and that have not ended."""
        left = {assignment.number for assignment in self._adopted}
        return [self._assignment(self._trial(one._trial_id)) for n, one in self._live.items() if n not in left]

    @property
    def seconds(self) -> float:
        """Inside the training loops of all trials, those that still run included, as far as they told."""
        return sum(self._seconds.values())

    def report(self, number: int, epoch: int, cost: float, body: Mapping[str, Any]) -> bool:
        """Journal one epoch, unless it is there already; True asks the trial to stop."""
        trial = self._live[number]
        self._seconds[number] = body.get("train_seconds", 0.0)
        if self._phase == "seeds":
            return False
        frozen = self._trial(trial._trial_id)
        if _STOPPED in frozen.user_attrs:  # the verdict stands, though its trial did not live to hear it
            return epoch >= int(frozen.user_attrs[_STOPPED])
        last = frozen.last_step
        if last is not None and epoch < last:  # told before, and it went on
            return False
        if epoch != last:
            judged = self._judged(trial, epoch, cost, body)
            # Trial.report refuses studies of several objectives, whose pruning Optuna leaves to others.
            self._storage.set_trial_intermediate_value(trial._trial_id, epoch, cost)
            self.epochs += 1
            self._pruning.tell(number, epoch, judged)
        stop = self._pruning.stops(number)
        if stop:
            trial.set_user_attr(_STOPPED, epoch)
        return stop

    def _judged(self, trial: Trial, epoch: int, cost: float, body: Mapping[str, Any]) -> float:
        """What pruning looks at; an objective that is not finite at this epoch is as bad as can be."""
        on = self._space.pruner.on
        if on in (None, TRAIN_OBJECTIVE):
            return cost
        judged: float = body["objectives"].get(on, math.inf)
        trial.set_user_attr(f"{_JUDGED}:{epoch}", judged)
        return judged

    def finish(self, number: int, outcome: Outcome) -> Outcome | None:
        """Record an ending once: curve and reason first, then the state, so that a finished trial is always whole.

        Returns it as recorded; None where one was on record. To samplers, a changed objective is a failed trial.
        """
        trial = self._live.get(number)
        if trial is None:
            return None
        if outcome.state != "failed" and _objective_changed(self._trial(trial._trial_id)):
            outcome = outcome._replace(objective_changed=True)
        if outcome.duplicate_of is None:  # what failed took its time too, as far as it told
            spent = max(outcome.train_seconds, self._seconds.get(number, 0.0))
            outcome = outcome._replace(train_seconds=spent)
        trial.set_user_attr(_OUTCOME, outcome._asdict())
        for name, excess in excesses(outcome.constraints, self._space.constraints).items():
            if name not in self._trial(trial._trial_id).constraints:  # a driver may have died just here
                trial.set_constraint(name, excess)
        state = TrialState.FAIL if outcome.objective_changed else _STATES[outcome.state]
        self._study.tell(trial, self._values(outcome) if state is TrialState.COMPLETE else None, state=state)
        del self._live[number]
        self._remember(self._trial(trial._trial_id))
        return outcome

    def _values(self, outcome: Outcome) -> list[float] | None:
        """What the sampler learns of a complete trial."""
        if outcome.state != "complete":
            return None
        if self._objectives > 1:
            return list(objective_costs(outcome.metrics, self._space.objectives).values())
        return [outcome.cost or 0.0]

    def _remember(self, trial: FrozenTrial) -> None:
        """What it took, and what may answer later: the first trial of a configuration that did not fail."""
        outcome = _outcome(trial)
        self._seconds[trial.number] = outcome.train_seconds
        if self._phase == "search" and outcome.state != "failed" and _DIGEST in trial.user_attrs:
            self._answers.setdefault(trial.user_attrs[_DIGEST], trial.number)

    def finished(self) -> list[Finished]:
        """Every assignment that has ended, by number; a failure that was tried again counts by its new attempt."""
        trials = self._study.get_trials(deepcopy=False)
        again = tried_again(trials)
        return [
            read_back(self._phase, self._arm, trial, self._space.seed)
            for trial in trials
            if trial.state.is_finished() and trial.number not in again
        ]

    def _trial(self, trial_id: int) -> FrozenTrial:
        return self._storage.get_trial(trial_id)

    def _assignment(self, trial: FrozenTrial) -> Assignment:
        return _assignment(self._phase, self._arm, trial, self._space.seed)


def tried_again(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of an arm's failures whose new attempt has ended."""
    return {trial.user_attrs[_RETRY] for trial in trials if trial.state.is_finished() and _RETRY in trial.user_attrs}


def read_back(phase: Phase, arm: str, trial: FrozenTrial, seed: int) -> Finished:
    """A trial that was handed out, as it is recorded; a running one's outcome is its best epoch so far."""
    assignment = _assignment(phase, arm, trial, seed)
    if trial.state.is_finished():
        return Finished(assignment, _outcome(trial))
    costs = trial.intermediate_values
    best = min(costs, key=lambda epoch: costs[epoch], default=0)
    running = Outcome("running", costs.get(best), best, {}, 0.0, objective_changed=_objective_changed(trial))
    return Finished(assignment, running)


def _objective_changed(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get(_SHRUNK, {}).get("objective_changed"))


def _assignment(phase: Phase, arm: str, trial: FrozenTrial, seed: int) -> Assignment:
    return Assignment(
        phase=phase,
        arm=arm,
        number=trial.number,
        values=dict(trial.params),
        seed=trial.user_attrs.get("seed", seed),
        source=trial.user_attrs.get("source", trial.number),
        micro_batch=trial.user_attrs.get(_SHRUNK, {}).get("micro_batch", trial.user_attrs.get(_MICRO_BATCH)),
    )


def _outcome(trial: FrozenTrial) -> Outcome:
    recorded = trial.user_attrs.get(_OUTCOME)
    return Outcome(**recorded) if recorded else failure("ended without a record")
