"""Metrics against scikit-learn and scipy on random data, and the conventions that the field disagrees on by hand.

Nothing is faked; random data are drawn from fixed seeds.
"""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from gapwise.data.shape import DataShape, ModalityShape
from gapwise.evaluation.metrics import (
    average_ranks,
    better,
    classification,
    confusion,
    floor,
    pearson,
    regression,
    score,
)

MOSI = (-3.0, 3.0)
SIMS = (-1.0, 1.0)
TEXT = {"text": ModalityShape(dim=1, max_length=1)}
SCORES = DataShape(task="regression", modalities=TEXT, label_range=MOSI)
SIMS_SCORES = DataShape(task="regression", modalities=TEXT, label_range=SIMS)
CLASSES = DataShape(task="classification", modalities=TEXT, label_range=(0.0, 3.0), classes=4)


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Predictions (5, 300), some beyond the label range, and labels (300,) in steps of .2, some of them 0."""
    random = np.random.default_rng(0)
    truth = np.round(random.uniform(-3, 3, 300) * 5) / 5
    return truth + random.normal(0, [[0.1], [0.5], [1.0], [2.0], [4.0]], (5, 300)), truth


@pytest.fixture
def classes() -> tuple[np.ndarray, np.ndarray]:
    """Predictions (3, 200) and labels (200,) of four uneven classes."""
    random = np.random.default_rng(1)
    truth = random.choice(4, 200, p=[0.5, 0.3, 0.15, 0.05])
    return np.where(random.random((3, 200)) < 0.5, truth, random.integers(0, 4, (3, 200))), truth


class TestRegression:
    def test_mae_and_pearson_are_on_raw_values(self, drawn):
        predicted, truth = drawn
        found = regression(predicted, truth, MOSI)

        for row in range(5):
            assert found["mae"][row] == pytest.approx(sk.mean_absolute_error(truth, predicted[row]))
            assert found["corr"][row] == pytest.approx(stats.pearsonr(truth, predicted[row])[0])

    def test_non0_drops_labels_of_0_and_asks_for_above_0(self, drawn):
        predicted, truth = drawn
        found, kept = regression(predicted, truth, MOSI), truth != 0

        assert not kept.all()
        for row in range(5):
            sides = truth[kept] > 0, predicted[row, kept] > 0
            assert found["acc2_non0"][row] == pytest.approx(sk.accuracy_score(*sides))
            assert found["f1_non0"][row] == pytest.approx(sk.f1_score(*sides, average="weighted"))

    def test_has0_keeps_labels_of_0_and_asks_for_at_least_0(self, drawn):
        predicted, truth = drawn
        found = regression(predicted, truth, MOSI)

        for row in range(5):
            sides = truth >= 0, predicted[row] >= 0
            assert found["acc2_has0"][row] == pytest.approx(sk.accuracy_score(*sides))
            assert found["f1_has0"][row] == pytest.approx(sk.f1_score(*sides, average="weighted"))

    def test_a_prediction_of_exactly_0_is_positive_for_has0_only(self):
        found = regression(np.zeros((1, 2)), np.array([1.0, 1.0]), MOSI)

        assert (found["acc2_has0"][0], found["acc2_non0"][0]) == (1.0, 0.0)

    @pytest.mark.parametrize(("name", "limit"), [("acc7", 3), ("acc5", 2)])
    def test_finer_classes_clip_then_round(self, drawn, name, limit):
        predicted, truth = drawn
        found = regression(predicted, truth, MOSI)[name]

        for row in range(5):
            expected = np.round(np.clip(predicted[row], -limit, limit)) == np.round(np.clip(truth, -limit, limit))
            assert found[row] == pytest.approx(expected.mean())

    def test_f1_takes_truth_first_so_a_collapsed_model_scores_48_and_not_77(self):
        truth = np.where(np.arange(10_000) < 6287, 1.0, -1.0)

        found = regression(np.ones((1, 10_000)), truth, MOSI)["f1_non0"][0]

        assert round(100 * found, 1) == 48.5
        swapped = sk.f1_score(np.ones(10_000), truth > 0, average="weighted")
        assert round(100 * swapped, 1) == 77.2

    def test_where_every_label_is_0_the_metric_that_drops_them_is_undefined(self):
        found = regression(np.ones((2, 3)), np.zeros(3), MOSI)

        assert np.isnan(found["acc2_non0"]).all()
        assert np.isnan(found["f1_non0"]).all()
        assert found["acc2_has0"].tolist() == [1.0, 1.0]


class TestSims:
    def test_its_metrics_are_two_three_and_five_classes(self, drawn):
        assert set(regression(drawn[0], drawn[1] / 3, SIMS)) == {"mae", "corr", "acc2_has0", "f1_has0", "acc3", "acc5"}

    def test_two_classes_are_at_most_0_and_above_0(self):
        found = regression(np.array([[0.0, 1e-9, -0.5]]), np.array([0.2, 0.2, 0.0]), SIMS)

        assert found["acc2_has0"][0] == pytest.approx(2 / 3)

    @pytest.mark.parametrize(
        ("name", "edges"), [("acc3", [-1.01, -0.1, 0.1, 1.01]), ("acc5", [-1.01, -0.7, -0.1, 0.1, 0.7, 1.01])]
    )
    def test_finer_classes_are_cut_as_the_field_does(self, name, edges):
        """Written out the way the dataset's authors do: lower < y <= upper, after clipping to [-1, 1]."""
        random = np.random.default_rng(2)
        truth = np.round(random.uniform(-1, 1, 400), 1)
        predicted = np.round(truth + random.normal(0, 0.5, 400), 1)

        def cut(values):
            clipped = np.clip(values, -1, 1)
            return [next(k for k in range(len(edges) - 1) if edges[k] < one <= edges[k + 1]) for one in clipped]

        expected = np.mean(np.array(cut(predicted)) == np.array(cut(truth)))
        assert regression(predicted[None], truth, SIMS)[name][0] == pytest.approx(expected)


