"""What travels between the study's book and the workers: plain values that JSON and Ray both carry."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from gapwise.evaluation.objective import Curve

Phase = Literal["search", "seeds"]
PHASES: tuple[Phase, ...] = ("search", "seeds")
Values = dict[str, Any]
"""Sampled parameters by their path in a training spec."""
State = Literal["running", "complete", "pruned", "failed", "infeasible"]
"""infeasible: it breaks a constraint, and was not trained."""
Verdict = Literal["go on", "stop", "pause"]
"""To a trial that told an epoch. stop: early, for it is behind. pause: keep a checkpoint and leave for now."""


class LineLost(Exception):
    """The book does not answer, or cannot write: nothing that the run did."""


class Assignment(NamedTuple):
    """One configuration to run."""

    phase: Phase
    arm: str
    number: int
    """Optuna's number in the arm's study of this phase."""
    values: Values
    seed: int
    source: int
    """Second phase: the searched trial that this repeats; otherwise the trial itself."""
    micro_batch: int | None = None
    """Samples that a worker passes at once because more did not fit its memory; None: as the space says."""

    @property
    def key(self) -> str:
        """A name that is unique in the study and usable in a file name."""
        tail = f"-seed{self.seed}" if self.phase == "seeds" else ""
        return f"{self.arm}-{self.source}{tail}"


class Outcome(NamedTuple):
    """How it ended."""

    state: State
    cost: float | None
    """The objective of the kept epoch; None for a failure and for what was not trained."""
    best_epoch: int
    metrics: dict[str, Curve]
    """{metric: {condition: value}} of the kept epoch; the second phase averages over mask seeds."""
    train_seconds: float
    reason: str = ""
    """Why it failed, or which constraints it breaks."""
    diagnostics: dict[str, Curve] = {}  # noqa: RUF012  (never written to)
    """{name: {condition: value}} of the kept epoch, one mask seed; second phase only, empty for a model without any."""
    duplicate_of: int | None = None
    """The trial of the same arm whose record answered this one, because they ask for the same training."""
    objective_changed: bool = False
    """Whether its batches were cut for lack of memory though its model compares samples: it trained something else."""
    constraints: dict[str, float] = {}  # noqa: RUF012  (never written to)
    """What was measured for the constraints of the space, by name; search only."""

    @property
    def eligible(self) -> bool:
        """Whether selection may look at its figures."""
        return self.state == "complete" and not self.objective_changed


def infeasible(measured: dict[str, float], reason: str) -> Outcome:
    """A configuration that breaks a constraint."""
    return Outcome("infeasible", None, 0, {}, 0.0, reason, constraints=measured)


def failure(reason: str) -> Outcome:
    """A run without figures."""
    return Outcome(state="failed", cost=None, best_epoch=0, metrics={}, train_seconds=0.0, reason=reason)


class Finished(NamedTuple):
    """An assignment with its outcome, as read back from the journal."""

    assignment: Assignment
    outcome: Outcome


def stopped_early(outcome: Outcome) -> bool:
    """Whether pruning saved epochs: not where the record of another trial answered."""
    return outcome.state == "pruned" and outcome.duplicate_of is None


def count_states(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Trials by how they ended, or that they did not yet; `infeasible` only where there are some."""
    counted = Counter(outcome.state for outcome in outcomes)
    broken = {"infeasible": counted["infeasible"]} if counted["infeasible"] else {}
    return {state: counted.get(state, 0) for state in ("complete", "pruned", "failed", "running")} | broken
