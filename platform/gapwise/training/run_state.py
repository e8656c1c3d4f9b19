"""What changes while a run trains, in one place, so that a snapshot of it is complete by construction."""

import copy
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gapwise.data.masks import stream
from gapwise.models.interface import Collective, MultimodalModel, State
from gapwise.training.optimiser import optimiser_tensors, restore_optimiser
from gapwise.training.protocols import EpochReport, Position, Progress, Snapshot


@dataclass(kw_only=True, slots=True)
class RunState:
    """Parameters, optimiser, running statistics, position, and the best seen so far."""

    model: MultimodalModel
    optimiser: torch.optim.AdamW
    noise: torch.Generator
    state: State
    position: Position = Position(0, 0)
    best_cost: float = math.inf
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_state: State = field(default_factory=dict)
    history: list[EpochReport] = field(default_factory=list)
    losses: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0
    train_seconds: float = 0.0

    @classmethod
    def begin(cls, model: MultimodalModel, optimiser: torch.optim.AdamW, device: torch.device) -> "RunState":
        state = {name: value.to(device) for name, value in model.initial_state().items()}
        return cls(model=model, optimiser=optimiser, noise=torch.Generator(device=device), state=state)

    def seed_noise(self, seed: int, rank: int, step: int) -> None:
        """Dropout noise is a function of (seed, worker, step): a resumed run repeats it without having stored it."""
        self.noise.manual_seed(
            int(stream(seed=seed, split="train", epoch=step, purpose=f"noise of worker {rank}")) >> 1
        )

    def add_losses(self, terms: dict[str, Tensor], weight: float) -> None:
        for name, value in terms.items():
            part = weight * value.detach()
            self.losses[name] = self.losses[name] + part if name in self.losses else part

    def take_losses(self, workers: Collective) -> dict[str, float]:
        """Means over the epoch's steps and the workers; starts a new sum."""
        names = sorted(self.losses)
        sums = workers.total(torch.stack([self.losses[name].float() for name in names]))
        total = sums / (self.steps * workers.world)
        self.losses, self.steps = {}, 0
        return dict(zip(names, total.tolist(), strict=True))

    def close_epoch(self, report: EpochReport, *, keep: bool) -> None:
        """Note an epoch; with `keep` its weights become the ones to ship, and its state what they answer with."""
        self.history.append(report)
        if keep:
            self.best_cost, self.best_epoch = report.cost, report.epoch
            self.best = copy.deepcopy(self.model.state_dict())
            self.best_state = copy.deepcopy(self.model.serving_state(self.state))

    def load_best(self) -> None:
        self.model.load_state_dict(self.best)
        self.state = self.best_state

    def snapshot(self, seconds_since: float) -> Snapshot:
        """Everything, as it stands before `position` is computed. `seconds_since` counts into the run's time."""
        tensors = {
            "model": self.model.state_dict(),
            "best": self.best,
            "state": self.state,
            "best_state": self.best_state,
            "optimiser": optimiser_tensors(self.optimiser),
            "losses": self.losses,
        }
        progress = Progress(
            position=self.position,
            best_cost=self.best_cost,
            best_epoch=self.best_epoch,
            history=self.history,
            train_seconds=self.train_seconds + seconds_since,
        )
        return Snapshot(tensors, progress)

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot taken by the same spec on the same data."""
        tensors, progress = snapshot
        device = next(self.model.parameters()).device
        moved = {group: {name: one.to(device) for name, one in kept.items()} for group, kept in tensors.items()}
        self.model.load_state_dict(moved["model"])
        restore_optimiser(self.optimiser, moved.get("optimiser", {}))
        self.state, self.best = moved.get("state", {}), moved.get("best", {})
        self.best_state, self.losses = moved.get("best_state", {}), moved.get("losses", {})
        self.position, self.best_cost, self.best_epoch = progress.position, progress.best_cost, progress.best_epoch
        self.steps = progress.position.batch
        self.history, self.train_seconds = list(progress.history), progress.train_seconds
