"""Odd but possible datasets, from the disk through training to the grid: a finite answer, or one clear error.

Faked: the oddness, cut into the synthetic `small` splits. Every model and every protocol goes through each of them.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gapwise.cli.output import print_json
from gapwise.data.importers import ImportOptions, import_dataset
from gapwise.data.protocols import PROTOCOLS
from gapwise.data.store import Dataset, open_dataset
from gapwise.errors import DataError, SpecError
from gapwise.evaluation.objective import settled
from gapwise.models.catalogue import MODELS
from gapwise.models.saved import load_model_folder, save_model
from gapwise.promotion.judge import judge
from gapwise.spec.protocol import ProtocolSpec
from gapwise.testing.datasets import Splits, in_classes, labelled, resized, small_splits, without, write
from gapwise.testing.runs import tiny_spec, trained_on
from gapwise.training.checkpoint import trained_model

SIZES = {"train": 24, "valid": 10, "test": 4}


def absent_from(split: str) -> Splits:
    splits = small_splits(SIZES)
    return {**splits, split: without(splits[split], "audio")}


def samples_with_nothing() -> Splits:
    splits = small_splits(SIZES)
    rows = np.arange(0, 4)
    for name in ("text", "audio", "vision"):
        splits = {split: without(arrays, name, rows) for split, arrays in splits.items()}
    return splits


def batches_of_one() -> Splits:
    return small_splits({"train": 1, "valid": 1, "test": 1})


def the_last_batch_of_one() -> Splits:
    return small_splits({"train": 3, "valid": 2, "test": 1})


def constant(label: float, *splits: str) -> Splits:
    return {name: labelled(one, label) if name in splits else one for name, one in small_splits(SIZES).items()}


def one_step_and_five_hundred() -> Splits:
    splits = small_splits(SIZES)
    lengths = {name: np.where(np.arange(len(split)) % 2, 500, 1) for name, split in splits.items()}
    return {name: resized(split, "audio", lengths[name]) for name, split in splits.items()}


ODD: dict[str, Callable[[], Splits]] = {
    "a modality absent from train": partial(absent_from, "train"),
    "a modality absent from valid": partial(absent_from, "valid"),
    "samples without any modality": samples_with_nothing,
    "one sample a split": batches_of_one,
    "a last batch of one": the_last_batch_of_one,
    "constant training labels": partial(constant, 1.5, "train"),
    "constant validation labels": partial(constant, -2.0, "valid"),
    "one label everywhere": partial(constant, 0.5, "train", "valid", "test"),
    "zero everywhere": partial(constant, 0.0, "train", "valid", "test"),
    "a label outside the usual ranges": partial(constant, 40.0, "train", "valid", "test"),
    "1 step and 500": one_step_and_five_hundred,
}


@pytest.fixture(scope="module", params=sorted(ODD))
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(ODD[request.param](), tmp_path_factory.mktemp("odd") / "data")


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
@pytest.mark.parametrize("model", sorted(MODELS))
def test_odd_data_are_trained_on_and_judged_with_finite_figures(
    odd: Dataset, model: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol = {"name": name, "rates": [0.0, 0.5]}

    job, trained = trained_on(odd, tiny_spec(model, protocol=protocol, batch_size=16))

    assert all(np.isfinite(list(one.losses.values())).all() for one in trained.history)
    assert all(value.isfinite().all() for value in (*trained.model.state_dict().values(), *trained.state.values()))
    save_model(tmp_path / "model", trained_model(job, trained, trained.kept.metrics))
    folder = load_model_folder(tmp_path / "model")
    said = judge(folder, folder, odd, ProtocolSpec.model_validate(protocol), split=odd.valid, mask_seeds=2)
    rows = said["subsets"] if name == "modalities" else said["rates"]
    assert all(np.isfinite([row["mae"]["mean"], row["mae"]["sd"], row["corr"]["mean"]]).all() for row in rows.values())
    print_json(said)
    assert "NaN" not in capsys.readouterr().out


@pytest.mark.parametrize("model", sorted(MODELS))
def test_classes_in_one_sample_and_samples_with_nothing_are_finite(model: str, tmp_path: Path) -> None:
    for name, splits in (("one", batches_of_one()), ("nothing", samples_with_nothing())):
        dataset = write(in_classes(splits), tmp_path / name, task="classification")
        _, trained = trained_on(dataset, tiny_spec(model, protocol={"rates": [0.0, 0.5]}, batch_size=2))
        assert np.isfinite(trained.kept.cost)


def test_a_metric_that_the_validation_labels_leave_undefined_is_one_error(tmp_path: Path) -> None:
    dataset = write(constant(0.0, "valid"), tmp_path / "data")
    spec = tiny_spec("late_fusion", objective={"metric": "acc2_non0"})

    with pytest.raises(SpecError, match=r"acc2_non0 is undefined on these validation labels.*allowed: mae, corr"):
        trained_on(dataset, spec)


def test_an_undefined_figure_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"floor": {"acc2_non0": float("nan"), "mae": 1.0}, "list": [float("inf")]})

    assert json.loads(capsys.readouterr().out) == {"floor": {"acc2_non0": None, "mae": 1.0}, "list": [None]}


def test_a_modality_absent_from_every_split_is_one_error(tmp_path: Path) -> None:
    splits = {name: without(split, "audio") for name, split in small_splits(SIZES).items()}

    with pytest.raises(DataError, match="modality 'audio' is absent from every sample"):
        write(splits, tmp_path / "data")


class TestImportedLengths:
    """Lengths of zero and below, as an npz file says them."""

    def imported(self, folder: Path, lengths: list[int]) -> Dataset:
        arrays = {}
        for split in ("train", "valid", "test"):
            arrays |= {f"{split}/id": np.array([f"{split}{row}" for row in range(4)]), f"{split}/label": np.arange(4.0)}
            arrays |= {f"{split}/{name}": np.ones((4, 3, 2), np.float32) for name in ("text", "audio")}
            arrays[f"{split}/audio_lengths"] = np.array(lengths)
        np.savez(folder / "file.npz", **arrays)
        import_dataset(folder / "file.npz", folder / "data", "npz", ImportOptions(name="toy"))
        return open_dataset(folder / "data")

    @pytest.mark.parametrize("model", sorted(MODELS))
    def test_a_length_of_0_is_a_missing_modality_and_trains(self, model: str, tmp_path: Path) -> None:
        dataset = self.imported(tmp_path, [0, 3, 0, 1])

        _, trained = trained_on(dataset, tiny_spec(model, protocol={"name": "block"}))

        assert dataset.train.lengths["audio"].tolist() == [0, 3, 0, 1]
        assert np.isfinite(trained.kept.cost)

    @pytest.mark.parametrize(("lengths", "bad"), [([-1, 1, 1, 1], "-1"), ([1, 1, 1, 4], "4")])
    def test_a_length_that_cannot_be_is_one_error(self, tmp_path: Path, lengths: list[int], bad: str) -> None:
        with pytest.raises(DataError, match=rf"audio: length {bad} of row"):
            self.imported(tmp_path, lengths)


@pytest.mark.parametrize("where", ["train", "evaluate"])
def test_random_rate_above_its_limit_is_refused_before_anything_is_computed(where: str, tmp_path: Path) -> None:
    splits = small_splits(SIZES)
    two = {
        name: type(split)(
            ids=split.ids,
            groups=split.groups,
            labels=split.labels,
            modalities={one: split.modalities[one] for one in ("text", "audio")},
        )
        for name, split in splits.items()
    }
    dataset = write(two, tmp_path / "data")
    protocol = ProtocolSpec(name="random_rate")
    refused = pytest.raises(SpecError, match=r"--rates.*0\.6 of the cells.*2 modalities \(audio, text\).*1/2 = 0\.5")

    if where == "train":
        with refused:
            settled(tiny_spec("prlf", protocol=protocol), dataset.manifest.shape(), dataset.valid.labels)
        return
    job, trained = trained_on(dataset, tiny_spec("late_fusion", protocol={"rates": [0.0]}, epochs=1))
    folder = trained_model(job, trained, trained.kept.metrics)
    with refused:
        judge(folder, None, dataset, protocol, split=dataset.valid, mask_seeds=1)