class TestClassification:
    def test_it_agrees_with_scikit_learn(self, classes):
        predicted, truth = classes
        found = classification(predicted, truth, 4)

        for row in range(3):
            assert found["accuracy"][row] == pytest.approx(sk.accuracy_score(truth, predicted[row]))
            assert found["macro_recall"][row] == pytest.approx(sk.recall_score(truth, predicted[row], average="macro"))
            assert found["f1_weighted"][row] == pytest.approx(sk.f1_score(truth, predicted[row], average="weighted"))
            assert found["f1_macro"][row] == pytest.approx(sk.f1_score(truth, predicted[row], average="macro"))

    def test_weighted_f1_would_be_another_number_with_its_arguments_swapped(self, classes):
        predicted, truth = classes
        right, swapped = classification(predicted, truth, 4), classification(truth[None], predicted[0], 4)

        assert abs(right["f1_weighted"][0] - swapped["f1_weighted"][0]) > 0.04

    def test_a_class_that_no_label_has_counts_in_neither_recall_nor_weights(self):
        found = classification(np.array([[0, 1, 3]]), np.array([0, 1, 1]), 4)

        assert found["macro_recall"][0] == pytest.approx(0.75)
        assert found["f1_weighted"][0] == pytest.approx(
            sk.f1_score([0, 1, 1], [0, 1, 3], average="weighted", zero_division=0)
        )
        assert found["f1_macro"][0] == pytest.approx(
            sk.f1_score([0, 1, 1], [0, 1, 3], average="macro", zero_division=0)
        )

    def test_confusion_has_truth_in_rows(self, classes):
        predicted, truth = classes

        assert np.array_equal(confusion(predicted, truth, 4)[1], sk.confusion_matrix(truth, predicted[1]))

    def test_logits_answer_with_the_largest(self, classes):
        predicted, truth = classes
        logits = np.random.default_rng(0).random((3, 200, 4)) + 2 * np.eye(4)[predicted]

        assert score(logits, truth.astype(np.float64), CLASSES)["accuracy"].tolist() == (
            classification(predicted, truth, 4)["accuracy"].tolist()
        )


