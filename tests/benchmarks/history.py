"""Whether TPE may forget: the best 25 and the newest trials against all of them, on the surrogate (`surrogate.py`).

    python tests/benchmarks/history.py --out tests/benchmarks/results/history.json

Both search with ASHA, seed by seed; up to `--most` ended trials they are the same search. Regret is the incumbent's
true value above the best of 20,000 random configurations (below zero: better than those). Then what one question costs
as history grows, on made-up histories in memory: two trials of three pruned, none running.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from large_study import cost_of
from measuring import arguments, publish
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from recording import ARM, space
from search import METHODS, Search
from surrogate import Surrogate

from gapwise.spec.search import SamplerSpec
from gapwise.tuning import searchers
from gapwise.tuning.assignment import Assignment
from gapwise.tuning.searchers import Question, build_sampler
from gapwise.tuning.space import distributions

_BEST = 25
"""As many as TPE ever calls good."""


class Remembered:
    """A study that shows a sampler its running trials, its best ones and its newest ones."""

    def __init__(self, study: optuna.Study, most: int) -> None:
        self._study, self._most = study, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, **asked: Any) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = self._study._get_trials(**asked)
        ended = [one for one in trials if one.state is not TrialState.RUNNING]
        complete = sorted((one for one in ended if one.state is TrialState.COMPLETE), key=lambda one: one.value)
        kept = {one.number for one in (*complete[:_BEST], *ended[-(self._most - _BEST) :])}
        return [one for one in trials if one.state is TrialState.RUNNING or one.number in kept]


@contextmanager
def remembering(most: int) -> Iterator[None]:
    """TPE forgets in here."""
    whole = searchers._Parzen

    class Forgetful(whole):  # type: ignore[misc, valid-type]
        def _sample(self, study: Any, *rest: Any) -> Any:
            return super()._sample(Remembered(study, most), *rest)

    searchers._Parzen = Forgetful  # type: ignore[misc]
    try:
        yield
    finally:
        searchers._Parzen = whole  # type: ignore[misc]


def regrets(surrogate: Surrogate, seed: int, marks: list[int]) -> tuple[list[float], float]:
    """At each of these numbers of trials, and processor seconds a trial over the last stretch."""
    search, found, began = Search(surrogate, METHODS["asha_tpe"], seed), [], 0.0
    for mark in marks:
        began, first = time.process_time(), search.trials
        while search.trials < mark:
            search.step()
        found.append(search.incumbent - float(surrogate.drawn.min()))
    return found, (time.process_time() - began) / (search.trials - first)


def compared(repetitions: int, most: int, marks: list[int]) -> dict[str, Any]:
    surrogate = Surrogate()
    rows: dict[str, list[list[float]]] = {"all": [], f"newest_{most}": []}
    costs: dict[str, list[float]] = {name: [] for name in rows}
    for seed in range(repetitions):
        for name in rows:
            with remembering(10**9 if name == "all" else most):
                found, seconds = regrets(surrogate, seed, marks)
            rows[name].append(found)
            costs[name].append(seconds)
            print(seed, name, found, seconds, file=sys.stderr, flush=True)
    return {
        "repetitions": repetitions,
        "trials": marks,
        "seconds_a_trial_at_the_end": {name: statistics.median(values) for name, values in costs.items()},
        "regret": {name: np.median(found, axis=0).tolist() for name, found in rows.items()},
        "regret_every": rows,
    }


def made_up(count: int, space_of: dict[str, BaseDistribution]) -> optuna.Study:
    """An ended search of this many random configurations."""
    draw = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study = optuna.create_study()
    for number in range(count):
        values = {path: draw.sampler.sample_independent(draw, None, path, one) for path, one in space_of.items()}
        pruned = number % 3 > 0
        cost = cost_of(Assignment("search", ARM, number, values, 0, number), 3 if pruned else 15)
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        study._storage.create_new_trial(
            study._study_id,
            create_trial(
                state=state,
                value=None if pruned else cost,
                params=values,
                distributions=space_of,
                intermediate_values={3: cost},
            ),
        )
    return study


def asking(counts: list[int], questions: int, most: int) -> dict[str, dict[int, float]]:
    """Median processor milliseconds of a question, by sampler and length of history."""
    parameters = distributions(space(), ARM)

    def optunas(number: int) -> BaseSampler:
        seed = Question(0, ARM, number).seed
        return TPESampler(seed=seed, n_startup_trials=8, multivariate=True, constant_liar=True)

    def ours(name: Any) -> Callable[[int], BaseSampler]:
        return lambda number: build_sampler(SamplerSpec(name=name), Question(0, ARM, number), parameters)

    found: dict[str, dict[int, float]] = {}
    for count in counts:
        study = made_up(count, parameters)
        for name, sampler_of, memory in (
            ("random", ours("random"), 10**9),
            ("tpe_of_optuna_built_anew", optunas, 10**9),
            ("tpe", ours("tpe"), 10**9),
            (f"tpe_newest_{most}", ours("tpe"), most),
        ):
            with remembering(memory):
                found.setdefault(name, {})[count] = _milliseconds(study, sampler_of, parameters, questions)
            print(count, name, found[name][count], file=sys.stderr, flush=True)
    return found


def _milliseconds(
    study: optuna.Study, sampler_of: Callable[[int], BaseSampler], parameters: dict[str, BaseDistribution], count: int
) -> float:
    taken = []
    for number in range(count):
        study.sampler = sampler_of(number)
        began = time.process_time()
        trial = study.ask(parameters)
        taken.append(1000 * (time.process_time() - began))
        study.tell(trial, state=TrialState.FAIL)
    return statistics.median(taken)


def main() -> None:
    parser = arguments(__doc__, repetitions=12, trials=800, most=200, questions=5, longest=10_000)
    chosen = parser.parse_args()
    marks = [chosen.trials // 4, chosen.trials // 2, chosen.trials]
    counts = [count for count in (1000, 3000, 10_000) if count <= chosen.longest]
    found = {"milliseconds_asking": asking(counts, chosen.questions, chosen.most)}
    if chosen.repetitions:
        found |= compared(chosen.repetitions, chosen.most, marks)
    publish({"most": chosen.most, **found}, chosen.out)


if __name__ == "__main__":
    main()
