"""Resampling groups and mask seeds: arithmetic on random answers, held against the metrics on the resampled items."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from gapwise.data.shape import DataShape
from gapwise.evaluation.metrics import score
from gapwise.evaluation.paired import Resamples, draw_resamples, drawn, resampled
from gapwise.spec.train import Metric

CONDITIONS, MASKS, ITEMS = 2, 3, 60
SCORES = DataShape(task="regression", modalities={}, label_range=(-3.0, 3.0), classes=0)
SIMS = SCORES.model_copy(update={"label_range": (-1.0, 1.0)})
CLASSES = DataShape(task="classification", modalities={}, label_range=(0.0, 3.0), classes=4)
OBJECTIVES = [metric for metric in get_args(Metric) if metric != "auto"]
GROUPS = [f"video {n // 7}" for n in range(ITEMS)]

Answers = tuple[NDArray[np.float32], NDArray[Any], DataShape]


def answers(metric: str, shape: DataShape | None = None) -> Answers:
    """Outputs, labels and shape of a task that has the metric; some labels are 0, some scores exactly 0."""
    rng = np.random.default_rng(3)
    if metric in ("accuracy", "macro_recall", "f1_weighted", "f1_macro"):
        labels = rng.choice(4, ITEMS, p=[0.6, 0.3, 0.08, 0.02])
        return (
            (np.eye(4)[labels] + rng.normal(size=(CONDITIONS, MASKS, ITEMS, 4))).astype(np.float32),
            labels,
            CLASSES,
        )
    truth = (rng.integers(-6, 7, ITEMS) / 2).astype(np.float32)
    outputs = (truth + rng.normal(size=(CONDITIONS, MASKS, ITEMS))).astype(np.float32)
    return np.where(rng.random(outputs.shape) < 0.1, np.float32(0), outputs), truth, shape or SCORES


def on_items(metric: str, given: Answers, draws: Resamples, b: int) -> list[float]:
    """By condition: the metric on the items of resample b, the slow way."""
    outputs, labels, shape = given
    rows = np.repeat(np.arange(ITEMS), draws.group_counts[b].astype(int)[draws.group_of])
    by_mask = [score(values[:, rows].astype(np.float64), labels[rows], shape)[metric] for values in outputs]
    return [float(np.average(values, weights=draws.mask_counts[b])) for values in by_mask]


CASES = [(metric, None) for metric in OBJECTIVES] + [("acc2_has0", SIMS)]


@pytest.mark.parametrize(("metric", "shape"), CASES)
@pytest.mark.parametrize("groups", [GROUPS, [str(n) for n in range(ITEMS)]], ids=["videos", "no groups"])
def test_every_objective_is_recomputed_on_the_resampled_items(
    metric: str, shape: DataShape | None, groups: list[str]
) -> None:
    given = answers(metric, shape)
    draws = draw_resamples(groups, MASKS, seed=0, count=12)

    figures = resampled(metric, *given, draws)

    assert figures.shape == (CONDITIONS, 12)
    for b in range(12):
        np.testing.assert_allclose(figures[:, b], on_items(metric, given, draws, b), rtol=1e-12, atol=1e-12)


def test_items_of_a_group_are_drawn_together_and_mask_seeds_apart_from_them() -> None:
    draws = draw_resamples(GROUPS, MASKS, seed=0, count=50)

    assert [int(draws.group_of[n]) for n in range(ITEMS)] == [n // 7 for n in range(ITEMS)]
    assert (draws.group_counts.sum(1) == 8).all(), "one less than there are groups"
    assert (draws.mask_counts.sum(1) == MASKS - 1).all()
    assert abs(np.corrcoef(draws.group_counts[:, 0], draws.mask_counts[:, 0])[0, 1]) < 0.5


def test_the_same_inputs_give_the_same_numbers_whatever_the_order_of_items() -> None:
    outputs, labels, shape = answers("mae")
    order = np.random.default_rng(0).permutation(ITEMS)
    here = resampled("mae", outputs, labels, shape, draw_resamples(GROUPS, MASKS, seed=5, count=40))
    there = draw_resamples([GROUPS[n] for n in order], MASKS, seed=5, count=40)
    other = draw_resamples(GROUPS, MASKS, seed=6, count=40)

    np.testing.assert_allclose(resampled("mae", outputs[:, :, order], labels[order], shape, there), here, rtol=1e-12)
    assert not np.allclose(resampled("mae", outputs, labels, shape, other), here)


@pytest.mark.parametrize("size", [2, 3, 10])
def test_the_spread_over_resamples_is_the_standard_error_for_few_of_anything(size: int) -> None:
    values = np.random.default_rng(1).normal(size=size)
    counts = drawn(size, 100_000, seed=0, purpose="test")

    means = counts @ values / counts.sum(1)

    assert means.std() == pytest.approx(values.std(ddof=1) / np.sqrt(size), rel=0.02)


def test_one_of_something_is_always_itself() -> None:
    assert (drawn(1, 5, seed=0, purpose="test") == 1).all()


def test_groups_that_agree_widen_the_spread_that_items_alone_would_show() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{n // 20}" for n in range(800)]
    shared = np.repeat(rng.normal(size=40), 20) + rng.normal(size=800)
    outputs, labels = shared.astype(np.float32)[None, None], np.full(800, -20, np.float32)

    by_group, by_item = (
        resampled("mae", outputs, labels, SCORES, draw_resamples(names, 1, seed=0)).std()
        for names in (groups, [str(n) for n in range(800)])
    )

    true_error = np.sqrt(1 / 40 + 1 / 800)
    assert by_group == pytest.approx(true_error, rel=0.25)
    assert by_item < 0.4 * true_error


def test_mask_seeds_are_part_of_the_spread() -> None:
    """All items alike, so that nothing but the mask seed moves the figure."""
    outputs = np.arange(5, dtype=np.float32)[None, :, None].repeat(ITEMS, axis=2)
    draws = draw_resamples(GROUPS, 5, seed=0)

    figures = resampled("mae", outputs, np.zeros(ITEMS, np.float32), SCORES, draws)

    assert figures.std() == pytest.approx(np.arange(5).std(ddof=1) / np.sqrt(5), rel=0.05)


def spoilt(metric: str, change: Callable[[NDArray[np.float32]], None]) -> NDArray[np.float64]:
    outputs, labels, shape = answers(metric)
    change(outputs)
    return resampled(metric, outputs, labels, shape, draw_resamples(GROUPS, MASKS, seed=0, count=20))


@pytest.mark.parametrize("metric", ["mae", "corr", "macro_recall"])
def test_an_output_that_is_not_finite_leaves_its_condition_without_figures(metric: str) -> None:
    def change(outputs: NDArray[np.float32]) -> None:
        outputs[0, 1, 5] = np.nan

    figures = spoilt(metric, change)

    assert np.isnan(figures[0]).all()
    assert np.isfinite(figures[1]).all()


@pytest.mark.parametrize("level", [0.0, 0.1, 1e4])
def test_a_constant_answer_has_no_correlation_on_any_resample(level: float) -> None:
    def change(outputs: NDArray[np.float32]) -> None:
        outputs[0] = level

    figures = spoilt("corr", change)

    assert (figures[0] == 0).all()
    assert (figures[1] > 0.3).all()


def test_neither_has_one_that_is_constant_on_the_drawn_groups_only() -> None:
    rng = np.random.default_rng(0)
    draws = draw_resamples(["constant"] * 30 + ["varied"] * 30, 1, seed=0, count=20)
    labels = rng.normal(size=60).astype(np.float32)
    outputs = np.stack([np.where(np.arange(60) < 30, level, labels) for level in rng.normal(size=50)])

    figures = resampled("corr", outputs[:, None].astype(np.float32), labels, SCORES, draws)

    constant_only = draws.group_counts[:, 0] == 1
    assert (figures[:, constant_only] == 0).all()
    assert (figures[:, ~constant_only] > 0.99).all()


def test_a_resample_on_which_nothing_counts_has_no_figure() -> None:
    labels = np.array([0, 0, 1, -1], np.float32)
    draws = draw_resamples(["zeros", "zeros", "others", "others"], 1, seed=0, count=50)

    figures = resampled("acc2_non0", np.ones((1, 1, 4), np.float32), labels, SCORES, draws)[0]

    zeros_only = draws.group_counts[:, draws.group_of[0]] == 1
    assert 0 < zeros_only.sum() < 50
    assert np.isnan(figures[zeros_only]).all()
    assert (figures[~zeros_only] == 0.5).all()
