"""Reliability against the truth: figures worked out by hand, and the cases in which there is no figure.

Faked: what a model claims, and in the small examples what the generator knows. Elsewhere masks and truth are those of
the synthetic `small` dataset.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from gapwise.data.store import open_dataset
from gapwise.data.synth import read_task
from gapwise.data.truth import TRUTH_FILE, read_truth
from gapwise.evaluation.agreement import (
    Claims,
    Known,
    accuracy,
    agreement,
    average_information,
    known_grid,
    over_seeds,
    rank_correlation,
)
from gapwise.spec.protocol import ProtocolSpec

FRAMES = ProtocolSpec(rates=(0.0, 0.5, 0.9))
SEEDS = [1, 2, 3]


@pytest.fixture(scope="module")
def valid(small: Path):
    return open_dataset(small).valid


@pytest.fixture(scope="module")
def known(valid) -> Known:
    found = known_grid(valid, FRAMES, SEEDS)
    assert found is not None
    return found


def claims(known: Known, score: np.ndarray) -> Claims:
    """A model of this score, whose dominant modality is the one with the highest; -1 where nothing is there."""
    dominant = np.where(known.information.max(-1) > 0, score.argmax(-1), -1)
    return Claims(["0.0", "0.5", "0.9"], ["audio", "text", "vision"], score, dominant)


def cells(body: dict) -> list[dict]:
    return [cell for row in body["correlations"].values() for cell in row.values()]


class TestRankCorrelation:
    def test_it_is_spearman_s_with_ties_averaged(self):
        random = np.random.default_rng(0)
        first, second = random.integers(0, 6, (2, 200)).astype(float)

        assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)

    def test_a_logarithm_changes_nothing(self):
        first, second = np.random.default_rng(1).uniform(0.1, 9, (2, 50))

        assert rank_correlation(first, np.log(second)) == pytest.approx(rank_correlation(first, second))

    def test_scores_that_lie_close_together_still_have_an_order(self):
        close = (0.5 + np.linspace(0, 1e-3, 4000)).astype(np.float32).astype(np.float64)

        assert rank_correlation(close, np.arange(4000.0)) == pytest.approx(1.0, abs=1e-3)

    def test_information_that_is_equal_but_for_rounding_is_tied(self):
        equal, first = np.array([4 * 0.25**2, 25 * 0.1**2, 1.0]), np.array([1.0, 2.0, 3.0])
        assert equal[0] != equal[1]

        assert rank_correlation(first, equal) == pytest.approx(spearmanr(first, [1, 1, 2]).statistic)

    @pytest.mark.parametrize(
        "constant",
        [np.full(4, 0.5), np.float32(0.5) + np.array([0, 1, -1, 0], np.float32) * np.float32(6e-8)],
        ids=["constant", "constant but for the last bit"],
    )
    def test_it_is_undefined_where_either_side_is_constant(self, constant):
        varied = np.array([1.0, 2.0, 4.0, 3.0])

        assert rank_correlation(constant, varied) is None
        assert rank_correlation(varied, constant) is None

    @pytest.mark.parametrize("samples", [0, 1])
    def test_it_is_undefined_for_fewer_than_two_samples(self, samples):
        assert rank_correlation(np.ones(samples), np.ones(samples)) is None


def test_undefined_mask_seeds_are_left_out_and_none_defined_is_none():
    assert over_seeds([None, 1.0, 3.0]) == {"mean": 2.0, "sd": pytest.approx(np.sqrt(2))}
    assert over_seeds([None, 0.5]) == {"mean": 0.5, "sd": 0.0}
    assert over_seeds([None, None]) is None


class TestByHand:
    """Five samples of (audio, text, vision); the fourth is a tie and the fifth has nothing."""

    INFORMATION = np.array([[1.0, 3.0, 0.0], [2.0, 0.0, 1.0], [0.0, 0.0, 4.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    KNOWN = Known(frames=INFORMATION[None, None], information=INFORMATION[None, None])
    ON_AVERAGE = np.array([[1.0, 2.0, 0.5]])

    def choice(self, dominant: list[int]) -> dict:
        said = Claims(["0.5"], ["audio", "text", "vision"], self.INFORMATION[None, None], np.array([[dominant]]))
        return agreement(said, self.KNOWN, self.ON_AVERAGE)["dominant"]["0.5"]

    @pytest.mark.parametrize(
        ("dominant", "share"),
        [([1, 0, 2, 0, -1], 1.0), ([1, 0, 2, 1, -1], 1.0), ([0, 0, 2, 2, 2], 0.5), ([-1, -1, -1, -1, -1], 0.0)],
        ids=["right", "the other of a tie", "two wrong", "never anyone"],
    )
    def test_samples_with_nothing_do_not_count_and_either_of_a_tie_is_right(self, dominant, share):
        assert self.choice(dominant)["chosen"] == {"mean": share, "sd": 0.0}

    def test_the_trivial_answers_are_text_always_and_text_audio_vision_in_this_order(self):
        """Text is the most in samples 1 and 4. Of those there: text, audio, vision, text; all four right."""
        row = self.choice([0, 0, 0, 0, 0])

        assert row["best_on_average"] == "text"
        assert row["always_best"] == {"mean": 0.5, "sd": 0.0}
        assert row["best_available"] == {"mean": 1.0, "sd": 0.0}

    def test_a_tie_is_one_also_after_rounding(self):
        information = np.array([[[[4 * 0.25**2, 25 * 0.1**2]]]])

        assert accuracy(np.array([[[0]]]), information) == accuracy(np.array([[[1]]]), information) == [[1.0]]

    def test_where_no_sample_has_anything_there_is_no_share(self):
        nothing = Known(np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 2, 2)))
        said = Claims(["1.0"], ["a", "b"], np.zeros((1, 1, 2, 2)), np.full((1, 1, 2), -1))

        found = agreement(said, nothing, np.zeros((1, 2)))

        assert found["dominant"]["1.0"] == {
            "best_on_average": None,
            "chosen": None,
            "always_best": None,
            "best_available": None,
        }
        assert found["mean_of_correlations"] == {"score": None, "count": None, "cells": 0}


def test_scores_that_are_the_information_agree_perfectly(known):
    body = agreement(claims(known, known.information), known, average_information(known))

    assert [cell["score"]["mean"] for cell in cells(body)] == pytest.approx([1.0] * 9)
    assert [row["chosen"]["mean"] for row in body["dominant"].values()] == [1.0] * 3
    assert body["mean_of_correlations"]["score"] == pytest.approx(1.0)
    assert 0 < body["mean_of_correlations"]["count"] < 0.7
    assert body["mean_of_correlations"]["cells"] == 9


def test_scores_shuffled_within_each_modality_do_not_agree_although_pooled_they_would(known):
    """Modalities and rates still differ, which is what pooling would reward."""
    random = np.random.default_rng(0)
    shuffled = random.permuted(known.information, axis=2)

    body = agreement(claims(known, shuffled), known, average_information(known))

    assert np.mean([cell["score"]["mean"] for cell in cells(body)]) == pytest.approx(0, abs=0.06)
    assert rank_correlation(shuffled.ravel(), known.information.ravel()) > 0.4
    assert all(0.2 < row["chosen"]["mean"] < 0.7 for row in body["dominant"].values())


def test_a_score_that_is_one_number_a_modality_has_no_correlation_and_is_always_the_best(known):
    """As PRLF's `ema` definition without confidence: it can but name the best on average."""
    average = average_information(known)
    constant = np.broadcast_to(average[:, None, None, :], known.information.shape)

    body = agreement(claims(known, constant), known, average)

    assert all(cell["score"] is None and cell["count"] is not None for cell in cells(body))
    assert body["mean_of_correlations"] == {"score": None, "count": None, "cells": 0}
    assert body["dominant"]["0.0"]["chosen"] == body["dominant"]["0.0"]["always_best"]


