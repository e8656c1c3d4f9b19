"""A gapwise dataset as an MLflow run's input."""

from gapwise.data.store import Dataset
from gapwise.tracking.runs import DataInput


def data_input(dataset: Dataset) -> DataInput:
    """Name, short digest, folder, and a profile with split sizes and the whole fingerprint."""
    manifest = dataset.manifest
    return DataInput(
        name=manifest.name,
        digest=manifest.fingerprint[:36],
        source=str(dataset.folder),
        profile={
            "fingerprint": manifest.fingerprint,
            "splits": {str(name): split.samples for name, split in manifest.splits.items()},
        },
    )
