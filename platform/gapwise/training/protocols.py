"""What the loop asks of its surroundings: someone to report to, and somewhere to keep checkpoints."""

from typing import NamedTuple, Protocol

from torch import Tensor

from gapwise.evaluation.objective import Curve


class EpochReport(NamedTuple):
    """One finished epoch, as a pruner, a progress display or a tracking server wants it."""

    epoch: int
    """Epochs finished, from 1."""
    epochs: int
    """Epochs planned."""
    cost: float
    """The objective on validation; lower is better."""
    best_cost: float
    """The lowest so far."""
    metrics: dict[str, Curve]
    """{metric: {condition: value}} on validation, one mask seed."""
    losses: dict[str, float]
    """Mean of each loss term over the epoch, with `total`."""
    samples_per_second: float
    """Training samples, over all workers, without validation."""
    train_seconds: float
    """Seconds inside the loop so far, with validation, over all attempts."""


class Reporter(Protocol):
    def report(self, epoch: EpochReport) -> bool:
        """Take note of an epoch; True asks the loop to stop here."""


class Position(NamedTuple):
    """Where training stands: the next batch to compute is `batch` of `epoch` (both from 0)."""

    epoch: int
    batch: int


class Progress(NamedTuple):
    """Everything but tensors that a resumed run needs."""

    position: Position
    best_cost: float
    best_epoch: int
    """Epochs finished when the best was seen; 0 before any."""
    history: list[EpochReport]
    train_seconds: float


class Snapshot(NamedTuple):
    """A resumable checkpoint: tensors by group (`model`, `best`, `state`, `best_state`, `optimiser`, `losses`)."""

    tensors: dict[str, dict[str, Tensor]]
    progress: Progress


class CheckpointSink(Protocol):
    """Asked by every worker; see to it that one of them writes."""

    def wants(self, position: Position) -> bool:
        """Whether a snapshot should be taken before `position` is computed."""

    def save(self, snapshot: Snapshot) -> None:
        """Keep it; the previous one may be forgotten once this one is safe."""

    def load(self) -> Snapshot | None:
        """The latest one, or None at a fresh start. Raises CheckpointError for one that cannot be read."""
