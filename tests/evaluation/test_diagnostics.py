"""Diagnostics of a whole split: which tables there are, and what stands in them.

Faked: the models, functions from batch to named tensors whose tables can be told beforehand. The data are the synthetic
`small` dataset.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from gapwise.data.batch import ModalityBatch
from gapwise.data.store import Dataset, open_dataset
from gapwise.evaluation.diagnostics import Diagnostics, curves, diagnose, distances
from gapwise.spec.protocol import ProtocolSpec

NAMES = ["audio", "text", "vision"]
FRAMES = ProtocolSpec(rates=(0.0, 0.5, 0.9))
SEEDS = [1, 2]


@pytest.fixture(scope="module")
def dataset(small: Path) -> Dataset:
    return open_dataset(small)


def counting(batch: ModalityBatch) -> dict[str, torch.Tensor]:
    """Trusts the modality with the most attended frames."""
    score = torch.stack([batch.attend[name].float().mean(1) for name in NAMES], dim=1)
    dominant = torch.where(score.amax(1) > 0, score.argmax(1), -1)
    return {"score": score, "dominant": dominant, "reliability": score.softmax(1)}


def summing(batch: ModalityBatch) -> dict[str, torch.Tensor]:
    return {"fused": torch.cat([batch.values[name].sum(1) for name in NAMES], dim=1) + 1}


def of(dataset: Dataset, read, protocol: ProtocolSpec = FRAMES, seeds=SEEDS) -> Diagnostics:
    return diagnose(read, dataset.valid, protocol, seeds, dataset.train)


def test_a_model_that_names_nothing_has_no_diagnostics(dataset):
    found = of(dataset, lambda batch: {})

    assert found == Diagnostics(mask_seeds=2, dominance=None, distance=None, reliability=None)
    assert curves(found) == {}


@pytest.mark.parametrize(
    "protocol", [FRAMES, ProtocolSpec(name="modalities"), ProtocolSpec(name="block", rates=(0.5, 1.0))]
)
def test_shares_of_leaders_and_of_none_sum_to_one(dataset, protocol):
    found = of(dataset, counting, protocol).dominance

    for row in found.values():
        assert list(row["shares"]) == NAMES
        assert sum(share["mean"] for share in row["shares"].values()) + row["none"]["mean"] == pytest.approx(1.0)


def test_who_leads_is_counted_over_all_samples_by_condition(dataset):
    subsets = of(dataset, counting, ProtocolSpec(name="modalities")).dominance
    rates = of(dataset, counting, ProtocolSpec(rates=(0.5, 1.0))).dominance

    assert subsets["vision"]["shares"]["vision"] == {"mean": 1.0, "sd": 0.0}
    assert subsets["audio+text"]["shares"]["vision"]["mean"] == 0.0
    assert rates["1.0"]["none"] == {"mean": 1.0, "sd": 0.0}
    assert rates["0.5"]["shares"]["text"]["sd"] > 0


def test_reliability_is_that_of_the_score_and_the_choice(dataset):
    """The score is the observed share of the padded length, which ranks as the count does."""
    body = of(dataset, counting).reliability

    for row in body["correlations"].values():
        for cell in row.values():
            assert cell["score"]["mean"] == pytest.approx(cell["count"]["mean"])
    assert {row["best_on_average"] for row in body["dominant"].values()} == {"text"}
    assert body["dominant"]["0.0"]["always_best"]["mean"] > body["dominant"]["0.0"]["chosen"]["mean"]


def test_the_distance_is_0_with_nothing_missing_and_grows_with_the_rate(dataset):
    found = of(dataset, summing)

    assert found.distance["0.0"] == {name: {"mean": 0.0, "sd": 0.0} for name in ("cosine", "relative_l2")}
    for name in ("cosine", "relative_l2"):
        assert 0.01 < found.distance["0.5"][name]["mean"] < found.distance["0.9"][name]["mean"]
    assert found.dominance is None and found.reliability is None


def test_the_distance_is_to_the_complete_view_also_where_no_condition_is_complete(dataset):
    whole, alone = of(dataset, summing), of(dataset, summing, ProtocolSpec(rates=(0.5,)))

    for name, figure in whole.distance["0.5"].items():
        assert alone.distance["0.5"][name] == pytest.approx(figure)


def test_the_distance_of_a_model_that_ignores_its_input_is_0(dataset):
    found = of(dataset, lambda batch: {"fused": torch.tensor([[0.3, -2.0]]).expand(batch.size, 2)})

    assert {figure["mean"] for row in found.distance.values() for figure in row.values()} == {0.0}


def test_distances_by_hand():
    view = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [1.0, 1e-5]])
    complete = torch.tensor([[2.0, 0.0], [2.0, 0.0], [1.0, 0.0], [1.0, 0.0]])

    found = distances(view, complete)

    assert found["cosine"].tolist() == pytest.approx([0.0, 1.0, 2.0, 5e-11], rel=1e-4)
    assert found["relative_l2"].tolist() == pytest.approx([0.5, np.sqrt(2), 4.0, 1e-5])


def test_curves_are_the_means_by_name_and_leave_out_what_is_undefined(dataset):
    constant = {"score": torch.full((1, 3), 0.5), "dominant": torch.ones(1, dtype=torch.int64)}

    found = of(dataset, lambda batch: {name: one.expand(batch.size, *one.shape[1:]) for name, one in constant.items()})
    flat = curves(found)

    assert flat["dominant_share/text"] == {"0.0": 1.0, "0.5": 1.0, "0.9": 1.0}
    assert flat["dominant_none"] == {"0.0": 0.0, "0.5": 0.0, "0.9": 0.0}
    assert "rank_correlation/text/score" not in flat
    assert set(flat["rank_correlation/text/count"]) == {"0.0", "0.5", "0.9"}
    assert flat["dominant_accuracy/chosen"]["0.0"] == flat["dominant_accuracy/always_best"]["0.0"]
    assert set(curves(of(dataset, summing))) == {"distance/cosine", "distance/relative_l2"}
