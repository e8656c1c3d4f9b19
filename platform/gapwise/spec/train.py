"""One training run, completely: what `gapwise train` reads and what every trial of a study resolves to."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gapwise.spec.base import Spec
from gapwise.spec.model import LateFusionSpec, ModelSpec
from gapwise.spec.protocol import ProtocolSpec

Metric = Literal["auto", "mae", "corr", "acc2_non0", "acc2_has0", "accuracy", "macro_recall", "f1_weighted", "f1_macro"]


class OptimiserSpec(Spec):
    """AdamW with a linear warm-up and a cosine decay to a tenth."""

    lr: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 1e-2
    """Decoupled weight decay of matrices; vectors (biases, norms) have none."""
    warmup: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Share of all steps spent warming up."""
    clip: Annotated[float, Field(gt=0.0)] = 1.0
    """Largest norm of the gradient."""


class ObjectiveSpec(Spec):
    """What the validation curve over missing rates is reduced to; decides early stopping, pruning and selection."""

    metric: Metric = "auto"
    """A metric of methods.md section 5. Its direction is known: mae is minimised, the others are maximised. auto: mae
    for regression, macro_recall (UA) for classification; it is replaced as soon as the dataset is known."""
    reduce: Literal["mean", "worst", "rate"] = "mean"
    """mean over the grid, the worst rate, or one rate."""
    rate: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """The rate for `reduce: rate`; it must be in the protocol's grid."""


def refuse_off_grid(objective: ObjectiveSpec, protocol: ProtocolSpec, where: str) -> None:
    """Raises ValueError for a rate that is missing, out of place, or not one that the protocol judges."""
    rate, grid = objective.rate, protocol.rates
    if (objective.reduce == "rate") != (rate is not None):
        raise ValueError(f"{where}.rate goes with {where}.reduce: rate, and only with it")
    if rate is not None and not protocol.has_rates:
        raise ValueError(f"protocol {protocol.name!r} has no missing rates, so {where}.reduce cannot be rate")
    if rate is not None and rate not in grid:
        raise ValueError(f"{where}.rate must be one of protocol.rates {list(grid)}, got {rate}")


class TrainSpec(Spec):
    """One training run."""

    model: ModelSpec = LateFusionSpec()
    """Which model, and its hyperparameters."""
    protocol: ProtocolSpec = ProtocolSpec()
    """How observations go missing in training and validation."""
    optimiser: OptimiserSpec = OptimiserSpec()
    """How parameters move."""
    objective: ObjectiveSpec = ObjectiveSpec()
    """What early stopping and selection look at, on validation."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Passes over the training split at most."""
    patience: Annotated[int, Field(ge=0)] = 6
    """Epochs without a better validation objective before training stops; 0 never stops early."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 64
    """Global batch over all workers; an epoch is cut into nearly equal batches of at most this many."""
    micro_batch: Annotated[int, Field(ge=1)] | None = Field(default=None, exclude_if=lambda value: value is None)
    """Samples that a worker passes through the model at once, for batches that do not fit its memory: gradients add up
    over the parts. None: all of its share. What PROMISE and PRLF train changes with it, for they compare samples."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of initial weights, order, training masks and dropout. Evaluation masks have seeds of their own."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, fp32 elsewhere."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between two resumable checkpoints."""
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    """Also a resumable checkpoint every so many steps within an epoch; 0 for none."""

    @model_validator(mode="after")
    def _objective_is_on_the_grid(self) -> "TrainSpec":
        refuse_off_grid(self.objective, self.protocol, "objective")
        return self
