"""Made-up studies as values: nothing is trained and nothing lies on disk, so that thousands of trials cost nothing.

The figures follow a formula (larger prompts and a learning rate near 0.001 are better), so a report has something to
find. `lively_facts(trials=...)` is what `gather` would have read.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapwise.reporting.serving import Served, Serving
from gapwise.reporting.study_facts import Facts
from gapwise.spec.search import SearchSpec
from gapwise.tuning.assignment import Assignment, Finished, Outcome, count_states, failure
from gapwise.tuning.importance import importance
from gapwise.tuning.leaders import best_by_condition, leaders
from gapwise.tuning.reading import Study, TrialRecord
from gapwise.tuning.result import RefitModel, Spread, StudyResult
from gapwise.tuning.selection import standings

SPACE: dict[str, Any] = {
    "question": "How long should prompts be, and how sharp the temperatures?",
    "arms": {
        "promise": {
            "parameters": {
                "optimiser.lr": {"role": "nuisance", "low": 1e-4, "high": 1e-2, "log": True},
                "model.prompt_length": {"role": "searched", "low": 0, "high": 32, "integer": True},
                "model.tau_cross": {"role": "searched", "low": 0.05, "high": 0.5, "log": True},
            }
        },
        "prlf": {
            "parameters": {
                "optimiser.lr": {"role": "nuisance", "low": 1e-4, "high": 1e-2, "log": True},
                "model.fisher": {"role": "searched", "choices": ["precision", "trace", "ema"]},
                "model.fisher_lambda": {"role": "searched", "low": 0.0, "high": 1.0},
            }
        },
    },
    "train": {"epochs": 12, "objective": {"metric": "mae"}},
    "trials": 40,
    "pruner": {"name": "asha", "min_epochs": 2, "reduction": 3},
}
SUBSETS = ("audio", "text", "vision", "audio+text", "audio+vision", "text+vision", "audio+text+vision")
MakeFacts = Callable[..., Facts]


def conditions(space: SearchSpec) -> list[str]:
    return [f"{rate:.1f}" for rate in space.train.protocol.rates] if space.train.protocol.has_rates else list(SUBSETS)


def _curve(space: SearchSpec, cost: float) -> dict[str, float]:
    named = conditions(space)
    return {at: cost + 0.5 * place / len(named) for place, at in enumerate(named)}


def _trial(space: SearchSpec, arm: str, number: int, draw: random.Random) -> TrialRecord:
    values: dict[str, Any] = {"optimiser.lr": 10 ** draw.uniform(-4, -2.31)}
    cost = 0.8 + 0.2 * abs(values["optimiser.lr"] - 0.001) / 0.01 + draw.gauss(0, 0.01)
    if arm == "promise":
        values |= {"model.prompt_length": draw.randint(0, 32), "model.tau_cross": 10 ** draw.uniform(-1.3, -0.31)}
        cost -= 0.005 * values["model.prompt_length"]
    elif arm == "prlf":
        values |= {"model.fisher": draw.choice(["precision", "trace", "ema"]), "model.fisher_lambda": draw.random()}
        cost -= 0.1 * values["model.fisher_lambda"]
    else:
        cost += 0.1
        values |= {"optimiser.weight_decay": 0.01, "model.dropout": draw.random() / 2}
    state: Any = "pruned" if number % 3 == 1 else "failed" if number % 11 == 5 else "complete"
    epochs = {"pruned": 3, "failed": 1, "complete": space.train.epochs}[state]
    costs = {epoch: cost + 0.6 / epoch for epoch in range(1, epochs + 1)}
    assignment = Assignment("search", arm, number, values, space.seed, number)
    if state == "failed":
        return TrialRecord(assignment, failure("NaN: the loss is nan")._replace(train_seconds=2.0), costs)
    outcome = Outcome(state, costs[epochs], epochs, {"mae": _curve(space, costs[epochs])}, 2.0 * epochs)
    return TrialRecord(assignment, outcome, costs)


def _repeats(space: SearchSpec, trials: list[TrialRecord], draw: random.Random) -> list[TrialRecord]:
    found = []
    for arm in space.arm_names():
        ranked = [one for one in trials if one.assignment.arm == arm and one.outcome.eligible]
        for one in sorted(ranked, key=lambda one: one.outcome.cost or 0.0)[:2]:
            for seed in (1, 2, 3):
                cost = (one.outcome.cost or 0.0) + draw.gauss(0, 0.01)
                ending = Outcome("complete", cost, 10, {"mae": _curve(space, cost)}, 24.0)
                again = one.assignment._replace(phase="seeds", seed=seed)
                found.append(TrialRecord(again, ending, {}))
    return found


def _diagnostics(arm: str, named: list[str]) -> dict[str, dict[str, float]]:
    if arm != "prlf":
        return {}
    shares = {"text": 0.6, "audio": 0.25, "vision": 0.15}
    led = {f"dominant_share/{name}": dict.fromkeys(named, share) for name, share in shares.items()}
    told = {f"rank_correlation/{name}/frames": dict.fromkeys(named, 0.3 + share / 2) for name, share in shares.items()}
    return led | told | {"dominant_none": dict.fromkeys(named, 0.0)}


def _result(space: SearchSpec, trials: list[TrialRecord], repeats: list[TrialRecord]) -> StudyResult:
    table = standings([Finished(one.assignment, one.outcome) for one in repeats], "mae", 3)
    best, baseline = (best_by_condition(table, "mae", baseline=which) for which in (False, True))
    winners = {one.trial for one in [*best.values(), *baseline.values()]} | {
        f"{one.assignment.arm}-{one.assignment.source}" for one in repeats if one.assignment.arm == "prlf"
    }
    named = conditions(space)
    models = []
    for trial in sorted(winners, key=lambda name: (name.startswith("late"), name)):
        arm = trial.rsplit("-", 1)[0]
        mean = {"promise": 0.82, "prlf": 0.86}.get(arm, 0.95)
        curve = {at: Spread(mean=value, sd=0.015) for at, value in _curve(space, mean).items()}
        models.append(
            RefitModel(
                trial=trial,
                arm=arm,
                values={},
                spec_fingerprint="f" * 64,
                epochs=10,
                seeds=[1001, 1002, 1003],
                shipped_seed=1002,
                folder=f"refit/{trial}/seed-1002",
                over_seeds={"mae": curve},
                shipped={},
                diagnostics=_diagnostics(arm, named),
            )
        )
    return StudyResult(
        study="lively",
        question=space.question,
        task="regression",
        dataset="mosi",
        data="data/mosi",
        fingerprints={name: f"{name:0<64}" for name in ("dataset", "train", "valid", "test")},
        spec_fingerprint="f" * 64,
        protocol=space.train.protocol,
        objective=space.train.objective,
        mask_seeds=20,
        trials=count_states(one.outcome for one in trials),
        arms={},
        wall_seconds=900.0,
        search_seconds=600.0,
        train_seconds=500.0,
        best=best,
        baseline=baseline,
        floor={"mae": 1.4},
        models=models,
        parent_run_id="0123456789abcdef",
    )


def study_of(space: SearchSpec, trials: list[TrialRecord], result: StudyResult | None = None, **changes: Any) -> Study:
    fields: dict[str, Any] = {
        "name": "lively",
        "folder": Path("/nowhere/lively"),
        "space": space,
        "data_fingerprint": "d" * 64,
        "dataset": "mosi",
        "data": None,
        "command": ["space.yaml", "--data", "data/mosi"],
        "warm_start": [],
        "trials": trials,
        "waiting": 0,
        "result": result,
        "driver": None,
        "changed": 0.0,
    }
    return Study(**(fields | changes))


def facts_of(study: Study, **changes: Any) -> Facts:
    arms = {arm: importance(study.space, arm, study.of("search")) for arm in study.space.arm_names()}
    fields: dict[str, Any] = {
        "study": study,
        "leaders": leaders(study),
        "importance": {arm: found for arm, found in arms.items() if found is not None},
        "optimum": {},
        "mask_sd": {},
        "test_reads": 3,
        "serving": None,
    }
    return Facts(**(fields | changes))


def make_facts(
    *, trials: int = 100, finished: bool = True, space: dict[str, Any] | None = None, **changes: Any
) -> Facts:
    """What is known of a study with so many search trials; `changes` are fields of Facts."""
    spec = SearchSpec.model_validate(SPACE | (space or {}))
    draw, arms = random.Random(0), spec.arm_names()
    searched = [_trial(spec, arms[index % len(arms)], index // len(arms), draw) for index in range(trials)]
    if not finished:
        return facts_of(study_of(spec, searched), **changes)
    repeats = _repeats(spec, searched, draw)
    study = study_of(spec, searched + repeats, _result(spec, searched, repeats))
    named = conditions(spec)
    before = {at: Served("1", "promise-2", "older", 0.95, "champion") for at in named}
    full: dict[str, Any] = {
        "optimum": {at: 0.6 + 0.04 * place for place, at in enumerate(named)},
        "mask_sd": {one.trial: dict.fromkeys(named, 0.008) for one in study.result.models} if study.result else {},
        "serving": Serving("mosi", before, {}),
    }
    return facts_of(study, **(full | changes))


@pytest.fixture(scope="session")
def lively_facts() -> MakeFacts:
    """`lively_facts(trials=100, finished=True, space={...}, **fields of Facts)`."""
    return make_facts
