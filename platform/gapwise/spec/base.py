"""The parent of every written value: frozen, and closed to keys that nobody defined."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen value with a closed set of keys; change one with `model_copy(update=...)` or `spec.overrides`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
