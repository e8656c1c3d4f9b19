"""What `gapwise study` says of a study, as plain values: a line, counts, trials, and where it stopped."""

import shlex
from datetime import datetime
from typing import Any, Literal

from gapwise.evaluation.objective import as_cost, objective_costs
from gapwise.spec.search import BASELINE, SearchSpec
from gapwise.tuning.assignment import Outcome, count_states, stopped_early
from gapwise.tuning.reading import Study, TrialRecord
from gapwise.tuning.space import describe
from gapwise.tuning.standing import read_standing

Stage = Literal["search", "second phase", "refit", "finished"]


def line(study: Study) -> dict[str, Any]:
    """One study in a list."""
    return {
        "study": study.name,
        "dataset": study.dataset if study.result is None else study.result.dataset,
        "data_fingerprint": study.data_fingerprint,
        "state": study.state,
        "trials": _counts(study.of("search")),
        "arms": {
            arm: _counts([one for one in study.of("search") if one.assignment.arm == arm])
            for arm in study.space.arm_names()
        },
        "best": _best(study),
        "changed": datetime.fromtimestamp(study.changed).astimezone().isoformat(timespec="seconds"),
    }


def whole(study: Study) -> dict[str, Any]:
    """One study by itself, but for its winners (`leaders`)."""
    space = study.space
    return line(study) | {
        "question": space.question,
        "folder": str(study.folder),
        "data": study.data if study.result is None else study.result.data,
        "driver": study.driver,
        "sharing": read_standing(study.folder) if study.state == "running" else None,
        "stage": stage(study),
        "objective": space.train.objective.model_dump(mode="json"),
        "protocol": space.train.protocol.model_dump(mode="json"),
        "second_phase": {"runs": _counts(study.of("seeds")), "waiting": study.waiting},
        "epochs_saved": epochs_saved(study),
        "resume": resume_command(study) if study.state == "resumable" else None,
        "parent_run_id": None if study.result is None else study.result.parent_run_id,
        "space": {arm: describe(space, arm) for arm in space.arm_names()},
        "objectives": {name: one.model_dump(mode="json") for name, one in space.objectives.items()},
        "pruned_on": space.pruner.on if space.pruner.name != "none" else None,
        "constraints": {"limits": space.constraints.limits()},
        "warm_start": space.warm_start and space.warm_start.model_dump(mode="json") | {"sources": study.warm_start},
    }


def _counts(trials: list[TrialRecord]) -> dict[str, int]:
    return count_states(one.outcome for one in trials)


def _best(study: Study) -> dict[str, Any] | None:
    """The eligible trial with the lowest objective, the baseline's only where there is no other."""
    complete = [one for one in study.of("search") if one.outcome.eligible]
    ranked = sorted(complete, key=lambda one: (one.assignment.arm == BASELINE, one.outcome.cost))
    return {"trial": ranked[0].assignment.key, "objective": ranked[0].outcome.cost} if ranked else None


def stage(study: Study) -> Stage:
    """How far it is. Search trials that were never asked for are not known here: their number may grow."""
    if study.result is not None:
        return "finished"
    repeats = study.of("seeds")
    if any(one.outcome.state == "running" for one in study.of("search")) or not (repeats or study.waiting):
        return "search"
    under_way = study.waiting or any(one.outcome.state == "running" for one in repeats)
    return "second phase" if under_way else "refit"


def epochs_saved(study: Study) -> int:
    """Epochs that pruned trials were not trained for."""
    pruned = [one for one in study.of("search") if stopped_early(one.outcome)]
    return sum(study.space.train.epochs - (one.epochs or 0) for one in pruned)


def resume_command(study: Study) -> str:
    words = study.command or ["SPACE.yaml", "--data", study.data or "DIR", "--study", study.name]
    return f"gapwise tune {shlex.join(words)} --resume"


def trial_row(space: SearchSpec, one: TrialRecord) -> dict[str, Any]:
    """A trial in a table; of a running one objective and best epoch are those so far.

    With several objectives or constraints also their figures: each in its metric's direction, and as it was measured.
    """
    assignment, outcome = one.assignment, one.outcome
    return {
        "trial": assignment.key,
        "phase": assignment.phase,
        "arm": assignment.arm,
        "number": assignment.number,
        "source": assignment.source,
        "seed": assignment.seed,
        "state": outcome.state,
        "objective": outcome.cost,
        "best_epoch": outcome.best_epoch or None,
        "epochs": one.epochs,
        "seconds": outcome.train_seconds or None,
        "reason": outcome.reason,
        "micro_batch": assignment.micro_batch,
        "objective_changed": outcome.objective_changed,
        "values": assignment.values,
    } | _goals(space, outcome)


def _goals(space: SearchSpec, outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if space.objectives:
        costs = objective_costs(outcome.metrics, space.objectives) if outcome.metrics else {}
        metrics = {name: one.metric for name, one in space.objectives.items()}
        found["objectives"] = {name: as_cost(metrics[name], cost) for name, cost in costs.items()}
    if space.constraints.limits():
        found["constraints"] = outcome.constraints
    return found


def trial_rows(study: Study) -> list[dict[str, Any]]:
    return [trial_row(study.space, one) for one in study.trials]
