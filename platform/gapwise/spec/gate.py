"""What a challenger must show before it takes over a missing rate (design decision 11)."""

from typing import Annotated

from pydantic import Field

from gapwise.spec.base import Spec
from gapwise.spec.search import ConstraintsSpec

Margin = Annotated[float, Field(ge=0.0)]
Allowance = Annotated[float, Field(gt=0.0)]
"""Nothing can be shown to be no worse by nothing at all."""


class GateSpec(Spec):
    """Margins are in the units of their metric: .02 of MAE, .01 of an accuracy that lies between 0 and 1."""

    margin: Margin = 0.0
    """By how much more than this the challenger must be better, on the metric that its study optimised."""
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95
    """One decision promotes a model that is no better with a probability of at most 1 - confidence, all rates together.
    It is held stricter where that is more than the decision's part of `yearly_alpha`."""
    non_inferiority: Allowance = 0.02
    """How much worse than what serves them now it may be at other rates that the router would send to it."""
    also: dict[str, Allowance] = Field(default_factory=dict)
    """Further metrics by name, each with how much worse it may be."""
    yearly_alpha: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """The probability of any wrong promotion in a year of decisions on one test split."""
    decisions_per_year: Annotated[int, Field(ge=1)] = 4
    """Each has an equal part of `yearly_alpha`. Where a year's decisions of a name on one test split have spent that,
    the next one is refused."""
    mask_seeds: Annotated[int, Field(ge=2)] = 20
    """Draws of what is missing, the same for every model; resampled like the groups."""
    limits: ConstraintsSpec = ConstraintsSpec()
    """Size and latency, as in a search space, measured on the processor of the machine that decides. What is above them
    is held, however well it answers."""
    other_rows: str = ""
    """Why a challenger may refuse rows, or read them otherwise, that a champion answers; empty: it may not. While
    champions of both kinds serve, the router answers only rows that the champion of the lowest rate reads."""

    @property
    def alpha(self) -> float:
        """Of one decision."""
        return min(1.0 - self.confidence, self.yearly_alpha / self.decisions_per_year)
