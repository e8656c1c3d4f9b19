"""The optimum on drawn data: calibrated, pinned, on the models' own masks, worse with every missing rate.

Nothing is faked. Presets are drawn with few features, which leaves their optimum as it is.
"""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from gapwise.data.batch import ModalityBatch
from gapwise.data.presets import LARGE, MOSI_LIKE, MOSI_LIKE_50, SMALL, preset_digest
from gapwise.evaluation.answers import ANSWERS, median
from gapwise.evaluation.grid import robustness_grid
from gapwise.evaluation.metrics import floor
from gapwise.evaluation.optimum import exact_form, observe, optimal_grid, project
from gapwise.evaluation.posterior import Evidence, Sums, posterior
from gapwise.spec.protocol import ProtocolSpec

PINNED = {
    "small": (SMALL, "9b54aca8464fa8875982918fc1dd0208b00f7207b2d9f40fcaae7a7a780519e8", 0.3758, 0.5575),
    "mosi-like-50": (MOSI_LIKE_50, "82d421eaf7cf006f177a98555381435b7583602d18e9c34ea710a08f0f22c5cb", 0.4070, 0.5595),
    "mosi-like": (MOSI_LIKE, "d02d2063ae645d547594ec738f71e6f9a9ab42dde206fb9e6468349dfc4f1137", 0.4068, 0.5710),
    "large": (LARGE, "a96989ea10bfc85b306f4f591c77e8050ed206ce4365c6214d2a1637653bbf32", 0.4070, 0.5595),
}
"""SHA-256 of the parameters, and the optimum's MAE at r = 0 and .5 on 2,000 samples of seed 1 with three features.

`large` is `mosi-like-50` in other sizes and directions, so its optimum is the same.
"""


@pytest.fixture(scope="module")
def drawn(draw):
    dataset, task = draw(MOSI_LIKE_50, dim=3, seed=1, train=400, valid=3000, test=1)
    return dataset, exact_form(task)


@pytest.mark.parametrize("name", PINNED)
def test_a_preset_is_frozen(name):
    preset, digest, _, _ = PINNED[name]

    assert preset_digest(preset) == digest, asdict(preset)


@pytest.mark.parametrize("name", PINNED)
def test_a_preset_s_optimum_is_pinned_and_leaves_room_above_and_below(name, draw):
    preset, _, at_0, at_half = PINNED[name]
    dataset, task = draw(preset, dim=3, seed=1, train=1, valid=2000, test=1)

    found = optimal_grid(exact_form(task), dataset.valid, ProtocolSpec(rates=(0.0, 0.5, 0.9)), [1]).curve("mae")

    assert list(found.values())[:2] == pytest.approx([at_0, at_half], abs=2e-3)
    assert 0.3 < found["0.0"] < 0.6
    constant = floor(dataset.valid.labels, dataset.valid.labels, dataset.manifest.shape())["mae"]
    assert 0.75 * constant < found["0.9"] < constant


def test_text_carries_most(drawn):
    dataset, form = drawn

    found = optimal_grid(form, dataset.valid, ProtocolSpec(name="modalities"), [1]).curve("mae")

    assert found["text"] < min(found["audio"], found["vision"])
    assert found["audio+text+vision"] == min(found.values())


def test_the_posterior_of_drawn_data_is_calibrated(drawn):
    """Of samples said to be positive with probability p, a share p is; at three rates, within 4.5 deviations."""
    dataset, form = drawn
    valid = dataset.valid
    projections = project(form, valid)
    for rate in (0.0, 0.6, 0.95):
        random = np.random.default_rng(0)
        masks = {name: random.random(real.shape) >= rate for name, real in projections.real.items()}
        positive = posterior(form, observe(form, projections, masks)) @ (form.labels > 0)
        for group in np.array_split(np.argsort(positive), 10):
            expected, variance = positive[group].mean(), (positive * (1 - positive))[group].sum()
            gap = (valid.labels[group] > 0).mean() - expected
            assert abs(gap) <= 4.5 * np.sqrt(variance) / len(group) + 1e-3


def test_the_optimum_is_scored_on_the_masks_that_models_see(drawn):
    """The median as a model, given batches with frames hidden, scores what the grid says."""
    dataset, form = drawn

    def answer(batch: ModalityBatch) -> torch.Tensor:
        sums, cue = {}, np.zeros(0)
        for name, channel in form.channels.items():
            seen = batch.attend[name].numpy()
            values = np.where(seen[..., None], batch.values[name].double().numpy(), 0.0)
            along = values @ channel.direction
            sums[name] = Sums(seen.sum(1).astype(float), along.sum(1), (along**2).sum(1))
            cue = (values @ form.irony.direction).sum(1) if name == form.irony.cue else cue
        return torch.from_numpy(median(posterior(form, Evidence(sums, cue)), form.labels))

    for protocol in (ProtocolSpec(rates=(0.0, 0.4, 0.9)), ProtocolSpec(name="modalities")):
        found = optimal_grid(form, dataset.valid, protocol, [1, 2])
        model = robustness_grid(answer, dataset.valid, protocol, [1, 2], dataset.manifest.shape())
        assert found.conditions == model.conditions
        np.testing.assert_allclose(found.metrics["mae"], model.metrics["mae"], atol=2e-3)
        for metric in set(ANSWERS) - {"f1_non0", "f1_has0"}:
            ahead = found.metrics[metric] - model.metrics[metric]
            assert (ahead > -0.01).all(), metric


def test_the_optimum_gets_worse_with_the_missing_rate_and_ends_at_the_prior(drawn):
    dataset, form = drawn
    rates = tuple(round(0.1 * step, 1) for step in range(11))

    found = optimal_grid(form, dataset.valid, ProtocolSpec(rates=rates), [1, 2]).metrics

    assert (np.diff(found["mae"].mean(1)) > 0).all()
    assert (np.diff(found["corr"].mean(1)) < 0).all()
    prior_median = median(form.prior, form.labels)
    assert found["mae"][-1] == pytest.approx(np.abs(dataset.valid.labels - prior_median).mean())
    assert found["corr"][-1] == pytest.approx(0)


def test_frames_under_a_mask_do_not_reach_the_posterior(drawn):
    dataset, form = drawn
    projections = project(form, dataset.valid)
    random = np.random.default_rng(0)
    masks = {name: random.random(real.shape) >= 0.5 for name, real in projections.real.items()}
    other = {
        name: np.where(masks[name], along, random.standard_normal(along.shape))
        for name, along in projections.along.items()
    }
    cue = np.where(masks["audio"], projections.cue, random.standard_normal(projections.cue.shape))

    before = posterior(form, observe(form, projections, masks))
    after = posterior(form, observe(form, projections._replace(along=other, cue=cue), masks))

    np.testing.assert_allclose(before, after, rtol=1e-12)
