"""How modalities go missing, and where on that scale a model is judged (methods.md section 4)."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from gapwise.spec.base import Spec

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
FIELD_GRID: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CELL_GRID: tuple[float, ...] = FIELD_GRID[:7]
"""`random_rate` counts whole modalities and keeps one of each sample: three modalities end at 2/3."""


def default_rates(validated: dict[str, Any]) -> tuple[float, ...]:
    """The grid of a spec that names none; `validated` are the fields before it."""
    return CELL_GRID if validated.get("name") == "random_rate" else FIELD_GRID


class ProtocolSpec(Spec):
    """One way of removing observations, with the grid of missing rates it is judged on."""

    name: Literal["frames", "modalities", "random_rate", "block"] = "frames"
    """frames: each frame is missing on its own with the missing rate. block: one contiguous run of frames of each
    modality is missing, the rate being its share. modalities: whole modalities are missing, by subset. random_rate: the
    rate is the share of (sample, modality) cells that are missing, one modality of each sample always staying."""
    mask_visible: bool = True
    """Whether the model is told which frames are missing; false leaves zeros in their place, as LNLN does."""
    incomplete_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Training: the share of samples (by modality, for frames and block) that have anything missing at all."""
    rates: tuple[Rate, ...] = Field(default_factory=default_rates)
    """Missing rates of the robustness grid, ascending; by default 0 to 0.9, for random_rate 0 to 0.6. `modalities` has
    subsets instead and ignores them. random_rate refuses rates above (M-1)/M for M modalities."""

    @field_validator("rates")
    @classmethod
    def _ascending(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if not rates or list(rates) != sorted(set(rates)):
            raise ValueError(f"rates must be ascending and distinct, at least one, got {list(rates)}")
        unwritable = [rate for rate in rates if abs(float(rate_key(rate)) - rate) > 1e-9]
        if unwritable:
            raise ValueError(f"rates have two decimals at most, got {unwritable[0]}")
        return rates

    @property
    def has_rates(self) -> bool:
        """Whether conditions are missing rates; otherwise they are subsets of modalities."""
        return self.name != "modalities"


def rate_key(rate: float) -> str:
    """A missing rate as scripts see it: one decimal, two when needed ("0.3", "0.25")."""
    return f"{rate:.1f}" if abs(rate * 10 - round(rate * 10)) < 1e-9 else f"{rate:.2f}"
