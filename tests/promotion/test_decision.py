"""Who becomes champion: pure decisions on results written by hand. No model, no registry."""

from typing import Any

import pytest

from gapwise.errors import GateError
from gapwise.promotion.decision import ASKED, Decision, Present, decide, identity_of
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.train import ObjectiveSpec
from gapwise.tuning.result import Best, RefitModel, Spread, StudyResult

FINGERPRINTS = {"dataset": "d", "train": "t", "valid": "v", "test": "e"}


def model(trial: str, value: float, metric: str = "mae") -> RefitModel:
    return RefitModel(
        trial=trial,
        arm=trial.rsplit("-", 1)[0],
        values={},
        spec_fingerprint=f"spec of {trial}",
        epochs=1,
        seeds=[1, 2],
        shipped_seed=1,
        folder="f",
        over_seeds={metric: {"0.3": Spread(mean=value, sd=0.05)}},
        shipped={},
    )


def result(
    winner: float | None, baseline: float | None, floor: float = 1.4, metric: Any = "mae", **changes: Any
) -> StudyResult:
    """One rate, 0.3; what is left out did not finish."""
    models = [model("prlf-2", winner, metric)] if winner is not None else []
    models += [model("late_fusion-0", baseline, metric)] if baseline is not None else []

    def best(trial: str, value: float | None) -> dict[str, Best]:
        return {} if value is None else {"0.3": Best(trial=trial, metric=metric, mean=value, sd=0.0, seeds=2)}

    fields: dict[str, Any] = {
        "study": "one",
        "question": "which?",
        "task": "regression",
        "dataset": "small",
        "data": "/somewhere",
        "fingerprints": FINGERPRINTS,
        "spec_fingerprint": "s",
        "protocol": ProtocolSpec(rates=(0.3,)),
        "objective": ObjectiveSpec(metric=metric),
        "mask_seeds": 2,
        "trials": {},
        "arms": {},
        "wall_seconds": 1.0,
        "search_seconds": 1.0,
        "train_seconds": 1.0,
        "best": best("prlf-2", winner),
        "baseline": best("late_fusion-0", baseline),
        "floor": {metric: floor},
        "models": models,
        "parent_run_id": "run",
    }
    return StudyResult(**(fields | changes))


def champion(value: float, judged: StudyResult, /, **changes: Any) -> Present:
    facts = {
        "valid_fingerprint": judged.fingerprints["valid"],
        "protocol": judged.protocol.model_dump(mode="json"),
        "metric": "mae",
        "over_seeds": {"mae": {"0.3": {"mean": value, "sd": 0.0}}},
    }
    return Present("7", facts | changes)


def only(decisions: list[Decision]) -> Decision:
    (decision,) = decisions
    return decision


def test_a_winner_that_beats_baseline_and_floor_is_promoted_with_its_margin() -> None:
    decision = only(decide(result(1.0, 1.2), {}))
    assert (decision.rate, decision.decision, decision.trial) == ("0.3", "promote", "prlf-2")
    assert (decision.value, decision.sd, decision.against) == (1.0, 0.05, 1.2)
    assert decision.effect == pytest.approx(-0.2)
    assert decision.reasons == [
        "beats late_fusion (mae 1.0000 against late_fusion's 1.2000)",
        "beats the floor (mae 1.4000)",
        ASKED,
    ]


@pytest.mark.parametrize("winner", [1.2, 1.3], ids=["ties", "loses"])
def test_where_the_baseline_is_not_beaten_it_is_the_candidate_and_that_is_said(winner: float) -> None:
    decision = only(decide(result(winner, 1.2), {}))
    assert (decision.decision, decision.trial, decision.effect) == ("promote", "late_fusion-0", None)
    assert "prlf-2 does not beat late_fusion" in decision.reasons[0]
    assert "the baseline itself is the candidate" in decision.reasons[0]


def test_where_no_searched_model_finished_the_baseline_is_the_candidate() -> None:
    decision = only(decide(result(None, 1.2), {}))
    assert (decision.decision, decision.trial) == ("promote", "late_fusion-0")
    assert decision.reasons[0].startswith("no searched model finished")


def test_without_a_baseline_nothing_is_decided() -> None:
    with pytest.raises(GateError, match="late_fusion has no finished run"):
        decide(result(1.0, None), {})


@pytest.mark.parametrize("winner", [1.4, 1.5], ids=["ties", "loses"])
def test_the_floor_holds_whoever_does_not_beat_it(winner: float) -> None:
    decision = only(decide(result(winner, 1.6), {}))
    assert decision.decision == "hold"
    assert "does not beat the floor (mae 1.4000)" in decision.reasons


@pytest.mark.parametrize(("held", "expected"), [(0.9, "hold"), (1.0, "hold"), (1.1, "promote")])
def test_a_champion_judged_on_the_same_data_is_replaced_only_by_a_better_model(held: float, expected: str) -> None:
    study = result(1.0, 1.2)
    decision = only(decide(study, {"0.3": champion(held, study)}))
    assert decision.decision == expected
    assert f"{'beats' if expected == 'promote' else 'does not beat'} version 7" in decision.reasons[-2]


@pytest.mark.parametrize(
    "changed",
    [
        {"valid_fingerprint": "another"},
        {"protocol": {"name": "frames"}},
        {"metric": "corr", "over_seeds": {"corr": {"0.3": {"mean": 0.9, "sd": 0.0}}}},
    ],
    ids=["data", "protocol", "metric"],
)
def test_a_champion_judged_on_other_ground_is_not_compared_and_that_is_said(changed: dict[str, Any]) -> None:
    study = result(1.0, 1.2)
    decision = only(decide(study, {"0.3": champion(0.5, study, **changed)}))
    assert decision.decision == "promote"
    assert "not compared" in decision.reasons[-2]


def test_a_champion_that_has_none_of_our_tags_is_not_compared() -> None:
    assert only(decide(result(1.0, 1.2), {"0.3": Present("7", {})})).decision == "promote"


def test_the_champion_of_another_rate_has_no_say() -> None:
    study = result(1.0, 1.2)
    assert only(decide(study, {"0.9": champion(0.1, study)})).decision == "promote"


def test_a_model_is_not_held_by_itself() -> None:
    study = result(1.0, 1.2)
    itself = champion(1.0, study, **identity_of(study, study.model("prlf-2")))
    decision = only(decide(study, {"0.3": itself}))
    assert decision.decision == "promote"
    assert decision.reasons[-2] == "is version 7, the champion already"


def test_a_better_champion_still_holds_the_baseline_that_stepped_in() -> None:
    study = result(1.3, 1.2)
    decision = only(decide(study, {"0.3": champion(1.0, study)}))
    assert (decision.decision, decision.trial) == ("hold", "late_fusion-0")


def test_a_score_that_grows_with_quality_is_compared_upwards() -> None:
    assert only(decide(result(0.7, 0.6, floor=0.0, metric="corr"), {})).trial == "prlf-2"
    assert only(decide(result(0.5, 0.6, floor=0.0, metric="corr"), {})).trial == "late_fusion-0"
    assert only(decide(result(0.7, 0.6, floor=0.8, metric="corr"), {})).decision == "hold"


def test_a_protocol_of_subsets_has_no_champions_of_a_rate() -> None:
    with pytest.raises(GateError, match=r"study one: protocol 'modalities' has subsets, not missing rates"):
        decide(result(1.0, 1.2, protocol=ProtocolSpec(name="modalities")), {})
