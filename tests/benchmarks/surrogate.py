"""A study that costs nothing to run: recorded trials turned into a function from configuration to curve, with noise.

The mean curve of a configuration is answered by a forest of extremely randomised trees on the recorded curves (seeds of
one configuration averaged); parameters enter on their own scale, choices one by one. Noise is what two seeds of one
configuration differ by, a whole curve at a time, divided by the square root of 2: epochs of one trial err together.

    python tests/benchmarks/surrogate.py        how well held-out configurations are predicted, and how noisy trials are
"""

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from measuring import arguments, publish
from numpy.typing import NDArray
from optuna.storages import InMemoryStorage
from recording import ARM, RECORDED, space
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold, cross_val_predict

from gapwise.spec.search import Choices, Parameter, Range
from gapwise.tuning.arm import ArmStudy, Shelf
from gapwise.tuning.assignment import Values

Floats = NDArray[np.float64]
_DRAWS = 20_000


class Surrogate:
    """Fitted on a recording."""

    def __init__(self, recorded: Path = RECORDED) -> None:
        trials = json.loads(recorded.read_text())["trials"]
        runs: dict[int, list[list[float]]] = {}
        for trial in trials:
            runs.setdefault(trial["number"], []).append(trial["costs"])
        values = {trial["number"]: trial["values"] for trial in trials}
        self.inputs_NF = features([values[number] for number in runs])
        self.curves_NE = np.array([np.mean(curves, axis=0) for curves in runs.values()])
        self.noise_PE = np.array([np.subtract(*pair) for pair in runs.values() if len(pair) == 2]) / math.sqrt(2)
        self._forest = forest().fit(self.inputs_NF, self.curves_NE)

    def curves(self, inputs_NF: Floats) -> Floats:
        """[N, epochs]: the mean objective after each epoch."""
        rows = inputs_NF.astype(np.float32)  # the forest's own `predict` spends ten times as long on checking one row
        curves_NE: Floats = np.mean([tree.tree_.predict(rows)[..., 0] for tree in self._forest.estimators_], axis=0)
        return curves_NE

    def noisy(self, curve_E: Floats, generator: np.random.Generator) -> Floats:
        """One trial of a configuration with this mean curve."""
        chosen = self.noise_PE[generator.integers(len(self.noise_PE))]
        noisy_E: Floats = curve_E + chosen * generator.choice([-1.0, 1.0])
        return noisy_E

    @functools.cached_property
    def drawn(self) -> Floats:
        """True values of random configurations."""
        return true_values(self.curves(_random_inputs(_DRAWS)))

    @property
    def target(self) -> float:
        """The 99 % best: at most 1 % of the way from the best to the worst value of 20,000 random configurations."""
        return float(self.drawn.min() + 0.01 * (self.drawn.max() - self.drawn.min()))


def true_values(curves_NE: Floats) -> Floats:
    """What configurations are worth: the objective of the best epoch of the mean curve."""
    best_N: Floats = curves_NE.min(axis=1)
    return best_N


def forest() -> ExtraTreesRegressor:
    return ExtraTreesRegressor(n_estimators=100, min_samples_leaf=2, random_state=0, n_jobs=1)


def features(configurations: list[Values]) -> Floats:
    """[N, F]: every parameter between 0 and 1 on its own scale, a choice as one column each."""
    columns: list[list[float]] = []
    for path, one in _parameters():
        if isinstance(one, Choices):
            columns += [[float(values[path] == choice) for values in configurations] for choice in one.choices]
        elif isinstance(one, Range):
            columns.append([_unit(one, values[path]) for values in configurations])
    return np.array(columns).T


@functools.cache
def _parameters() -> list[tuple[str, Parameter]]:
    return sorted(space().parameters_of(ARM).items())


def _unit(one: Range, value: float) -> float:
    if one.log:
        return math.log(value / one.low) / math.log(one.high / one.low)
    return (value - one.low) / (one.high - one.low)


def _random_inputs(count: int) -> Floats:
    """Uniform on every parameter's scale, as the random sampler draws."""
    generator = np.random.default_rng(0)
    columns = []
    for _, one in _parameters():
        if isinstance(one, Choices):
            columns += list(np.eye(len(one.choices))[generator.integers(len(one.choices), size=count)].T)
        elif isinstance(one, Range) and one.integer:
            whole = generator.integers(int(one.low), int(one.high) + 1, size=count)
            columns.append((whole - one.low) / (one.high - one.low))
        else:
            columns.append(generator.uniform(size=count))
    return np.array(columns).T


def default_inputs() -> Floats:
    """The configuration that every study tries first."""
    arm = ArmStudy(space(), "search", ARM, Shelf(InMemoryStorage(), ""), retry_failed=False)
    return features([arm.ask().values])


def quality() -> dict[str, Any]:
    """Out of fold, of the true value: share of variance explained and rank correlation; and what there is to find."""
    surrogate = Surrogate()
    folds = KFold(10, shuffle=True, random_state=0)
    predicted = true_values(cross_val_predict(forest(), surrogate.inputs_NF, surrogate.curves_NE, cv=folds))
    actual, drawn = true_values(surrogate.curves_NE), surrogate.drawn
    return {
        "configurations": len(actual),
        "repeated": len(surrogate.noise_PE),
        "variance_explained": float(1 - ((predicted - actual) ** 2).mean() / actual.var()),
        "rank_correlation": float(np.corrcoef(predicted.argsort().argsort(), actual.argsort().argsort())[0, 1]),
        "noise_sd_at_the_end": float(np.sqrt((surrogate.noise_PE[:, -1] ** 2).mean())),
        "best": float(drawn.min()),
        "median": float(np.median(drawn)),
        "worst": float(drawn.max()),
        "target": surrogate.target,
        "share_of_random_at_target": float((drawn <= surrogate.target).mean()),
        "default": float(true_values(surrogate.curves(default_inputs()))[0]),
    }


if __name__ == "__main__":
    publish(quality(), arguments(__doc__).parse_args().out)
