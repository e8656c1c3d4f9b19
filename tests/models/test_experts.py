"""The product of experts as a readout: how votes add up, and what is answered. Faked: the representations."""

import pytest
import torch

from gapwise.data.shape import DataShape
from gapwise.models.blocks.attention import keep_all
from gapwise.models.blocks.experts import GRID, ExpertsHead
from gapwise.spec.model import LateFusionSpec
from gapwise.testing.model_contract import small, synthetic_shape, synthetic_statistics

SCORES = synthetic_shape(2, "regression")
CLASSES = synthetic_shape(2, "classification")


def head_for(shape: DataShape, values: tuple[float, ...] = (), **fields: object) -> ExpertsHead:
    torch.manual_seed(0)
    spec = small(LateFusionSpec.model_validate({"readout": "experts", **fields}))
    return ExpertsHead(2, 16, spec, shape, synthetic_statistics(shape)._replace(label_values=values)).double()


def test_a_missing_expert_has_no_say_whatever_it_sees() -> None:
    head = head_for(SCORES)
    parts = torch.randn(3, 2, 16, dtype=torch.float64)
    present = torch.tensor([[1.0, 0.0]] * 3)
    noisy = parts.clone()
    noisy[:, 1] = 1e3
    assert torch.equal(head(parts, present, keep_all), head(noisy, present, keep_all))


def test_with_nobody_present_the_prior_answers() -> None:
    head = head_for(SCORES)
    head.prior.data = torch.randn_like(head.prior)
    logits = head(torch.randn(3, 2, 16, dtype=torch.float64), torch.zeros(3, 2), keep_all)
    assert torch.allclose(logits, head.prior.logsumexp(0).expand(3, -1))


def test_one_hypothesis_adds_log_likelihoods() -> None:
    head = head_for(SCORES, hypotheses=1)
    parts = torch.randn(3, 2, 16, dtype=torch.float64)
    alone = [head(parts, torch.tensor([[1.0 - number, number]] * 3), keep_all) for number in range(2)]
    both = head(parts, torch.ones(3, 2), keep_all)
    assert torch.allclose(both, alone[0] + alone[1] - head.prior[0])


def test_two_experts_at_odds_are_reconciled_by_a_second_hypothesis_only() -> None:
    """Labels are +-2; expert 0 says the sign, unless expert 1's input is high, when it says the opposite."""
    torch.manual_seed(0)
    sign = torch.randint(0, 2, (256,)) * 2.0 - 1.0
    turned = torch.randint(0, 2, (256,)) * 1.0
    parts = torch.zeros(256, 2, 16, dtype=torch.float64)
    parts[:, 0, 0] = sign * (1 - 2 * turned) * 3
    parts[:, 1, 0] = (turned - 0.5) * 6
    present, labels, loss = torch.ones(256, 2), 2.0 * sign, {}
    for hypotheses in (1, 2):
        head = head_for(SCORES, hypotheses=hypotheses)
        optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
        for _ in range(150):
            optimiser.zero_grad()
            value = head.loss(head(parts, present, keep_all), labels).mean()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        miss = (head.answer(head(parts, present, keep_all)) - labels).abs().mean()
        loss[hypotheses] = float(miss.detach())
    assert loss[2] < 0.3 < 1.0 < loss[1]


@pytest.mark.parametrize("place", [0, 7, 12, GRID - 1])
def test_the_median_of_a_sure_distribution_is_its_value(place: int) -> None:
    head = head_for(SCORES)
    logits = torch.full((1, GRID), -40.0, dtype=torch.float64)
    logits[0, place] = 0.0
    assert head.answer(logits).item() == pytest.approx(head.grid[place].item(), abs=1e-6)


def test_the_median_lies_between_values_where_the_mass_does() -> None:
    head = head_for(SCORES)
    logits = torch.full((1, GRID), -40.0, dtype=torch.float64)
    logits[0, 3] = logits[0, 4] = 0.0
    middle = (head.grid[3] + head.grid[4]) / 2
    assert head.answer(logits).item() == pytest.approx(middle.item(), abs=1e-6)


def test_where_labels_are_few_the_answer_is_one_of_them() -> None:
    head = head_for(SCORES, values=(-2.0, 0.5, 3.0))
    logits = torch.log(torch.tensor([[0.4, 0.2, 0.4], [0.2, 0.2, 0.6], [0.6, 0.2, 0.2]], dtype=torch.float64))
    assert head.answer(logits).tolist() == [0.5, 3.0, -2.0]
    assert head.loss(logits, torch.tensor([0.6, 2.0, -9.0])).tolist() == pytest.approx([1.609, 0.511, 0.511], abs=1e-3)


def test_a_vote_about_scores_is_gaussian_and_counts_by_the_share_observed() -> None:
    head = head_for(SCORES, hypotheses=1)
    parts = torch.randn(1, 2, 16, dtype=torch.float64)
    whole, quarter = (head(parts, torch.tensor([[share, 0.0]], dtype=torch.float64), keep_all) for share in (1.0, 0.25))
    assert torch.allclose(quarter, 0.5 * whole)
    curvature = whole[0].diff().diff()
    assert curvature.max() < 0
    assert torch.allclose(curvature, curvature[0].expand_as(curvature))


def test_under_mse_the_mean_is_answered() -> None:
    head = head_for(SCORES, task_loss="mse")
    logits = torch.full((1, GRID), -40.0, dtype=torch.float64)
    logits[0, 0], logits[0, GRID - 1] = torch.log(torch.tensor(0.75)), torch.log(torch.tensor(0.25))
    assert head.answer(logits).item() == pytest.approx(-1.5, abs=1e-6)


def test_a_label_beyond_the_grid_gives_a_finite_loss() -> None:
    head = head_for(SCORES)
    loss = head.loss(torch.zeros(1, GRID, dtype=torch.float64), torch.tensor([50.0]))
    assert torch.isfinite(loss).all()


def test_classes_are_voted_on_directly() -> None:
    head = head_for(CLASSES)
    logits = head(torch.randn(3, 2, 16, dtype=torch.float64), torch.ones(3, 2), keep_all)
    assert head.answer(logits) is logits
    assert logits.shape == (3, CLASSES.classes)
