"""Whether a configuration keeps within a space's constraints, from what was measured. Pure."""

from collections.abc import Mapping

from gapwise.spec.search import ConstraintsSpec

_SHOWN = {"parameters": ("{:,.0f} parameters", "{:,.0f}"), "latency_ms": ("{:.3g} ms a sample", "{:g}")}


def excesses(measured: Mapping[str, float], constraints: ConstraintsSpec) -> dict[str, float]:
    """By which share each measured value is above its limit; 0 or less is within. One scale for unlike units."""
    limits = constraints.limits()
    return {name: value / limits[name] - 1.0 for name, value in measured.items() if name in limits}


def broken(measured: Mapping[str, float], constraints: ConstraintsSpec) -> str:
    """What is above its limit, in words; empty where nothing is."""
    limits = constraints.limits()
    found = [name for name, excess in excesses(measured, constraints).items() if excess > 0.0]
    return ", ".join(
        f"{shown(name, measured[name])} (at most {_SHOWN[name][1].format(limits[name])})" for name in found
    )


def shown(name: str, value: float) -> str:
    """A measured value with its unit."""
    return _SHOWN[name][0].format(value)
