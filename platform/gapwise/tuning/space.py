"""From a search space to Optuna's distributions, and from sampled values back to a training spec. Pure."""

import math
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from gapwise.errors import SpecError
from gapwise.spec.fingerprint import canonical
from gapwise.spec.loader import set_path, validate
from gapwise.spec.search import Choices, Fixed, Parameter, Range, SearchSpec
from gapwise.spec.train import TrainSpec
from gapwise.tuning.assignment import Assignment, Values


def distributions(space: SearchSpec, arm: str) -> dict[str, BaseDistribution]:
    """What Optuna samples for an arm, by path; fixed parameters are not sampled."""
    return {
        path: _distribution(parameter)
        for path, parameter in sorted(space.parameters_of(arm).items())
        if not isinstance(parameter, Fixed)
    }


def _distribution(parameter: Range | Choices) -> BaseDistribution:
    if isinstance(parameter, Choices):
        return CategoricalDistribution(parameter.choices)
    if parameter.integer:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def trial_spec(space: SearchSpec, arm: str, values: Values, *, seed: int) -> TrainSpec:
    """The training spec of one configuration. Raises SpecError for a path or value that a training spec refuses."""
    mapping: dict[str, Any] = space.train.model_dump(mode="json", exclude={"model"})
    mapping |= {"model": {"name": arm}, "seed": seed}
    fixed = {path: one.value for path, one in space.parameters_of(arm).items() if isinstance(one, Fixed)}
    for path, value in {**space.common, **fixed, **values}.items():
        set_path(mapping, path, value)
    return validate(TrainSpec, mapping, where=f"arm {arm}")


def assigned_spec(space: SearchSpec, assignment: Assignment) -> TrainSpec:
    """The training spec of an assignment, cut to the memory there was."""
    spec = trial_spec(space, assignment.arm, assignment.values, seed=assignment.seed)
    return spec if assignment.micro_batch is None else spec.model_copy(update={"micro_batch": assignment.micro_batch})


def default_spec(space: SearchSpec, arm: str) -> TrainSpec:
    """The training that a study tries first of an arm."""
    return trial_spec(space, arm, default_values(space, arm), seed=space.seed)


def default_values(space: SearchSpec, arm: str) -> Values:
    """The model's own defaults, moved into the space where they lie outside: what a study tries first."""
    defaults = trial_spec(space, arm, {}, seed=space.seed).model_dump(mode="json")
    return {
        path: _nearest(parameter, value_at(defaults, path))
        for path, parameter in sorted(space.parameters_of(arm).items())
        if not isinstance(parameter, Fixed)
    }


def value_at(mapping: Any, path: str) -> Any:
    """What stands at a path of a dumped training spec; None where there is no such path."""
    for part in path.split("."):
        mapping = mapping.get(part) if isinstance(mapping, dict) else None
    return mapping


def _nearest(parameter: Range | Choices, default: Any) -> Any:
    if isinstance(parameter, Choices):
        return default if default in parameter.choices else parameter.choices[0]
    value = parameter.high if default is None else min(max(default, parameter.low), parameter.high)
    return round(value) if parameter.integer else float(value)


def offers(one: BaseDistribution, value: Any) -> bool:
    """Whether a space could draw this very value."""
    if isinstance(one, CategoricalDistribution):
        return canonical(value) in {canonical(choice) for choice in one.choices}
    assert isinstance(one, FloatDistribution | IntDistribution)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and one.low <= value <= one.high and (isinstance(one, FloatDistribution) or value % 1 == 0)


def moved_inside(one: BaseDistribution, value: Any) -> Any:
    """The nearest value that the space offers; None for a choice that it does not."""
    if not isinstance(one, CategoricalDistribution) and isinstance(value, int | float) and not isinstance(value, bool):
        assert isinstance(one, FloatDistribution | IntDistribution)
        nearest = min(max(value, one.low), one.high)
        return round(nearest) if isinstance(one, IntDistribution) else float(nearest)
    return value if offers(one, value) else None


def check_space(space: SearchSpec) -> None:
    """Refuse, before anything runs, a path that a model does not have or a bound that it does not accept."""
    for arm in space.arm_names():
        _try(space, arm, {}, path="")
        for path, parameter in space.parameters_of(arm).items():
            for value in _telling(parameter):
                _try(space, arm, {path: value}, path=path)


def _try(space: SearchSpec, arm: str, values: Values, *, path: str) -> None:
    try:
        trial_spec(space, arm, values, seed=space.seed)
    except SpecError as error:
        place = _written(space, arm, error.where.removeprefix(f"arm {arm}: "), path)
        raise SpecError(error.what, where=place, allowed=error.allowed) from error


def _written(space: SearchSpec, arm: str, refused: str, tried: str) -> str:
    """Where in the file the refused value stands: a parameter of the arm, one of `common`, or the one being tried."""
    if refused in space.parameters_of(arm):
        return f"arms.{arm}.parameters.{refused}"
    if refused in space.common:
        return f"common.{refused}"
    return f"arms.{arm}.parameters.{tried}" if tried else f"arms.{arm}"


def _telling(parameter: Parameter) -> list[Any]:
    """Values that show whether a whole parameter fits: its bounds, and a fraction where fractions will be drawn."""
    if isinstance(parameter, Fixed):
        return [parameter.value]
    if isinstance(parameter, Choices):
        return list(parameter.choices)
    if parameter.integer:
        return [int(parameter.low), int(parameter.high)]
    return [parameter.low, parameter.high, parameter.low + (parameter.high - parameter.low) / math.e]


def describe(space: SearchSpec, arm: str) -> dict[str, dict[str, Any]]:
    """An arm's parameters for people: role, values in words, and what is tried first."""
    first = default_values(space, arm)
    return {
        path: {"role": one.role, "values": _words(one), "first": first.get(path, getattr(one, "value", None))}
        for path, one in space.parameters_of(arm).items()
    }


def _words(parameter: Parameter) -> str:
    if isinstance(parameter, Fixed):
        return str(parameter.value)
    if isinstance(parameter, Choices):
        return ", ".join(str(choice) for choice in parameter.choices)
    scale = " log" if parameter.log else ""
    return f"{parameter.low:g} to {parameter.high:g}{scale}{' integer' if parameter.integer else ''}"
