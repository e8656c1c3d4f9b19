"""Blocks put together are the split they were cut from, in memory and through scratch files. Nothing is faked."""

import numpy as np

from gapwise.data.drawing import generate
from gapwise.data.presets import SMALL
from gapwise.data.spool import join, spool


def test_blocks_joined_or_spooled_are_the_whole_again(tmp_path):
    whole = generate(SMALL, 0)["train"]
    blocks = [whole.rows(0, 7), whole.rows(7, 8), whole.rows(8, 400)]

    for found in (join(blocks), spool(iter(blocks), tmp_path)):
        assert (found.ids, found.groups) == (whole.ids, whole.groups)
        np.testing.assert_array_equal(found.labels, whole.labels)
        for name, modality in whole.modalities.items():
            np.testing.assert_array_equal(found.modalities[name].values, modality.values)
            np.testing.assert_array_equal(found.modalities[name].offsets, modality.offsets)
            np.testing.assert_array_equal(found.modalities[name].present, modality.present)


def test_spooled_values_lie_in_the_scratch_folder(tmp_path):
    found = spool(iter([generate(SMALL, 0)["valid"]]), tmp_path)

    assert all(isinstance(modality.values, np.memmap) for modality in found.modalities.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio.values", "text.values", "vision.values"]
