"""Token ids in batches: masks, trimming, bucketing, and ids of another tokenizer. No encoder is loaded here.

Faked: the tokenizer, as the `TokenShape` that describes it.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from gapwise.data.arrays import TokenArrays
from gapwise.data.batch import ModalityBatch, hide, hide_in_turn, join
from gapwise.data.loading import EpochBatches, as_tensors, samples_of
from gapwise.data.protocols import build_protocol
from gapwise.data.rows import from_rows, to_rows
from gapwise.data.shape import DataShape, ModalityShape, TokenShape
from gapwise.data.store import Dataset, TrainSplit
from gapwise.errors import DataError
from gapwise.evaluation.grid import predict_grid
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.train import TrainSpec
from gapwise.testing.texts import CLOSING, LONGEST, OPENING, UNKNOWN, VOCABULARY, spoken, spoken_splits, write_spoken

TOKENS = TokenShape(vocabulary=VOCABULARY, unknown=UNKNOWN, opening=OPENING, closing=CLOSING, config={}, digest="")


def shape_of(dataset: Dataset, tokens: TokenShape = TOKENS) -> DataShape:
    shape = dataset.manifest.shape()
    text = ModalityShape(dim=1, max_length=dataset.longest_tokens("text"), tokens=tokens)
    return shape.model_copy(update={"modalities": {**shape.modalities, "text": text}})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return spoken(tmp_path_factory.mktemp("spoken") / "d", {"train": 203, "valid": 100, "test": 8})


@pytest.fixture(scope="module")
def train(dataset: Dataset) -> TrainSplit:
    return dataset.train.reading(shape_of(dataset))


@pytest.fixture
def batch(train: TrainSplit) -> ModalityBatch:
    return train.batch(np.arange(40))


def masked(train: TrainSplit, batch: ModalityBatch, rate: str, *, mask_visible: bool, name: str = "frames"):
    protocol = build_protocol(ProtocolSpec(name=name, rates=(0.0, 0.3, 0.5, 1.0)))
    samples = samples_of(train.keys[batch.rows.numpy()], batch)
    masks = protocol.evaluation(samples, split="train", mask_seed=1)
    return hide(batch, as_tensors(masks[rate]), mask_visible=mask_visible)


class TestBatches:
    def test_ids_stand_in_place_of_frames_and_are_those_stored(self, train, batch):
        assert set(batch.values) == {"audio"} and set(batch.tokens) == {"text"}
        for row, stored in zip(range(40), train.tokens("text"), strict=False):
            ids, attend = batch.tokens["text"].ids[row], batch.attend["text"][row]
            assert ids[attend].tolist() == stored.tolist()
            assert (ids[~attend] == UNKNOWN).all()

    def test_a_batch_is_trimmed_to_its_longest_sample(self, train):
        lengths = train.lengths["text"]
        short = np.flatnonzero(lengths == lengths.min())

        assert train.batch(short).tokens["text"].ids.shape[1] == lengths.min()
        assert train.batch(np.arange(len(train))).tokens["text"].ids.shape[1] == lengths.max() <= LONGEST

    def test_a_split_that_reads_frames_is_left_as_it_was(self, dataset, train):
        del train
        assert set(dataset.train.batch(np.arange(3)).values) == {"audio", "text"}
        assert dataset.train.lengths["text"].max() == 1

    def test_a_sample_without_any_token_is_an_ordinary_sample(self, tmp_path):
        splits = spoken_splits({"train": 2, "valid": 2, "test": 2})
        empty = TokenArrays(ids=np.zeros(0, np.int32), offsets=np.zeros(3, np.int64))
        splits = {name: split.rows(0, 2) for name, split in splits.items()}
        splits["train"] = type(splits["train"])(
            **{
                key: getattr(splits["train"], key)
                for key in splits["train"].__dataclass_fields__
                if key not in ("tokens", "raw")
            },
            raw={"text": ["", ""]},
            tokens={"text": empty},
        )
        made = write_spoken(splits, tmp_path / "d")

        batch = made.train.reading(shape_of(made)).batch(np.arange(2))

        assert batch.tokens["text"].ids.tolist() == [[UNKNOWN], [UNKNOWN]]
        assert not batch.attend["text"].any()

    def test_batches_of_equal_length_join(self, batch):
        both = join([batch, batch])

        assert torch.equal(both.tokens["text"].ids, torch.cat([batch.tokens["text"].ids] * 2))
        assert both.tokens["text"].unknown.shape == (80,)


class TestMasks:
    @pytest.mark.parametrize("mask_visible", [True, False])
    def test_views_hidden_in_turn_are_the_joined_single_ones(self, batch, mask_visible):
        masks = [{name: torch.rand(mask.shape) < kept for name, mask in batch.attend.items()} for kept in (0.3, 0.9)]
        joined = join([hide(batch, mask, mask_visible=mask_visible) for mask in masks])

        found = hide_in_turn(batch, masks, mask_visible=mask_visible)

        for part, expected in zip(found.tokens["text"], joined.tokens["text"], strict=True):
            assert torch.equal(part, expected)
        assert torch.equal(found.attend["text"], joined.attend["text"])

    @pytest.mark.parametrize("rate", ["0.0", "0.3", "1.0"])
    def test_a_missing_token_becomes_the_unknown_one_and_stays_attended(self, train, batch, rate):
        hidden = masked(train, batch, rate, mask_visible=False)
        before, after = batch.tokens["text"], hidden.tokens["text"]
        changed = before.ids != after.ids

        assert torch.equal(hidden.attend["text"], batch.attend["text"])
        assert (after.ids[changed] == UNKNOWN).all()
        content = batch.attend["text"] & ~before.special
        share = float((after.ids == UNKNOWN)[content].float().mean())
        assert share == pytest.approx(float(rate), abs=0.12)

    @pytest.mark.parametrize("mask_visible", [True, False])
    def test_the_tokens_that_frame_a_sequence_are_never_missing(self, train, batch, mask_visible):
        hidden = masked(train, batch, "1.0", mask_visible=mask_visible)
        special = batch.tokens["text"].special

        assert special.sum(1).tolist() == [2] * 40
        assert torch.equal(hidden.tokens["text"].ids[special], batch.tokens["text"].ids[special])
        assert hidden.attend["text"][special].all()
        assert (hidden.tokens["text"].ids[~special] == UNKNOWN).all()
        assert hidden.attend["text"][~special].any() != mask_visible

    def test_a_visible_mask_takes_missing_tokens_out_of_attention(self, train, batch):
        hidden = masked(train, batch, "0.5", mask_visible=True)
        gone = batch.attend["text"] & ~hidden.attend["text"]

        assert gone.any()
        assert (hidden.tokens["text"].ids[gone] == UNKNOWN).all()

    def test_what_is_missing_at_a_rate_is_missing_at_a_higher_one(self, train, batch):
        lower, higher = (masked(train, batch, rate, mask_visible=True).attend["text"] for rate in ("0.3", "0.5"))

        assert (higher & ~lower).sum() == 0 and (lower & ~higher).any()

    def test_masks_do_not_depend_on_how_far_a_batch_is_trimmed(self, train):
        rows = np.argsort(train.lengths["text"])[:5]
        alone, together = train.batch(rows), train.batch(np.concatenate([rows, np.arange(50)]))
        steps = alone.tokens["text"].ids.shape[1]

        short = masked(train, alone, "0.5", mask_visible=True)
        long = masked(train, together, "0.5", mask_visible=True)

        assert torch.equal(short.attend["text"], long.attend["text"][:5, :steps])


class TestEpochs:
    SPEC = TrainSpec(batch_size=16, seed=3)

    def test_bucketed_batches_have_every_sample_once_and_the_same_again(self, train):
        first, again = (EpochBatches(train, self.SPEC, epoch=1, share=(0, 1)) for _ in range(2))
        rows = [first[index].complete.rows for index in range(len(first))]

        assert sorted(torch.cat(rows).tolist()) == list(range(len(train)))
        assert {len(batch) for batch in rows} <= {15, 16}
        assert all(torch.equal(again[index].complete.rows, rows[index]) for index in range(len(first)))

    def test_bucketed_batches_differ_between_epochs_and_waste_less(self, train, dataset):
        def steps(split: TrainSplit, number: int) -> list[int]:
            batches = EpochBatches(split, self.SPEC, epoch=number, share=(0, 1))
            longest = [train.lengths["text"][batches[index].complete.rows].max() for index in range(len(batches))]
            return [int(length) for length in longest]

        assert np.mean(steps(train, 0)) < 0.75 * np.mean(steps(dataset.train, 0))
        assert steps(train, 0) != steps(train, 1)
        assert steps(train, 0)[:8] != sorted(steps(train, 0)[:8]), "an epoch does not run from short to long"

    def test_workers_together_have_the_global_batch(self, train):
        alone = EpochBatches(train, self.SPEC, epoch=0, share=(0, 1))
        shares = [EpochBatches(train, self.SPEC, epoch=0, share=(rank, 2)) for rank in range(2)]

        for index in range(len(alone)):
            rows = torch.cat([share[index].complete.rows for share in shares])
            assert sorted(rows.tolist()) == sorted(alone[index].complete.rows.tolist())


def test_the_grid_answers_in_the_order_of_its_rows(dataset, train):
    valid = dataset.valid.reading(shape_of(dataset))
    rows = np.arange(len(valid))[::-1].copy()

    found = predict_grid(lambda batch: batch.rows.float(), valid, rows, ProtocolSpec(rates=(0.0, 0.5)), [1, 2])

    assert (found.values == rows).all()


class TestForeignIds:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"vocabulary": 20}, r"token id 2\d: the ids were made by another tokenizer \(allowed: 0 to 19\)"),
            ({"opening": 0}, r"tokens:text: a sequence begins with token 2: .*another tokenizer \(allowed: 0\)"),
            ({"closing": 5}, r"tokens:text: a sequence ends with token 3: .*another tokenizer \(allowed: 5\)"),
        ],
    )
    def test_ids_of_another_tokenizer_are_refused(self, dataset, changes, message):
        foreign = shape_of(dataset, TOKENS.model_copy(update=changes))

        with pytest.raises(DataError, match=message):
            dataset.valid.reading(foreign)

    def test_a_tokenizer_without_framing_tokens_is_no_reason_to_refuse(self, dataset):
        bare = shape_of(dataset, TOKENS.model_copy(update={"opening": None, "closing": None}))

        assert not dataset.valid.reading(bare).batch(np.arange(4)).tokens["text"].special.any()

    def test_a_dataset_without_ids_says_so(self, small: Path):
        from gapwise.data.store import open_dataset

        plain = open_dataset(small)
        shape = plain.manifest.shape()
        text = ModalityShape(dim=1, max_length=5, tokens=TOKENS)
        shape = shape.model_copy(update={"modalities": {**shape.modalities, "text": text}})

        with pytest.raises(DataError, match=r"keeps no token ids of 'text' \(allowed: none in this dataset\)"):
            plain.train.reading(shape)


class TestRows:
    @pytest.mark.parametrize("mask_visible", [True, False])
    def test_rows_give_the_same_batch_again(self, dataset, train, batch, mask_visible):
        hidden = masked(train, batch, "0.5", mask_visible=mask_visible)

        back = from_rows(to_rows(hidden), shape_of(dataset), mask_visible=mask_visible)

        steps = hidden.tokens["text"].ids.shape[1]
        assert torch.equal(back.tokens["text"].ids[:, :steps], hidden.tokens["text"].ids)
        assert torch.equal(back.attend["text"][:, :steps], hidden.attend["text"])
        assert torch.equal(back.tokens["text"].special[:, :steps], hidden.tokens["text"].special)

    @pytest.mark.parametrize("cell", [[[2.5]], [[-1.0]], [[float(VOCABULARY)]]])
    def test_a_number_that_is_no_token_id_is_refused(self, dataset, cell):
        with pytest.raises(DataError, match="is no token id"):
            from_rows({"text": [cell]}, shape_of(dataset), mask_visible=True)
