"""The enumerated posterior against two things that share no line with it: plain loops, and Monte Carlo.

Faked: the frames, a handful of random vectors. That data of the generator are described as well is tested with the
optimum, on what `generate` draws.
"""

from itertools import product

import numpy as np
import pytest

from gapwise.evaluation.posterior import Channel, Evidence, Form, Irony, Sums, log_sum, posterior

LABELS = np.array([-2.0, -0.5, 0.0, 1.0, 3.0])
PRIOR = np.array([0.1, 0.3, 0.2, 0.25, 0.15])
AXES = np.eye(4)


def channel(amplitude: float, levels: tuple[float, ...], prior: tuple[float, ...]) -> Channel:
    return Channel(direction=AXES[0], amplitude=amplitude, levels=np.array(levels), prior=np.array(prior))


FORM = Form(
    labels=LABELS,
    prior=PRIOR,
    channels={
        "text": channel(0.6, (0.5, 1.0, 2.0), (0.3, 0.4, 0.3)),
        "audio": channel(0.3, (0.4, 1.5), (0.7, 0.3)),
        "vision": channel(0.4, (1.0,), (1.0,)),
    },
    irony=Irony(probability=0.2, inverted="text", cue="audio", direction=AXES[1], strength=1.2, noise=0.9),
)


def some_frames(**counts: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    return {name: random.standard_normal((counts.get(name, 0), 4)) + 0.5 for name in FORM.channels}


def evidence_of(frames: dict[str, np.ndarray]) -> Evidence:
    along = {name: one @ AXES[0] for name, one in frames.items()}
    sums = {
        name: Sums(np.array(float(len(one))), np.array(one.sum()), np.array((one**2).sum()))
        for name, one in along.items()
    }
    return Evidence(sums, np.array((frames["audio"] @ AXES[1]).sum()))


def density(value: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return np.exp(-((value - mean) ** 2) / (2 * deviation**2)) / deviation


def by_loops(frames: dict[str, np.ndarray]) -> np.ndarray:
    """One hypothesis and one frame at a time."""
    found = np.zeros(len(LABELS))
    levels = [list(zip(one.levels, one.prior, strict=True)) for one in FORM.channels.values()]
    for (index, label), ironic, chosen in product(enumerate(LABELS), (False, True), product(*levels)):
        weight = PRIOR[index] * (FORM.irony.probability if ironic else 1 - FORM.irony.probability)
        for (name, one), (level, prior) in zip(FORM.channels.items(), chosen, strict=True):
            weight *= prior
            mean = one.amplitude * (-label if ironic and name == "text" else label)
            for frame in frames[name]:
                weight *= density(frame[0], mean, level)
                if name == "audio":
                    weight *= density(frame[1], FORM.irony.strength * ironic, FORM.irony.noise)
        found[index] += weight
    return found / found.sum()


CASES = pytest.mark.parametrize(
    "counts",
    [{"text": 3, "audio": 2, "vision": 4}, {"text": 2}, {"audio": 5}, {"text": 1, "audio": 1}, {"vision": 3}],
    ids=lambda counts: "+".join(counts),
)


@CASES
def test_the_posterior_is_the_sum_over_every_hypothesis(counts):
    frames = some_frames(**counts)

    np.testing.assert_allclose(posterior(FORM, evidence_of(frames)), by_loops(frames), rtol=1e-10)


@CASES
def test_the_posterior_agrees_with_monte_carlo(counts):
    """Hypotheses drawn from the prior, weighted by the density of the frames; within five deviations."""
    frames, draws, random = some_frames(**counts), 300_000, np.random.default_rng(0)
    index = random.choice(len(LABELS), draws, p=PRIOR)
    ironic = random.random(draws) < FORM.irony.probability
    weight = np.ones(draws)
    for name, one in FORM.channels.items():
        level = random.choice(one.levels, draws, p=one.prior)
        mean = one.amplitude * np.where(ironic & (name == "text"), -1, 1) * LABELS[index]
        for frame in frames[name]:
            weight *= density(frame[0], mean, level)
            if name == "audio":
                weight *= density(frame[1], FORM.irony.strength * ironic, np.array(FORM.irony.noise))

    weight /= weight.sum()
    for label, found in enumerate(posterior(FORM, evidence_of(frames))):
        hit = index == label
        estimate = weight[hit].sum()
        deviation = np.sqrt((weight**2 * (hit - estimate) ** 2).sum())
        assert abs(found - estimate) < 5 * deviation


def test_with_nothing_observed_the_posterior_is_the_prior():
    np.testing.assert_allclose(posterior(FORM, evidence_of(some_frames())), PRIOR, rtol=1e-12)


def test_the_cue_decides_how_text_is_read():
    """Text that speaks for a high label means a low one once audio shows irony beyond doubt."""
    frames = {"text": np.tile(2.0 * AXES[0], (9, 1)), "vision": np.zeros((0, 4))}
    plain, shown = (np.tile(cue * AXES[1], (9, 1)) for cue in (0.0, 1.2))

    sincere = posterior(FORM, evidence_of({**frames, "audio": plain}))
    ironic = posterior(FORM, evidence_of({**frames, "audio": shown}))

    assert sincere @ LABELS > 1 and ironic @ LABELS < 0


def test_leading_axes_are_samples():
    one, other = evidence_of(some_frames(text=3, audio=2)), evidence_of(some_frames(vision=4))
    sums = {
        name: Sums(*(np.stack([a, b]) for a, b in zip(one.sums[name], other.sums[name], strict=True)))
        for name in one.sums
    }

    found = posterior(FORM, Evidence(sums, np.stack([one.cue, other.cue])))

    np.testing.assert_allclose(found, np.stack([posterior(FORM, one), posterior(FORM, other)]), rtol=1e-12)


def test_a_sum_of_exponentials_neither_overflows_nor_vanishes():
    assert log_sum(np.array([1000.0, 1000.0])) == pytest.approx(1000 + np.log(2))
    assert log_sum(np.array([-1000.0, -1000.0])) == pytest.approx(-1000 + np.log(2))
