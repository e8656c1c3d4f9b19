"""What a second-phase run answered on validation, kept beside its trial for paired comparisons: one file a run.

Every condition and mask seed, in the split's order of samples; never in the journal or in MLflow. The file is written
before the run's ending is told, so a run that the journal calls finished has one, unless it is older than this file or
somebody deleted it.
"""

from pathlib import Path

import torch

from gapwise.errors import CheckpointError
from gapwise.evaluation.grid import Outputs
from gapwise.models.saved import read_tensors, write_tensors
from gapwise.tuning.assignment import Assignment

FORMAT_VERSION = 1


def predictions_file(folder: Path, assignment: Assignment) -> Path:
    """`folder` is the study's."""
    return folder / "trials" / assignment.key / "predictions.safetensors"


def save_predictions(file: Path, outputs: Outputs) -> None:
    """All of it or nothing, as `write_tensors` does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    header = {"format_version": FORMAT_VERSION, "conditions": outputs.conditions}
    write_tensors(file, {"outputs": torch.from_numpy(outputs.values).contiguous()}, header)


def load_predictions(file: Path) -> Outputs | None:
    """None where there is no such file. Raises CheckpointError for one that is damaged or of another format."""
    if not file.exists():
        return None
    tensors, header = read_tensors(file)
    if header.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"predictions format {header.get('format_version')!r}", where=str(file), allowed=str(FORMAT_VERSION)
        )
    return Outputs(header["conditions"], tensors["outputs"].numpy())
