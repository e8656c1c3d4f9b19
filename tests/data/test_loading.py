"""Epochs, shares and `hide`: the behaviour suite for missingness at the level of batches.

Nothing is faked: batches come from the synthetic `small` dataset, or are built by hand where NaN must lie under a mask.
Loader worker processes are real, at most four, without Ray.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from gapwise.data.batch import ModalityBatch, hide, hide_in_turn, join
from gapwise.data.loading import EpochBatches, Views, epoch_order, steps_per_epoch
from gapwise.data.protocols import PROTOCOLS
from gapwise.data.store import TrainSplit, open_dataset
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.train import TrainSpec

SPEC = TrainSpec(batch_size=64, seed=3)


@pytest.fixture(scope="module")
def train(small: Path) -> TrainSplit:
    return open_dataset(small).train


def epoch(
    train: TrainSplit, spec: TrainSpec = SPEC, *, number: int = 0, share: tuple[int, int] = (0, 1)
) -> EpochBatches:
    return EpochBatches(train, spec, epoch=number, share=share)


def rows(batches: Sequence[Views]) -> list[int]:
    return torch.cat([batches[index].incomplete.rows for index in range(len(batches))]).tolist()


def same(first: ModalityBatch, second: ModalityBatch) -> bool:
    return all(
        torch.equal(getattr(first, part)[name], getattr(second, part)[name])
        for part in ("values", "attend")
        for name in first.values
    ) and torch.equal(first.rows, second.rows)


class TestEpoch:
    def test_every_sample_comes_exactly_once(self, train):
        assert sorted(rows(epoch(train))) == list(range(len(train)))

    @pytest.mark.parametrize("batch_size", [2, 7, 64, 150, 399, 400, 65_536])
    def test_batches_are_nearly_equal_as_few_as_possible_and_never_too_large(self, train, batch_size):
        spec = SPEC.model_copy(update={"batch_size": batch_size})
        batches = epoch(train, spec)
        order = [len(part) for part in batches._batches]

        assert sum(order) == len(train)
        assert max(order) <= batch_size
        assert max(order) - min(order) <= 1
        assert len(batches) == steps_per_epoch(len(train), batch_size) == -(-len(train) // batch_size)

    def test_the_order_is_the_same_again_and_another_in_another_epoch_or_seed(self, train):
        first = epoch_order(train, seed=0, epoch=0)

        assert np.array_equal(first, epoch_order(train, seed=0, epoch=0))
        assert (first != epoch_order(train, seed=0, epoch=1)).mean() > 0.9
        assert (first != epoch_order(train, seed=1, epoch=0)).mean() > 0.9

    def test_the_masks_of_a_sample_differ_between_epochs(self, train):
        first, second = (by_row(epoch(train, number=number)) for number in (0, 1))

        assert (first != second).any(1).float().mean() > 0.7

    def test_the_masks_of_a_sample_do_not_depend_on_the_size_of_batches(self, train):
        small_batches = SPEC.model_copy(update={"batch_size": 7})

        assert torch.equal(by_row(epoch(train)), by_row(epoch(train, small_batches)))

    def test_resuming_in_the_middle_yields_the_same_next_batches(self, train):
        read, fresh = epoch(train), epoch(train)
        for index in range(3):
            read[index]

        assert all(same(read[index].incomplete, fresh[index].incomplete) for index in range(3, len(read)))

    def test_the_complete_view_is_the_same_samples_with_nothing_hidden(self, train):
        views = epoch(train)[2]

        assert same(views.complete, train.batch(views.incomplete.rows.numpy()))
        assert any((views.incomplete.attend[name] != views.complete.attend[name]).any() for name in train.lengths)


def by_row(batches: EpochBatches) -> torch.Tensor:
    """(N, sum of T) what is attended, in row order."""
    whole = join([batches[index].incomplete for index in range(len(batches))])
    attended = torch.cat([whole.attend[name] for name in sorted(whole.attend)], dim=1)
    return attended[whole.rows.argsort()]


# A machine with fewer than four cores warns that four are many; Python 3.12 warns of fork beside threads.
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning", "ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("name", sorted(PROTOCOLS))
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_the_same_seed_gives_the_same_batches_for_any_number_of_loader_workers(train, name, workers):
    spec = SPEC.model_copy(update={"protocol": ProtocolSpec(name=name), "batch_size": 150})
    for number in (0, 1):
        batches = epoch(train, spec, number=number)

        loaded = list(DataLoader(batches, batch_size=None, num_workers=workers))

        assert len(loaded) == len(batches)
        for index, views in enumerate(loaded):
            assert same(views.incomplete, batches[index].incomplete)
            assert same(views.complete, batches[index].complete)


class TestShares:
    @pytest.mark.parametrize("world", [1, 2, 3])
    def test_together_the_workers_have_the_global_batch(self, train, world):
        alone = epoch(train)
        shares = [epoch(train, share=(rank, world)) for rank in range(world)]

        for index in range(len(alone)):
            together = join([share[index].incomplete for share in shares])
            back = torch.cat(
                [torch.arange(rank, alone[index].incomplete.size, world) for rank in range(world)]
            ).argsort()
            taken = ModalityBatch(
                values={name: value[back] for name, value in together.values.items()},
                attend={name: value[back] for name, value in together.attend.items()},
                labels=together.labels[back],
                rows=together.rows[back],
            )
            assert same(taken, alone[index].incomplete)
            assert torch.equal(taken.labels, alone[index].incomplete.labels)

    def test_shares_differ_by_one_sample_at_most_and_have_equally_many_batches(self, train):
        shares = [epoch(train, share=(rank, 3)) for rank in range(3)]

        assert len({len(share) for share in shares}) == 1
        for index in range(len(shares[0])):
            sizes = [share[index].incomplete.size for share in shares]
            assert max(sizes) - min(sizes) <= 1


class TestHide:
    """Two samples, three steps, the second of length 2."""

    @pytest.fixture
    def batch(self) -> ModalityBatch:
        return ModalityBatch(
            values={"text": torch.arange(1.0, 13.0).reshape(2, 3, 2)},
            attend={"text": torch.tensor([[True, True, True], [True, True, False]])},
            labels=torch.zeros(2),
            rows=torch.arange(2),
        )

    OBSERVED = torch.tensor([[True, False, True], [False, True, True]])

    @pytest.mark.parametrize("mask_visible", [True, False])
    @pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e30])
    def test_nothing_under_a_mask_or_past_the_end_survives(self, batch, mask_visible, junk):
        kept = self.OBSERVED & batch.attend["text"]
        clean = hide(batch, {"text": self.OBSERVED}, mask_visible=mask_visible)
        batch.values["text"][~kept] = junk

        dirty = hide(batch, {"text": self.OBSERVED}, mask_visible=mask_visible)

        assert torch.equal(dirty.values["text"], clean.values["text"])
        assert torch.isfinite(dirty.values["text"]).all()
        assert (dirty.values["text"][~kept] == 0).all()
        assert torch.equal(dirty.values["text"][kept], batch.values["text"][kept])

    def test_a_visible_mask_takes_frames_out_of_attention(self, batch):
        hidden = hide(batch, {"text": self.OBSERVED}, mask_visible=True)

        assert hidden.attend["text"].tolist() == [[True, False, True], [False, True, False]]

    def test_an_invisible_mask_leaves_attention_as_it_was(self, batch):
        hidden = hide(batch, {"text": self.OBSERVED}, mask_visible=False)

        assert torch.equal(hidden.attend["text"], batch.attend["text"])

    def test_the_given_batch_stays_as_it_was(self, batch):
        before = batch.values["text"].clone(), batch.attend["text"].clone()

        hide(batch, {"text": torch.zeros(2, 3, dtype=torch.bool)}, mask_visible=True)

        assert torch.equal(batch.values["text"], before[0])
        assert torch.equal(batch.attend["text"], before[1])


@pytest.mark.parametrize("mask_visible", [True, False])
def test_views_hidden_in_turn_are_the_joined_single_ones(train, mask_visible):
    batch = train.batch(np.arange(5))
    masks = [{name: torch.rand(mask.shape) < kept for name, mask in batch.attend.items()} for kept in (0.3, 0.9)]

    found = hide_in_turn(batch, masks, mask_visible=mask_visible)

    assert same(found, join([hide(batch, mask, mask_visible=mask_visible) for mask in masks]))
    assert torch.equal(found.rows, batch.rows.repeat(2)) and torch.equal(found.labels, batch.labels.repeat(2))


@pytest.mark.parametrize("mask_visible", [True, False])
def test_training_tells_the_model_of_hidden_frames_only_where_the_protocol_says_so(train, mask_visible):
    spec = SPEC.model_copy(update={"protocol": ProtocolSpec(mask_visible=mask_visible)})
    views = epoch(train, spec)[0]

    told = any((views.incomplete.attend[name] != views.complete.attend[name]).any() for name in train.lengths)

    assert told == mask_visible
