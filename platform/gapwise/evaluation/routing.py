"""Which champion answers at a missing rate. Pure; the gate and the router ask the same question."""

from collections.abc import Iterable


def nearest(rate: str, served: Iterable[str]) -> str | None:
    """The rate among `served` that is nearest, of two the one with more missing; None where none is served."""
    return min(served, key=lambda one: (round(abs(float(one) - float(rate)), 6), -float(one)), default=None)


def serving(rate: str, champions: dict[str, str]) -> str | None:
    """The version that answers at `rate` where `champions` are {rate: version}; None where there is none."""
    at = nearest(rate, champions)
    return None if at is None else champions[at]
