"""Classes travel the same path as scores: fit, grid, model folder, served answers, floor, curves, selection.

Faked: the classes, which are the sign of the synthetic `small` label; Ray and MLflow's server are not involved.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gapwise.data.rows import to_rows
from gapwise.data.store import Dataset
from gapwise.errors import SpecError
from gapwise.evaluation.metrics import floor, metric_names
from gapwise.evaluation.objective import AUTO, settled
from gapwise.models.catalogue import MODELS
from gapwise.models.saved import load_model_folder, rebuild, save_model
from gapwise.promotion.judge import judge
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.search import SearchSpec
from gapwise.spec.train import TrainSpec
from gapwise.testing.datasets import in_classes, labelled, small_splits, write
from gapwise.testing.runs import tiny_spec, trained_on
from gapwise.tracking.served import ServedModel
from gapwise.training.checkpoint import trained_model
from gapwise.tuning.assignment import Assignment, Finished, Outcome
from gapwise.tuning.opening import settled_space
from gapwise.tuning.selection import chosen_again, standings

METRICS = {"accuracy", "macro_recall", "f1_weighted", "f1_macro"}
SIZES = {"train": 128, "valid": 60, "test": 20}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("classes") / "signs"
    return write(in_classes(small_splits(SIZES)), folder, task="classification")


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_model_of_classes_is_trained_judged_saved_and_served(dataset: Dataset, model: str, tmp_path: Path) -> None:
    spec = tiny_spec(model, protocol={"name": "frames", "rates": [0.0, 0.5]}, optimiser={"lr": 3e-3})
    job, trained = trained_on(dataset, spec)
    save_model(tmp_path / "model", trained_model(job, trained, trained.kept.metrics))
    folder = load_model_folder(tmp_path / "model")

    curves = folder.validation
    assert set(curves) == METRICS and all(set(curve) == {"0.0", "0.5"} for curve in curves.values())
    assert trained.kept.cost == -np.mean(list(curves["macro_recall"].values()))
    assert trained.kept.cost == min(one.cost for one in trained.history)

    for name in ("frames", "modalities", "random_rate", "block"):
        said = judge(folder, None, dataset, ProtocolSpec(name=name), split=dataset.valid, mask_seeds=2)
        rows = said["subsets"] if name == "modalities" else said["rates"]
        assert all(set(row) == METRICS and all(0 <= row[one]["mean"] <= 1 for one in METRICS) for row in rows.values())
        assert said["floor"]["macro_recall"] == pytest.approx(1 / 3)
        json.dumps(said, allow_nan=False)

    served = ServedModel()
    served.folder, served.model, served.state = folder, rebuild(folder), folder.state
    batch = dataset.valid.batch(np.arange(20))
    answers = served.predict(None, pd.DataFrame(to_rows(batch)))["prediction"]
    assert answers.dtype == np.int64 and set(answers) <= {0, 1, 2}
    logits = trained.model.predict(batch, trained.state).output
    assert logits.shape == (20, 3)
    assert answers.tolist() == logits.argmax(1).tolist()


def test_the_floor_is_the_training_majority(dataset: Dataset) -> None:
    majority = np.bincount(dataset.train.labels).argmax()

    found = floor(dataset.train.labels, dataset.valid.labels, dataset.manifest.shape())

    assert found["accuracy"] == pytest.approx((dataset.valid.labels == majority).mean())


class TestMetric:
    def test_auto_is_mae_for_scores_and_macro_recall_for_classes(self, dataset: Dataset, tmp_path: Path) -> None:
        scores = write(small_splits(SIZES), tmp_path / "scores")
        found = [settled(TrainSpec(), one.manifest.shape(), one.valid.labels).objective for one in (scores, dataset)]

        assert [one.metric for one in found] == [AUTO["regression"], AUTO["classification"]] == ["mae", "macro_recall"]

    @pytest.mark.parametrize("metric", ["mae", "corr", "acc2_non0"])
    def test_a_metric_of_scores_is_refused_for_classes_with_those_there_are(
        self, dataset: Dataset, metric: str
    ) -> None:
        spec = tiny_spec("late_fusion", objective={"metric": metric})

        with pytest.raises(
            SpecError, match=rf"no metric '{metric}' \(allowed: auto, accuracy, macro_recall, f1_"
        ) as no:
            trained_on(dataset, spec)
        assert no.value.where == "objective.metric"
        assert set(metric_names(dataset.manifest.shape())) == METRICS

    @pytest.mark.parametrize("metric", sorted(METRICS))
    def test_every_metric_of_classes_can_be_the_objective_and_more_of_it_is_better(
        self, dataset: Dataset, metric: str
    ) -> None:
        spec = tiny_spec("late_fusion", objective={"metric": metric}, protocol={"rates": [0.0, 0.5]})

        _, trained = trained_on(dataset, spec)

        best = max(trained.history, key=lambda one: np.mean(list(one.metrics[metric].values())))
        assert trained.kept.epoch == best.epoch

    def test_a_search_space_is_settled_too(self, dataset: Dataset) -> None:
        space = SearchSpec.model_validate({"question": "which?", "arms": {"prlf": None}})

        assert settled_space(space, dataset).train.objective.metric == "macro_recall"


def finished(number: int, recall: float) -> Finished:
    outcome = Outcome(
        state="complete", cost=-recall, best_epoch=1, metrics={"macro_recall": {"0.0": recall}}, train_seconds=1.0
    )
    return Finished(Assignment("search", "prlf", number, {}, 0, number), outcome)


def test_selection_prefers_more_of_a_metric_that_grows_with_quality() -> None:
    runs = [finished(0, 0.4), finished(1, 0.7), finished(2, 0.6)]

    assert chosen_again(runs, "macro_recall", top_k=2, cap=2) == [1, 2]
    assert [row.source for row in standings(runs, "macro_recall", 1)["0.0"]] == [1, 2, 0]


def test_one_class_only_is_finite(tmp_path: Path) -> None:
    splits = {name: labelled(split, 0) for name, split in in_classes(small_splits(SIZES)).items()}
    dataset = write(splits, tmp_path / "one", task="classification")

    for model in MODELS:
        _, trained = trained_on(dataset, tiny_spec(model, protocol={"rates": [0.0, 0.5]}))
        assert trained.kept.cost == -1.0
