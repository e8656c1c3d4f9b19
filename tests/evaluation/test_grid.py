"""The robustness grid: joined evaluation is one-by-one evaluation, only faster.

Faked: the model. `toy` sums what it sees, so that every frame and every mask shows in its answer. The data are the
synthetic `small` dataset.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from gapwise.data.batch import ModalityBatch, hide
from gapwise.data.loading import as_tensors, samples_of
from gapwise.data.protocols import build_protocol
from gapwise.data.store import ValidationSplit, open_dataset
from gapwise.evaluation.grid import Grid, predict_grid, read_grid, robustness_grid, score_grid, split_masks
from gapwise.evaluation.metrics import regression
from gapwise.spec.protocol import ProtocolSpec

SEEDS = [0, 1, 2]
PROTOCOLS = pytest.mark.parametrize(
    "protocol",
    [
        ProtocolSpec(rates=(0.0, 0.3, 0.9)),
        ProtocolSpec(rates=(0.5,), mask_visible=False),
        ProtocolSpec(name="modalities"),
        ProtocolSpec(name="random_rate", rates=(0.0, 0.3, 0.6)),
        ProtocolSpec(name="block", rates=(0.0, 0.3, 0.9)),
    ],
    ids=["frames", "invisible", "modalities", "random_rate", "block"],
)


@pytest.fixture(scope="module")
def valid(small: Path) -> ValidationSplit:
    return open_dataset(small).valid


def toy(batch: ModalityBatch) -> torch.Tensor:
    """(B,): a different weight for every modality and position, of values and of what is attended."""
    total = torch.zeros(batch.size, dtype=torch.float64)
    for number, name in enumerate(sorted(batch.values), start=1):
        position = torch.arange(1, batch.values[name].shape[1] + 1, dtype=torch.float64) / 10
        total += number * (batch.values[name].double().sum(-1) * position).sum(1)
        total += 0.1 * number * (batch.attend[name] * position).sum(1)
    return total


def toy_logits(batch: ModalityBatch) -> torch.Tensor:
    return torch.stack([toy(batch), -toy(batch), 2 * toy(batch)], dim=1)


def every_row(split: ValidationSplit) -> np.ndarray:
    return np.arange(len(split), dtype=np.int64)


@PROTOCOLS
def test_joined_evaluation_is_the_same_as_one_sample_condition_and_seed_at_a_time(valid, protocol):
    rows = np.array([3, 149, 0, 70, 71], dtype=np.int64)

    found = predict_grid(toy, valid, rows, protocol, SEEDS)

    chosen = build_protocol(protocol)
    for n, row in enumerate(rows):
        base = valid.batch(np.array([row]))
        samples = samples_of(valid.keys[row : row + 1], base)
        for v, seed in enumerate(SEEDS[: found.values.shape[1]]):
            masks = chosen.evaluation(samples, split="valid", mask_seed=seed)
            for k, condition in enumerate(found.conditions):
                view = hide(base, as_tensors(masks[condition]), mask_visible=protocol.mask_visible)
                assert found.values[k, v, n] == pytest.approx(toy(view).item(), rel=1e-6)


@PROTOCOLS
@pytest.mark.parametrize("world", [2, 3])
def test_shares_of_the_rows_put_together_are_the_whole(valid, protocol, world):
    whole = predict_grid(toy, valid, every_row(valid), protocol, SEEDS).values

    for rank in range(world):
        rows = np.arange(rank, len(valid), world, dtype=np.int64)
        part = predict_grid(toy, valid, rows, protocol, SEEDS)
        np.testing.assert_allclose(part.values, whole[:, :, rank::world], rtol=1e-6)


def test_logits_keep_their_classes_last(valid):
    rows, protocol = every_row(valid)[:70], ProtocolSpec(rates=(0.0, 0.5))

    found = predict_grid(toy_logits, valid, rows, protocol, SEEDS).values

    assert found.shape == (2, 3, 70, 3)
    np.testing.assert_allclose(found[..., 0], predict_grid(toy, valid, rows, protocol, SEEDS).values, rtol=1e-6)


def test_several_tensors_are_read_in_one_pass_and_each_is_what_it_is_alone(valid):
    rows, protocol, passes = every_row(valid)[:70], ProtocolSpec(rates=(0.0, 0.5)), []

    def read(batch):
        passes.append(batch.size)
        return {"one": toy(batch), "three": toy_logits(batch)}

    found = read_grid(read, valid, rows, protocol, SEEDS)

    assert found.conditions == ["0.0", "0.5"]
    assert sum(passes) == 2 * 3 * 70
    for name, alone in (("one", toy), ("three", toy_logits)):
        np.testing.assert_array_equal(found.values[name], predict_grid(alone, valid, rows, protocol, SEEDS).values)


@PROTOCOLS
def test_the_masks_of_a_whole_split_are_those_that_a_model_is_shown(valid, protocol):
    """Where masks are visible, what a model may attend to is what is observed and exists."""

    def attended(batch):
        return {name: batch.attend[name].sum(1) for name in batch.attend}

    found = read_grid(attended, valid, every_row(valid), protocol.model_copy(update={"mask_visible": True}), SEEDS)

    for v, masks in enumerate(split_masks(valid, protocol, SEEDS)):
        assert list(masks) == found.conditions
        for k, mask in enumerate(masks.values()):
            for name, mask_NT in mask.items():
                real_NT = np.arange(mask_NT.shape[1]) < valid.lengths[name][:, None]
                np.testing.assert_array_equal(found.values[name][k, v], (mask_NT & real_NT).sum(1))


def test_two_models_are_shown_the_same_masks(valid):
    seen: dict[str, list[torch.Tensor]] = {"first": [], "second": []}

    def watching(name, answer):
        def predict(batch):
            seen[name].append(torch.cat([batch.attend[one] for one in sorted(batch.attend)], dim=1))
            return answer(batch)

        return predict

    for name, answer in (("first", toy), ("second", lambda batch: -toy(batch))):
        predict_grid(watching(name, answer), valid, every_row(valid), ProtocolSpec(rates=(0.3, 0.7)), SEEDS)

    assert torch.equal(torch.cat(seen["first"]), torch.cat(seen["second"]))
    assert not torch.cat(seen["first"]).all()


@pytest.mark.parametrize("mask_visible", [True, False])
def test_rate_0_is_the_complete_input_for_every_mask_seed(valid, mask_visible):
    protocol = ProtocolSpec(rates=(0.0, 0.5), mask_visible=mask_visible)

    found = predict_grid(toy, valid, every_row(valid), protocol, SEEDS).values

    complete = toy(valid.batch(every_row(valid))).numpy()
    for v in range(len(SEEDS)):
        np.testing.assert_allclose(found[0, v], complete, rtol=1e-6)
    assert not np.allclose(found[1, 0], found[1, 1])


def test_no_forward_pass_is_larger_than_the_limit_and_none_keeps_a_gradient(valid):
    sizes, weight = [], torch.ones((), requires_grad=True)

    def predict(batch):
        answer = weight * toy(batch)
        sizes.append((batch.size, answer.requires_grad))
        return answer

    predict_grid(predict, valid, every_row(valid), ProtocolSpec(), SEEDS)

    assert max(size for size, _ in sizes) <= 640
    assert not any(gradient for _, gradient in sizes)


def test_scores_are_those_of_each_condition_and_mask_seed(valid, small):
    shape = open_dataset(small).manifest.shape()
    outputs = predict_grid(toy, valid, every_row(valid), ProtocolSpec(rates=(0.0, 0.5)), SEEDS)

    found = score_grid(outputs, valid.labels.astype(np.float64), shape)

    for k in range(2):
        for v in range(3):
            alone = regression(outputs.values[k, v][None].astype(np.float64), valid.labels, shape.label_range)
            assert {name: value[k, v] for name, value in found.metrics.items()} == pytest.approx(
                {name: value[0] for name, value in alone.items()}
            )


def test_the_whole_grid_is_predict_then_score(valid, small):
    shape, protocol = open_dataset(small).manifest.shape(), ProtocolSpec(rates=(0.2, 0.8))

    whole = robustness_grid(toy, valid, protocol, SEEDS, shape)

    parts = score_grid(predict_grid(toy, valid, every_row(valid), protocol, SEEDS), valid.labels, shape)
    assert whole.table() == parts.table()
    assert list(whole.table()) == ["0.2", "0.8"]


@pytest.mark.parametrize("name", ["frames", "random_rate", "block"])
def test_a_grid_of_rates_has_a_figure_for_every_mask_seed(valid, small, name):
    protocol, shape = ProtocolSpec(name=name, rates=(0.0, 0.5)), open_dataset(small).manifest.shape()

    grid = robustness_grid(toy, valid, protocol, SEEDS, shape)

    assert grid.mask_seeds == len(SEEDS)
    assert grid.table()["0.5"]["mae"]["sd"] > 0


def test_subsets_do_not_depend_on_the_mask_seed_so_they_are_evaluated_once_and_have_sd_0(valid, small):
    seen = []

    def predict(batch):
        seen.append(batch.size)
        return toy(batch)

    grid = robustness_grid(
        predict, valid, ProtocolSpec(name="modalities"), range(1, 21), open_dataset(small).manifest.shape()
    )

    assert sum(seen) == 7 * len(valid)
    assert grid.mask_seeds == 1
    assert {row["mae"]["sd"] for row in [*grid.table().values(), grid.mean()]} == {0.0}


class TestTable:
    GRID = Grid(["0.0", "0.5"], {"mae": np.array([[1.0, 2.0, 3.0], [4.0, 4.0, 7.0]])})

    def test_sd_is_over_mask_seeds_with_one_less_in_the_divisor(self):
        assert self.GRID.table() == {
            "0.0": {"mae": {"mean": 2.0, "sd": 1.0}},
            "0.5": {"mae": {"mean": 5.0, "sd": pytest.approx(np.sqrt(3.0))}},
        }

    def test_the_mean_s_sd_is_that_of_the_average_over_conditions_and_not_the_average_of_sds(self):
        assert self.GRID.mean() == {"mae": {"mean": 3.5, "sd": pytest.approx(np.std([2.5, 3.0, 5.0], ddof=1))}}

    def test_one_mask_seed_has_sd_0(self):
        one = Grid(["0.0"], {"mae": np.array([[1.5]])})

        assert one.table() == {"0.0": {"mae": {"mean": 1.5, "sd": 0.0}}}

    def test_a_curve_is_the_mean_over_mask_seeds(self):
        assert self.GRID.curve("mae") == {"0.0": 2.0, "0.5": 5.0}
