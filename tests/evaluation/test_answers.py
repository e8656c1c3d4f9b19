"""Each metric's answer is the best one, compared with every other answer that could be given.

Faked: the posteriors, random ones. The expectation of a metric under a posterior is written out here from the metric's
definition for one sample.
"""

import numpy as np
import pytest

from gapwise.evaluation.answers import likeliest_class, mean, median, side_has0, side_non0

LABELS = np.arange(-6, 7) / 2


@pytest.fixture
def posteriors() -> np.ndarray:
    return np.random.default_rng(3).dirichlet(np.full(len(LABELS), 0.4), 200)


def test_no_answer_has_a_smaller_expected_absolute_error_than_the_median(posteriors):
    def expected(answer):
        return (posteriors * np.abs(answer[:, None] - LABELS)).sum(1)

    best = expected(median(posteriors, LABELS))

    for other in np.linspace(-3, 3, 121):
        assert (best <= expected(np.full(len(posteriors), other)) + 1e-12).all()


def test_no_answer_has_a_smaller_expected_squared_error_than_the_mean(posteriors):
    best = (posteriors * (mean(posteriors, LABELS)[:, None] - LABELS) ** 2).sum(1)

    for other in np.linspace(-3, 3, 121):
        assert (best <= (posteriors * (other - LABELS) ** 2).sum(1) + 1e-12).all()


def test_the_side_is_the_likelier_one_and_zero_counts_only_where_the_convention_keeps_it():
    mostly_zero = np.array([[0.3, 0.5, 0.2]])
    labels = np.array([-1.0, 0.0, 1.0])

    assert side_non0(mostly_zero, labels) == [-1.0]
    assert side_has0(mostly_zero, labels) == [1.0]


@pytest.mark.parametrize("limit", [3.0, 2.0])
def test_the_class_is_the_likeliest_of_those_that_labels_round_to(posteriors, limit):
    found = likeliest_class(posteriors, LABELS, limit)

    rounded = np.round(LABELS.clip(-limit, limit))
    for row, answer in zip(posteriors, found, strict=True):
        shares = {one: row[rounded == one].sum() for one in set(rounded)}
        assert shares[answer] == max(shares.values())
