"""AMRE's arithmetic and ProgInteract's promises. Faked: judgements, as plain tensors in place of a trained head."""

import pytest
import torch

from gapwise.data.shape import DataShape, Statistics
from gapwise.models.blocks import reliability
from gapwise.models.blocks.attention import keep_all
from gapwise.models.blocks.heads import cross_entropy
from gapwise.models.blocks.interaction import Interaction, ProgInteract
from gapwise.models.blocks.reliability import Judgement, LabelClasses, UnimodalHeads
from gapwise.models.interface import Alone

AVAILABLE = torch.tensor([[True, True, False], [False, True, True], [False, False, False]])


def shape_of(low: float, high: float) -> DataShape:
    return DataShape(task="regression", modalities={}, label_range=(low, high))


@pytest.mark.parametrize(
    ("span", "labels", "expected"),
    [
        ((-1.0, 1.0), [-1.0, -0.11, -0.09, 0.0, 0.09, 0.11], [0, 0, 1, 1, 1, 2]),
        ((0.0, 4.0), [0.0, 1.7, 2.0, 2.3], [0, 0, 1, 2]),
    ],
)
def test_scores_have_three_classes_around_zero_or_the_middle(
    span: tuple[float, float], labels: list[float], expected: list[int]
) -> None:
    assert LabelClasses(shape_of(*span))(torch.tensor(labels)).tolist() == expected


def test_trace_of_the_softmax_fisher_is_the_closed_form() -> None:
    features, logits = torch.randn(4), torch.randn(3)
    weight = torch.randn(3, 4, requires_grad=True)
    truth = 0.0
    offset = logits - weight.detach() @ features
    for label in range(3):
        (gradient,) = torch.autograd.grad(cross_entropy(weight @ features + offset, torch.tensor(label)), weight)
        truth = truth + logits.softmax(0)[label] * gradient.square().sum()
    zeros = torch.zeros(1, 1)
    judgement = Judgement(zeros, zeros, logits.expand(1, 1, 3), zeros, features.expand(1, 1, 4))
    torch.testing.assert_close(-reliability.log_fisher("trace", judgement, {})[0, 0], truth.log(), rtol=1e-4, atol=1e-4)


def test_running_statistics_pool_available_cells_and_start_as_an_average() -> None:
    momentum = torch.tensor(0.05)
    state = reliability.initial_statistics(momentum)
    batches = [torch.randn(3, 3) for _ in range(4)]
    for cue in batches:
        cues = {"confidence": cue, "fisher": torch.where(AVAILABLE, 2 * cue, torch.nan)}
        state = reliability.updated(cues, AVAILABLE, momentum, state, Alone())
    seen = torch.stack([cue[AVAILABLE] for cue in batches])
    torch.testing.assert_close(state["confidence_mean"], seen.mean())
    torch.testing.assert_close(state["fisher_variance"], 4 * seen.var(1, unbiased=False).mean())
    assert float(state["batches"]) == 4.0


def test_a_batch_without_any_modality_leaves_the_statistics_alone() -> None:
    state = reliability.initial_statistics(torch.tensor(0.05))
    cues = {"confidence": torch.randn(3, 3), "fisher": torch.randn(3, 3)}
    after = reliability.updated(cues, torch.zeros(3, 3, dtype=torch.bool), torch.tensor(0.05), state, Alone())
    assert all(torch.equal(after[name], state[name]) for name in state)


def test_the_choice_is_among_what_is_available_and_straight_through() -> None:
    score = torch.tensor([[0.1, 0.2, 0.9], [0.9, 0.5, 0.4], [0.3, 0.2, 0.1]], requires_grad=True)
    choice = reliability.choose(score, AVAILABLE, torch.tensor(0.5))
    assert choice.hard[:2].tolist() == [[0, 1, 0], [0, 1, 0]]
    torch.testing.assert_close(choice.hard[2], torch.full((3,), 1 / 3))
    torch.testing.assert_close(choice.weight.sum(1), torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(choice.dominant, choice.hard)
    (choice.dominant * torch.arange(3.0)).sum().backward()
    assert score.grad[0, :2].any() and not score.grad[0, 2].any() and not score.grad[2].any()


def test_a_missing_modality_gives_nothing_to_the_dominant() -> None:
    interact = ProgInteract(8, 2, 2)
    score = torch.rand(3, 3)
    choice = reliability.choose(score, AVAILABLE, torch.tensor(0.5))
    tokens = torch.randn(3, 3, 2, 8)
    other = torch.where(AVAILABLE[:, :, None, None], tokens, torch.randn(3, 3, 2, 8))
    results = [interact(one, choice, keep_all).dominant[:2] for one in (tokens, other)]
    torch.testing.assert_close(results[0], results[1])


def test_the_distance_grows_with_the_step_and_sends_no_gradient_to_the_dominant() -> None:
    along, across = torch.tensor([1.0, 0.0]).expand(2, 3, 2), torch.tensor([0.0, 1.0]).expand(2, 3, 2)
    leader = torch.tensor([1.0, 0.0]).expand(2, 1, 2).clone().requires_grad_()
    tokens = torch.zeros(2, 3, 1, 2, requires_grad=True)
    walked = Interaction(tokens[:, 0], tokens, [across, along + tokens.mean(2)], [leader, leader])
    torch.testing.assert_close(walked.distance(), torch.full((2, 3), 0.5))
    walked.distance().sum().backward()
    assert leader.grad is None and tokens.grad is not None


def test_zero_steps_own_no_weights_and_change_nothing() -> None:
    interact = ProgInteract(8, 2, 0)
    choice = reliability.choose(torch.rand(3, 3), AVAILABLE, torch.tensor(0.5))
    tokens = torch.randn(3, 3, 2, 8)
    result = interact(tokens, choice, keep_all)
    assert not list(interact.parameters()) and not result.distance().any()
    torch.testing.assert_close(result.tokens[:2], tokens[:2])


def fitted_deviation(*, contaminated: bool) -> tuple[float, float]:
    """Deviation and share of misled samples, fitted to N(mean, .3^2) of which a tenth is turned."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(4000, generator=generator)
    turned = torch.rand(4000, generator=generator) < 0.1
    labels = torch.where(turned, -mean, mean) + 0.3 * torch.randn(4000, generator=generator)
    shape = shape_of(-4.0, 4.0)
    heads = UnimodalHeads(1, 1, shape, Statistics({}, 0.0, 1.0), contaminated=contaminated)
    log_variance = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([log_variance, *heads.parameters()], lr=0.05)
    zeros = torch.zeros(4000, 1)
    for _ in range(200):
        judgement = Judgement(mean.unsqueeze(1), log_variance.expand(4000, 1), torch.zeros(4000, 1, 3), zeros, zeros)
        optimiser.zero_grad()
        heads.losses(judgement, labels, torch.tensor(0.5)).nll.mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    share = 0.0 if heads.misled is None else float(heads.misled.sigmoid().detach())
    return float((0.5 * log_variance).exp().detach()), share


def test_rare_gross_errors_pass_for_imprecision_only_without_contamination() -> None:
    assert fitted_deviation(contaminated=False)[0] > 0.6
    deviation, share = fitted_deviation(contaminated=True)
    assert 0.27 < deviation < 0.36
    assert 0.03 < share < 0.15
