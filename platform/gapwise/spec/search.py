"""A search space: the question, which models compete (arms), what each may vary, and how long to look.

A study always carries `late_fusion` as an arm, added here when the file does not name it: no winner without a baseline
beside it. Parameter paths are those of `TrainSpec` (`model.tau_cross`, `optimiser.lr`), so a space cannot search what a
training run does not have.
"""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from gapwise.errors import nearest
from gapwise.spec.base import Spec, flat
from gapwise.spec.fingerprint import canonical
from gapwise.spec.model import model_names
from gapwise.spec.train import ObjectiveSpec, TrainSpec, refuse_off_grid

BASELINE = "late_fusion"
Role = Literal["searched", "nuisance"]
Choice = str | int | float | bool
TRAIN_OBJECTIVE = "train"
"""What `pruner.on` calls `train.objective`, so no objective of a space's own may be called that."""


class Range(Spec):
    """A number between two bounds, both included."""

    role: Role
    """searched: the question is about it. nuisance: it is tuned so that the comparison is fair."""
    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    log: bool = False
    """Whether values are spread evenly on a logarithmic scale."""
    integer: bool = False
    """Whether only whole numbers are tried."""

    @model_validator(mode="after")
    def _bounds(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got low {self.low:g} and high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range must start above 0, got low {self.low:g}")
        if self.integer and (self.low % 1 or self.high % 1):
            raise ValueError(f"an integer range needs whole bounds, got {self.low:g} and {self.high:g}")
        return self


class Choices(Spec):
    """One of a list of values."""

    role: Role
    """searched or nuisance, as for a range."""
    choices: tuple[Choice, ...]
    """The values, at least two, distinct."""

    @field_validator("choices")
    @classmethod
    def _distinct(cls, choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
        if len(choices) < 2 or len({canonical(choice) for choice in choices}) < len(choices):
            raise ValueError(f"choices must be at least two distinct values, got {list(choices)}")
        return choices


class Fixed(Spec):
    """A value that the study holds, written down so that a reader sees it was a decision."""

    role: Literal["fixed"]
    """Always fixed."""
    value: Choice
    """The value of every trial of this arm."""


def _kind(parameter: Any) -> str:
    """Judge a parameter by the keys that are there, so that an error speaks of one form and not of three."""
    keys = parameter if isinstance(parameter, dict) else vars(parameter) if isinstance(parameter, Spec) else {}
    if "value" in keys or keys.get("role") == "fixed":
        return "fixed"
    return "choices" if "choices" in keys else "range"


Parameter = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")] | Annotated[Fixed, Tag("fixed")],
    Discriminator(_kind),
]


def _known_model(name: str) -> str:
    if name not in model_names():
        raise ValueError(
            f"unknown model, got {name!r}{nearest(name, model_names())}, allowed: {', '.join(model_names())}"
        )
    return name


class ArmSpec(Spec):
    """One model in the race."""

    parameters: dict[str, Parameter] = Field(default_factory=dict)
    """By path in a training spec, such as `model.tau_cross` or `optimiser.lr`."""


_BASELINE_PARAMETERS: dict[str, Parameter] = {
    "optimiser.lr": Range(role="nuisance", low=1e-4, high=5e-3, log=True),
    "optimiser.weight_decay": Range(role="nuisance", low=1e-4, high=1e-1, log=True),
    "model.dropout": Range(role="nuisance", low=0.0, high=0.5),
}


class SamplerSpec(Spec):
    """How the next configuration is chosen. Every default is written out, because Optuna's have changed."""

    name: Literal["auto", "tpe", "gp", "cmaes", "random", "grid", "qmc"] = "auto"
    """auto: gp for an arm's first 300 trials and tpe after them; for several objectives tpe. tpe: tree-structured
    Parzen estimator. gp: Gaussian process, which also learns from trials that were stopped early. cmaes: evolution
    strategy, for numbers. random: the baseline of samplers. grid: every combination of `points` values a range. qmc: a
    scrambled Sobol sequence."""
    startup: Annotated[int, Field(ge=1)] = 8
    """TPE, GP, CMA-ES: random trials before what was seen is used."""
    multivariate: bool = True
    """TPE: model parameters jointly."""
    group: bool = False
    """TPE: model parameters that occur together jointly, others apart; needs `multivariate`."""
    constant_liar: bool = True
    """TPE: count running trials as bad, so that concurrent trials spread out."""
    points: Annotated[int, Field(ge=2, le=100)] = 4
    """Grid: values of each range, evenly spread on its scale, both bounds included."""

    @model_validator(mode="after")
    def _group_is_multivariate(self) -> "SamplerSpec":
        if self.group and not self.multivariate:
            raise ValueError("group: true needs multivariate: true")
        return self


class PrunerSpec(Spec):
    """When a trial is stopped early."""

    name: Literal["asha", "hyperband", "median", "none"] = "asha"
    """asha: asynchronous successive halving. hyperband: several of them that begin later and later. median: worse than
    the median of the others at the same epoch. none: every trial trains to its end."""
    min_epochs: Annotated[int, Field(ge=1)] = 3
    """Epochs before the first decision."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """ASHA, Hyperband: one in this many trials survives a rung, and rungs are this many times further apart."""
    on: str | None = None
    """With several objectives, where it must be said: by which of them trials are stopped, or `train` for
    `train.objective`. Whoever is behind there is lost, however good elsewhere; `name: none` keeps everyone."""


class SecondPhaseSpec(Spec):
    """Winners are chosen by their mean over seeds, because one seed's best is mostly luck."""

    top_k: Annotated[int, Field(ge=1)] = 2
    """Configurations of each rate and arm that run again."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    """Seeds of each of them, and of the refit of each winner."""
    cap: Annotated[int, Field(ge=1)] = 4
    """Configurations of an arm at most, over all rates; those best at most rates come first."""
    mask_seeds: Annotated[int, Field(ge=1, le=1000)] = 20
    """Mask seeds behind every figure of the second phase and of the refit."""
    eliminate: bool = True
    """Whether a configuration that is worse than the leader of every rate beyond doubt gets no further seeds."""
    min_seeds: Annotated[int, Field(ge=2)] = 2
    """Seeds of every configuration before the first is dropped, so that the noise between seeds is seen."""
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95
    """At least so probably the configuration that is truly best at a rate is not dropped there."""

    def rounds(self) -> list[int]:
        """Seeds that every configuration still in the race has run after each round."""
        first = min(self.min_seeds, self.seeds) if self.eliminate else self.seeds
        return list(range(first, self.seeds + 1))


class ParametersLimit(Spec):
    """How large a model may be."""

    max: Annotated[int, Field(ge=1)]
    """Parameters at most, those of a frozen text encoder not counted."""


class LatencyLimit(Spec):
    """How long a model may take to answer, on the device of its trial and before it is trained.

    A time is noisy: two runs of a study may judge a configuration near the limit differently.
    """

    max: Annotated[float, Field(gt=0.0)]
    """Milliseconds a sample at most."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    """Samples of a forward pass: the longest of validation, nothing missing."""
    repeats: Annotated[int, Field(ge=1, le=1000)] = 20
    """Forward passes of which the median counts; three come before and do not."""


class ConstraintsSpec(Spec):
    """What a configuration must keep within, the baseline's too; one that does not is never trained nor chosen."""

    parameters: ParametersLimit | None = None
    """Size of the model."""
    latency_ms: LatencyLimit | None = None
    """Time to answer."""

    def limits(self) -> dict[str, float]:
        """The largest value of everything that is constrained, by name."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: limit.max for name, limit in found.items() if limit is not None}


class WarmStartSpec(Spec):
    """What earlier studies give to a new one; it is copied when the study is created."""

    studies: tuple[str, ...]
    """Earlier studies by name; they may go on, or be deleted, afterwards."""
    use: Literal["best", "history"] = "best"
    """best: each arm tries their best configurations right after its default. history: the sampler (auto, tpe, gp) also
    knows their trials, which are no trials of this study."""
    top: Annotated[int, Field(ge=1)] = 3
    """best: configurations of each study and arm."""

    @field_validator("studies")
    @classmethod
    def _distinct_names(cls, studies: tuple[str, ...]) -> tuple[str, ...]:
        if not studies or len(set(studies)) < len(studies):
            raise ValueError(f"studies must be distinct names, at least one, got {list(studies)}")
        return studies


class BudgetSpec(Spec):
    """Where the search ends, whichever comes first: no trial starts later, and those that run are finished.

    What was used is counted over all of a study's sessions. The second phase and the refit come on top.
    """

    wall_seconds: Annotated[float, Field(gt=0.0)] | None = None
    """Of searching, while a driver lived."""
    device_seconds: Annotated[float, Field(gt=0.0)] | None = None
    """Inside training loops, times the devices of a trial."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Of all trials together."""


class SearchSpec(Spec):
    """A study."""

    question: str
    """What the study asks, in a sentence; it stands in MLflow and in the report."""
    arms: dict[Annotated[str, AfterValidator(_known_model)], ArmSpec]
    """Models by name. `late_fusion` joins by itself where it is not named."""
    common: dict[str, Choice] = Field(default_factory=dict)
    """Values by path that hold for every arm, the baseline included, such as `model.width: 64`."""
    train: TrainSpec = TrainSpec()
    """What every trial starts from, without `model`: models are the arms."""
    objectives: dict[str, ObjectiveSpec] = Field(default_factory=dict)
    """By name, at least two: what the sampler looks at instead of `train.objective`, and what the Pareto front is
    of. `train.objective` still says which epoch of a trial is kept."""
    constraints: ConstraintsSpec = ConstraintsSpec()
    """What every configuration must keep within."""
    warm_start: WarmStartSpec | None = None
    """What earlier studies give to this one."""
    trials: Annotated[int, Field(ge=1)] = 20
    """Trials of each arm but the baseline."""
    baseline_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """Trials of the baseline, as a share of `trials`; figures to be quoted use 1."""
    executor: Literal["warm", "train"] = "warm"
    """warm: reused workers, one device each. train: one Ray Train run a trial."""
    workers_per_trial: Annotated[int, Field(ge=1)] = 1
    """Ray Train workers of a trial; more than one needs `executor: train`."""
    trials_per_device: Annotated[int, Field(ge=1, le=64)] = 1
    """Trials that share a GPU, with `executor: warm`; where there is none, every trial has a CPU core at least."""
    pack: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = 1
    """Trials that a worker trains fused, as one batched program, with `executor: warm`; auto: as many as fit the memory
    and still gain, found by a short probe. So many configurations are asked for before the first of them answers."""
    compile: Literal["auto", True, False] = "auto"
    """Whether the step of a pack is compiled (torch.compile), which takes minutes for each kind of trial. auto: on a
    CPU, where its trials have so much before them that it pays, and stays so only if they become faster; never where
    packs are not refilled (a cluster that studies share)."""
    budget: BudgetSpec = BudgetSpec()
    """Ends of the search beside `trials`."""
    trial_seconds: Annotated[float, Field(gt=0.0)] | None = None
    """A run of either phase that takes longer in one go is given up as failed: training that hangs ends here."""
    worker_deaths: Annotated[int, Field(ge=0)] = 2
    """How often a run whose worker died goes on from its last checkpoint before it is given up."""
    sampler: SamplerSpec = SamplerSpec()
    """How configurations are chosen."""
    pruner: PrunerSpec = PrunerSpec()
    """When a trial stops early."""
    second_phase: SecondPhaseSpec = SecondPhaseSpec()
    """Seeds behind every winner."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the samplers and of every trial's training."""

    @field_validator("common", mode="before")
    @classmethod
    def _by_path(cls, common: Any) -> Any:
        """`--set common.model.width=32` arrives nested; paths are what is meant."""
        return flat(common) if isinstance(common, dict) else common

    @field_validator("arms", mode="before")
    @classmethod
    def _at_least_one(cls, arms: Any) -> Any:
        if not isinstance(arms, dict) or not arms:
            raise ValueError("at least one arm is needed")
        return {name: {} if arm is None else arm for name, arm in arms.items()}

    @model_validator(mode="after")
    def _fits_together(self) -> "SearchSpec":
        if "model" in self.train.model_fields_set:
            raise ValueError("train.model is not used: models are the arms, values for all of them go under common")
        if self.workers_per_trial > 1 and self.executor == "warm":
            raise ValueError("workers_per_trial above 1 needs executor: train")
        if self.trials_per_device > 1 and self.executor == "train":
            raise ValueError("trials_per_device above 1 needs executor: warm")
        if self.pack != 1:
            self._refuse_beside_pack()
        elif self.compile is True:
            raise ValueError("compile is of packs: it needs pack above 1, or auto")
        return self

    def _refuse_beside_pack(self) -> None:
        if self.executor == "train":
            raise ValueError("pack needs executor: warm")
        if self.trials_per_device > 1:
            raise ValueError("pack and trials_per_device both put trials on one device: choose one")
        if self.trial_seconds is not None:
            raise ValueError("trial_seconds watches one run at a time: it needs pack: 1")

    @model_validator(mode="after")
    def _objectives_are_usable(self) -> "SearchSpec":
        names = list(self.objectives)
        if len(names) == 1:
            raise ValueError(f"objectives are at least two, got {names}; a single one is train.objective")
        for name, objective in self.objectives.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name == TRAIN_OBJECTIVE:
                raise ValueError(f"{name!r} cannot name an objective: letters, digits, _ and -, and not 'train'")
            refuse_off_grid(objective, self.train.protocol, f"objectives.{name}")
        on, allowed = self.pruner.on, ", ".join([*names, TRAIN_OBJECTIVE])
        if on is not None and not names:
            raise ValueError("pruner.on goes with several objectives, and only with them")
        if on is not None and on not in (*names, TRAIN_OBJECTIVE):
            raise ValueError(f"pruner.on must be one of {allowed}, got {on!r}")
        if names and on is None and self.pruner.name != "none":
            raise ValueError(f"with several objectives pruning needs pruner.on (one of {allowed}) or pruner.name: none")
        return self

    @model_validator(mode="after")
    def _sampler_is_able(self) -> "SearchSpec":
        sampler = self.sampler.name
        if sampler == "cmaes" and self.objectives:
            raise ValueError(
                "sampler cmaes knows one objective only; for several take auto, tpe, gp, random, grid or qmc"
            )
        if sampler == "cmaes" and self.constraints.limits():
            raise ValueError("sampler cmaes knows no constraints; take auto, tpe, gp, random, grid or qmc")
        if self.warm_start is not None and self.warm_start.use == "history" and sampler not in ("auto", "tpe", "gp"):
            raise ValueError(
                f"warm_start.use: history is for the samplers auto, tpe and gp, {sampler} does not look at it"
            )
        return self

    def arm_names(self) -> list[str]:
        """Arms in the order of the file, the baseline last."""
        return [name for name in self.arms if name != BASELINE] + [BASELINE]

    def parameters_of(self, arm: str) -> dict[str, Parameter]:
        """What an arm varies and fixes, by path; a baseline that the file does not name tunes its nuisances."""
        return self.arms[arm].parameters if arm in self.arms else _BASELINE_PARAMETERS

    def trials_of(self, arm: str) -> int:
        """Trials that an arm gets; the baseline's share is rounded up."""
        share = self.baseline_share if arm == BASELINE else 1.0
        return max(1, math.ceil(self.trials * share - 1e-9))
