"""How modalities go missing, and where on that scale a model is judged (methods.md section 4)."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from gapwise.spec.base import Spec

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
FIELD_GRID: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class ProtocolSpec(Spec):
    """One way of removing observations, with the grid of missing rates it is judged on."""

    name: Literal["frames", "modalities"] = "frames"
    """frames: each frame is missing on its own with the missing rate. modalities: whole modalities are missing."""
    mask_visible: bool = True
    """Whether the model is told which frames are missing; false leaves zeros in their place, as LNLN does."""
    incomplete_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Training: the share of samples (by modality, for frames) that have anything missing at all."""
    rates: tuple[Rate, ...] = FIELD_GRID
    """Missing rates of the robustness grid, ascending; `modalities` has subsets instead and ignores them."""

    @field_validator("rates")
    @classmethod
    def _ascending(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if not rates or list(rates) != sorted(set(rates)):
            raise ValueError(f"rates must be ascending and distinct, at least one, got {list(rates)}")
        unwritable = [rate for rate in rates if abs(float(rate_key(rate)) - rate) > 1e-9]
        if unwritable:
            raise ValueError(f"rates have two decimals at most, got {unwritable[0]}")
        return rates


def rate_key(rate: float) -> str:
    """A missing rate as scripts see it: one decimal, two when needed ("0.3", "0.25")."""
    return f"{rate:.1f}" if abs(rate * 10 - round(rate * 10)) < 1e-9 else f"{rate:.2f}"