def test_the_count_of_frames_is_undefined_where_all_are_observed_and_lengths_are_equal():
    information = np.random.default_rng(0).uniform(1, 2, (1, 1, 20, 2))
    known = Known(frames=np.full((1, 1, 20, 2), 50.0), information=information)
    said = Claims(["0.0"], ["a", "b"], information, information.argmax(-1))

    for cell in cells(agreement(said, known, average_information(known))):
        assert cell["count"] is None
        assert cell["score"]["mean"] == pytest.approx(1.0)


def test_only_samples_that_have_the_modality_count(known):
    """A score that is wildly wrong wherever the modality is missing is as good as one that is right."""
    wrong_there = np.where(known.information > 0, known.information, 99.0)
    assert (known.information == 0).any()

    body = agreement(claims(known, wrong_there), known, average_information(known))

    assert [cell["score"]["mean"] for cell in cells(body)] == pytest.approx([1.0] * 9)


def test_what_is_known_is_the_truth_under_the_very_masks_of_the_grid(valid, known):
    task, truth = read_task(valid), read_truth(valid)
    assert task is not None

    assert known.frames.shape == (3, 3, len(valid), 3)
    for m, name in enumerate(["audio", "text", "vision"]):
        np.testing.assert_array_equal(known.frames[0, 2, :, m], valid.lengths[name])
        expected = known.frames[..., m] * task.preset.modalities[name].amplitude ** 2 / truth.sigma[name] ** 2
        np.testing.assert_allclose(known.information[..., m], expected)
    assert not np.array_equal(known.frames[1, 0], known.frames[1, 1])


def test_subsets_need_one_mask_seed_and_only_what_is_there_is_known(valid):
    known = known_grid(valid, ProtocolSpec(name="modalities"), SEEDS)

    assert known is not None
    assert known.information.shape[:2] == (7, 1)
    assert known.information[0, 0, :, 0].all() and not known.information[0, 0, :, 1:].any()


def test_nothing_is_known_of_data_without_a_truth(small, tmp_path):
    shutil.copytree(small, tmp_path / "copy")
    (tmp_path / "copy" / TRUTH_FILE).unlink()

    assert known_grid(open_dataset(tmp_path / "copy").valid, FRAMES, SEEDS) is None
