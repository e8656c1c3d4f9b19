"""What a new study takes over from earlier ones, decided once, when it is created.

*best*: each arm's best configurations of an earlier study are tried again here: those of its second phase first, by
their mean over seeds, then the search's, by `train.objective`. What the earlier study held fixed and this one searches
is taken from its training spec. A number outside this space is moved to the nearest bound; a configuration with a
choice that is not offered here is left out.

*history*: complete and pruned search trials whose training is exactly what this space would ask for, the seed apart. A
value outside its bounds, another number of epochs or another width makes a trial say nothing about this space: it is
left out, never moved.

Both need the same `train.objective` and `train.protocol`. The data may be others, which is the normal case when a model
is trained again, and is written down.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution

from gapwise.errors import SpecError
from gapwise.evaluation.objective import objective_costs
from gapwise.spec.fingerprint import canonical
from gapwise.spec.search import SearchSpec, WarmStartSpec
from gapwise.tuning.assignment import Values
from gapwise.tuning.history import Past, WarmStart
from gapwise.tuning.limits import excesses
from gapwise.tuning.reading import Study, TrialRecord, read_study
from gapwise.tuning.record import differences
from gapwise.tuning.space import default_values, distributions, moved_inside, offers, trial_spec, value_at

_WHERE = "warm_start.studies"


class Source(NamedTuple):
    """What came from one earlier study, for its record."""

    study: str
    dataset: str | None
    data_fingerprint: str
    same_data: bool
    taken: dict[str, int]
    """By arm."""
    left_out: dict[str, int]
    """By arm: trials that were considered and do not fit this space."""


class Taken(NamedTuple):
    """Everything that a study starts from."""

    warm_start: WarmStart
    sources: list[Source]


def take_over(space: SearchSpec, data_fingerprint: str, studies: Path) -> Taken | None:
    """What the space asks for; None where it asks for nothing. The space is settled on its dataset.

    Raises StudyError for an unknown study, SpecError for one that was asked something else or has nothing that fits.
    """
    asked = space.warm_start
    if asked is None:
        return None
    considered: dict[str, dict[str, list[Past | str]]] = {}
    studies_read = [read_study(studies, name) for name in asked.studies]
    for study in studies_read:
        _refuse_another_question(space, study)
        considered[study.name] = {arm: _considered(space, asked, study, arm) for arm in space.arm_names()}
        _refuse_nothing(study, considered[study.name])
    arms = {arm: _taken(space, asked, arm, considered.values()) for arm in space.arm_names()}
    sources = [
        Source(
            study=study.name,
            dataset=study.dataset,
            data_fingerprint=study.data_fingerprint,
            same_data=study.data_fingerprint == data_fingerprint,
            taken={arm: sum(past.study == study.name for past in pasts) for arm, pasts in arms.items()},
            left_out={arm: sum(isinstance(one, str) for one in considered[study.name][arm]) for arm in arms},
        )
        for study in studies_read
    ]
    return Taken(WarmStart(use=asked.use, arms=arms), sources)


def _taken(
    space: SearchSpec, asked: WarmStartSpec, arm: str, considered: Iterable[dict[str, list[Past | str]]]
) -> list[Past]:
    pasts = [one for by_arm in considered for one in by_arm[arm] if isinstance(one, Past)]
    return pasts if asked.use == "history" else _distinct(space, arm, pasts)


def _refuse_another_question(space: SearchSpec, study: Study) -> None:
    def question(one: SearchSpec) -> dict[str, Any]:
        return {f"train.{key}": getattr(one.train, key).model_dump(mode="json") for key in ("objective", "protocol")}

    different = differences(question(study.space), question(space))
    if different:
        raise SpecError(
            f"study {study.name!r} was asked something else: {', '.join(different)}",
            where=_WHERE,
            allowed="studies of the same train.objective and train.protocol",
        )


def _refuse_nothing(study: Study, considered: dict[str, list[Past | str]]) -> None:
    found = [one for pasts in considered.values() for one in pasts]
    reasons = [one for one in found if isinstance(one, str)]
    if len(reasons) < len(found):
        return
    why = f"none of its trials fits this space, the first because of {reasons[0]}" if reasons else "none is complete"
    raise SpecError(f"nothing can be taken from study {study.name!r}: {why}", where=_WHERE)


def _considered(space: SearchSpec, asked: WarmStartSpec, study: Study, arm: str) -> list[Past | str]:
    """Trials of an arm as this study would know them, or why it cannot."""
    searched = [one for one in study.of("search") if one.assignment.arm == arm]
    if asked.use == "history":
        ended = [one for one in searched if one.outcome.state in ("complete", "pruned")]
        known = [one for one in ended if not one.outcome.objective_changed]
        return [_as_history(space, study, one) for one in known]
    found: list[Past | str] = []
    ranked = _ranked(study, searched)
    while ranked and sum(isinstance(one, Past) for one in found) < asked.top:
        found.append(_as_first(space, study, ranked.pop(0)))
    return found


def _ranked(study: Study, searched: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Complete trials, the second phase's before the others, each by the better evidence that there is."""
    costs: dict[tuple[str, int], list[float]] = {}
    for run in study.of("seeds"):
        if run.outcome.eligible and run.outcome.cost is not None:
            costs.setdefault((run.assignment.arm, run.assignment.source), []).append(run.outcome.cost)

    def place(one: TrialRecord) -> tuple[bool, float, int]:
        again = costs.get((one.assignment.arm, one.assignment.number))
        return again is None, math.fsum(again) / len(again) if again else one.outcome.cost or 0.0, one.assignment.number

    return sorted((one for one in searched if one.outcome.eligible), key=place)


