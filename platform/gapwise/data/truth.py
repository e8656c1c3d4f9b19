"""What the synthetic generator hid: each sample's irony and noise levels, in `truth.npz` beside the dataset.

Diagnostics and tests compare with it. It is no part of the dataset's fingerprint and of no batch, so no model can see
it. It is read through an opened split, so a look at the test split's truth is in the exposure log like any other.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gapwise.data.store import Split
from gapwise.errors import DataError

TRUTH_FILE = "truth.npz"


class Truth(NamedTuple):
    """Of N samples, in row order."""

    irony: NDArray[np.bool_]
    """(N,), whether text says -y."""
    sigma: Mapping[str, NDArray[np.float64]]
    """(N,) by modality: the deviation of a frame along v_m."""

    def first(self, rows: int) -> "Truth":
        return Truth(self.irony[:rows], {name: sigma_N[:rows] for name, sigma_N in self.sigma.items()})


def join_truths(parts: Sequence[Truth]) -> Truth:
    sigma = {name: np.concatenate([part.sigma[name] for part in parts]) for name in parts[0].sigma}
    return Truth(np.concatenate([part.irony for part in parts]), sigma)


def pack(truths: Mapping[str, Truth]) -> bytes:
    """The content of `truth.npz` for truths by split: the same bytes for the same truths."""
    arrays: dict[str, NDArray[np.bool_] | NDArray[np.float64]] = {}
    for split, truth in truths.items():
        arrays[f"{split}/irony"] = truth.irony
        arrays |= {f"{split}/sigma/{name}": sigma_N for name, sigma_N in truth.sigma.items()}
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)  # type: ignore[arg-type,unused-ignore]
    return stream.getvalue()


def read_truth(split: Split) -> Truth:
    """The truth of every row of a split. Raises DataError where there is none, or it does not fit the split."""
    path = split.folder / TRUTH_FILE
    if not path.is_file():
        raise DataError(f"no {TRUTH_FILE} here: only `gapwise data synth` writes one", where=str(split.folder))
    try:
        with np.load(path, allow_pickle=False) as stored:
            sigma = {name: stored[f"{split.name}/sigma/{name}"] for name in split.manifest.modalities}
            truth = Truth(stored[f"{split.name}/irony"], sigma)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    if any(len(column) != len(split) for column in (truth.irony, *truth.sigma.values())):
        raise DataError(f"is not of the {len(split)} samples of {split.name}", where=str(path))
    return truth


def truth_if_any(split: Split) -> Truth | None:
    """The truth of a split; None where none was kept, or where samples that nobody drew have joined the split.

    Raises DataError if there is one that cannot be read.
    """
    return read_truth(split) if (split.folder / TRUTH_FILE).is_file() and not split.steps.any() else None
