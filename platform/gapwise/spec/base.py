"""The parent of every written value: frozen, and closed to keys that nobody defined."""

import math
from typing import Any

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen value with a closed set of keys; change one with `model_copy(update=...)` or `spec.overrides`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def flat(mapping: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted paths, the form in which spaces and tracking name a value."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        path = f"{prefix}{key}"
        found |= flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found


def without_nan(value: Any) -> Any:
    """Plain values for JSON, which has no NaN: an undefined figure becomes null."""
    if isinstance(value, dict):
        return {key: without_nan(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
