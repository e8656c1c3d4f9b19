"""Statistics pooling and the stem that goes before it. Faked: the frames."""

import numpy as np
import torch

from gapwise.data.shape import ModalityShape, Moments
from gapwise.models.blocks.attention import keep_all
from gapwise.models.blocks.pooling import SPREAD_FLOOR, StatisticsEncoder, pooled
from gapwise.models.blocks.stem import Stem
from gapwise.spec.model import LateFusionSpec
from gapwise.testing.model_contract import small

SHAPE = ModalityShape(dim=3, max_length=5)
MOMENTS = Moments(np.array([1.0, 2.0, 3.0], np.float32), np.array([2.0, 2.0, 4.0], np.float32))
DIRECTIONS = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]], np.float32)


def spec(**fields: object) -> LateFusionSpec:
    made = small(LateFusionSpec.model_validate({"encoder": "statistics", **fields}))
    assert isinstance(made, LateFusionSpec)
    return made


def test_pooled_moments_are_those_of_the_observed_frames() -> None:
    frames = torch.tensor([[[1.0], [3.0], [0.0]]])
    mean, spread, count = pooled(frames, torch.tensor([[True, True, False]]))[0].tolist()
    assert mean == 2.0
    assert np.isclose(spread, np.log(5.0 + SPREAD_FLOOR))
    assert np.isclose(count, 0.5 * np.log(3.0))


def test_nothing_observed_pools_to_zero() -> None:
    assert not pooled(torch.zeros(1, 3, 2), torch.zeros(1, 3, dtype=torch.bool)).any()


def test_the_order_of_frames_does_not_matter() -> None:
    encoder = StatisticsEncoder(spec(), SHAPE, MOMENTS, None)
    value, attend = torch.randn(2, 5, 3), torch.tensor([[True] * 5, [True, False, True, True, False]])
    shuffled = torch.tensor([3, 1, 4, 0, 2])
    straight = encoder(value, attend, keep_all)
    assert torch.allclose(straight, encoder(value[:, shuffled], attend[:, shuffled], keep_all), atol=1e-6)


def test_the_stem_projects_standardised_frames_on_the_first_directions() -> None:
    stem = Stem(spec(components=1), SHAPE, MOMENTS, DIRECTIONS)
    frame = torch.tensor([[[9.0, 6.0, 9.0]]])
    assert stem(frame, torch.ones(1, 1, dtype=torch.bool)).tolist() == [[[2.0]]]


def test_the_stem_lets_nothing_through_from_under_a_mask() -> None:
    value = torch.full((1, 2, 3), float("nan"))
    for components in (0, 2):
        stem = Stem(spec(components=components), SHAPE, MOMENTS, DIRECTIONS)
        assert not stem(value, torch.zeros(1, 2, dtype=torch.bool)).any()


def test_directions_travel_with_the_weights_and_are_never_trained() -> None:
    trained = StatisticsEncoder(spec(components=2), SHAPE, MOMENTS, DIRECTIONS)
    bare = StatisticsEncoder(spec(components=2), SHAPE, MOMENTS, None)
    bare.load_state_dict(trained.state_dict())
    assert torch.equal(bare.stem.directions, torch.tensor(DIRECTIONS))
    assert "stem.directions" not in dict(trained.named_parameters())