class TestAll:
    def test_many_replicas_at_once_are_the_same_as_one_by_one(self, drawn, classes):
        predicted, truth = drawn
        for label_range, labels in ((MOSI, truth), (SIMS, truth / 3)):
            together = regression(predicted, labels, label_range)
            for row in range(len(predicted)):
                alone = regression(predicted[row : row + 1], labels, label_range)
                assert {name: value[0] for name, value in alone.items()} == pytest.approx(
                    {name: value[row] for name, value in together.items()}, abs=1e-12
                )
        together = classification(*classes, 4)
        for row in range(3):
            alone = classification(classes[0][row : row + 1], classes[1], 4)
            assert all(alone[name][0] == together[name][row] for name in alone)

    @pytest.mark.parametrize("constant", [0.0, 0.1, -2.0, 1e5])
    def test_a_constant_prediction_correlates_with_nothing(self, drawn, constant):
        assert pearson(np.full((1, 300), constant), drawn[1])[0] == 0.0

    def test_constant_labels_correlate_with_nothing(self, drawn):
        assert pearson(drawn[0], np.full(300, 0.1)).tolist() == [0.0] * 5

    def test_predictions_that_barely_vary_still_correlate(self, drawn):
        _, truth = drawn

        assert pearson(0.5 + 1e-7 * truth[None], truth)[0] == pytest.approx(1.0, abs=1e-6)
        assert pearson(1e-9 * truth[None], truth)[0] == pytest.approx(1.0)

    @pytest.mark.parametrize("junk", [np.nan, np.inf])
    def test_a_replica_with_an_output_that_is_not_finite_has_no_score_and_the_others_keep_theirs(self, drawn, junk):
        predicted, truth = drawn
        clean = score(predicted, truth, SCORES)
        broken = predicted.copy()
        broken[2, 7] = junk

        found = score(broken, truth, SCORES)

        for name, values in found.items():
            assert np.isnan(values[2])
            assert np.array_equal(np.delete(values, 2), np.delete(clean[name], 2))

    def test_float32_outputs_and_labels_are_scored(self, drawn):
        predicted, truth = drawn
        found = score(predicted.astype(np.float32), truth.astype(np.float32), SCORES)

        assert found["mae"].dtype == np.float64
        assert found["mae"] == pytest.approx(regression(predicted, truth, MOSI)["mae"], abs=1e-6)

    def test_only_mae_is_better_when_lower(self):
        assert better("mae", 0.5, 0.6)
        assert better("corr", 0.6, 0.5)
        assert not better("mae", 0.5, 0.5)
        assert not better("acc7", float("nan"), 0.5)


class TestFloor:
    TRAIN = np.array([-2.0, -2.0, -2.0, -1.0, 1.0, 2.5])
    HERE = np.array([1.0, 1.0, 1.0, 0.0, -2.0])

    def test_the_answer_comes_from_the_training_labels_alone(self):
        found = floor(self.TRAIN, self.HERE, SCORES)

        assert found["acc2_non0"] == pytest.approx(0.25)  # negative, as in training, although most here are positive
        assert found["acc2_has0"] == pytest.approx(0.2)
        assert found["acc7"] == pytest.approx(0.2)
        assert found["mae"] == pytest.approx(np.abs(self.HERE - np.median(self.TRAIN)).mean())
        assert found["corr"] == 0.0

    def test_f1_of_the_majority_is_computed_with_truth_first(self):
        found = floor(self.TRAIN, self.HERE, SCORES)

        truth = self.HERE[self.HERE != 0] > 0
        assert found["f1_non0"] == pytest.approx(sk.f1_score(truth, truth & False, average="weighted", zero_division=0))

    def test_every_class_of_sims_can_be_the_majority(self):
        train = np.array([-0.4, -0.4, -0.4, 0.0, 1.0])
        found = floor(train, np.array([-0.2, -0.4, 0.4, 1.0]), SIMS_SCORES)

        assert found["acc5"] == pytest.approx(0.5)
        assert found["acc3"] == pytest.approx(0.5)

    def test_it_has_every_metric_of_the_task(self, drawn):
        assert set(floor(drawn[1], drawn[1], SCORES)) == set(regression(*drawn, MOSI))
        assert set(floor(drawn[1] / 3, drawn[1] / 3, SIMS_SCORES)) == set(regression(*drawn, SIMS))

    def test_no_constant_answer_beats_it_on_the_training_labels(self, drawn):
        truth = drawn[1]
        found = floor(truth, truth, SCORES)

        for answer in np.linspace(-3, 3, 25):
            for name, value in regression(np.full((1, 300), answer), truth, MOSI).items():
                assert not better(name, value[0], found[name] + (-1e-12 if name == "mae" else 1e-12))

    def test_labels_that_are_all_0_have_a_floor(self):
        assert floor(np.zeros(4), np.zeros(4), SCORES)["acc7"] == 1.0

    def test_classes_answer_with_the_training_majority(self):
        found = floor(np.array([2, 2, 1]), np.array([1, 1, 2, 0]), CLASSES)

        assert found["accuracy"] == pytest.approx(0.25)
        assert found["macro_recall"] == pytest.approx(1 / 3)


def test_average_ranks_are_scipys() -> None:
    random = np.random.default_rng(0)
    for values in (random.integers(0, 5, 40), random.normal(size=30), np.ones(3), np.array([2.0])):
        assert average_ranks(values) == pytest.approx(stats.rankdata(values))