def _trained(study: Study, one: TrialRecord) -> dict[str, Any]:
    spec = trial_spec(study.space, one.assignment.arm, one.assignment.values, seed=study.space.seed)
    return spec.model_dump(mode="json", exclude={"seed"})


def _as_first(space: SearchSpec, study: Study, one: TrialRecord) -> Past | str:
    trained = _trained(study, one)
    values = {}
    for path, distribution in distributions(space, one.assignment.arm).items():
        value = moved_inside(distribution, value_at(trained, path))
        if value is None:
            return f"{path}: {value_at(trained, path)!r}"
        values[path] = value
    return Past(study=study.name, trial=one.assignment.key, values=values, state="complete")


def _as_history(space: SearchSpec, study: Study, one: TrialRecord) -> Past | str:
    arm, trained, outcome = one.assignment.arm, _trained(study, one), one.outcome
    sampled = distributions(space, arm)
    values = {path: value_at(trained, path) for path in sampled}
    outside = next(_outside(values, sampled), None)
    if outside is not None:
        return outside
    here = trial_spec(space, arm, values, seed=space.seed).model_dump(mode="json", exclude={"seed"})
    different = differences(trained, here)
    if different:
        return different[0]
    excess = excesses(outcome.constraints, space.constraints)
    missing = [name for name in space.constraints.limits() if name not in excess]
    if missing:
        return f"{missing[0]}, which was not measured"
    costs: tuple[float, ...] = ()
    if outcome.state == "complete":
        costs = tuple(objective_costs(outcome.metrics, space.objectives).values()) or (outcome.cost or 0.0,)
        if not all(math.isfinite(cost) for cost in costs):
            return "an objective that is not finite"
    last = max(one.costs.items(), default=None) if outcome.state == "pruned" else None
    return Past(
        study=study.name,
        trial=one.assignment.key,
        values=values,
        state="complete" if outcome.state == "complete" else "pruned",
        costs=costs,
        last=last,
        excess=excess,
    )


def _outside(values: Values, sampled: dict[str, BaseDistribution]) -> Iterator[str]:
    return (f"{path}: {values[path]!r}" for path, one in sampled.items() if not offers(one, values[path]))


def _distinct(space: SearchSpec, arm: str, pasts: list[Past]) -> list[Past]:
    """Each configuration once, none that is tried anyway, and no more than the arm has trials beside its default."""
    default = canonical(default_values(space, arm))
    by_values: dict[bytes, Past] = {}
    for one in pasts:
        by_values.setdefault(canonical(one.values), one)
    by_values.pop(default, None)
    return list(by_values.values())[: space.trials_of(arm) - 1]
