"""What `gapwise data check` says of a dataset, as one JSON object."""

from pathlib import Path

from gapwise.data.store import Dataset, open_dataset


def check(path: Path | str) -> dict[str, object]:
    """Verify every fingerprint of the dataset at `path` and return its summary; DataError if one does not hold."""
    return summary(open_dataset(path, verify=True))


def summary(dataset: Dataset) -> dict[str, object]:
    """The keys that scripts rely on (name, task, fingerprint, splits, modalities, repaired), and some more.

    `present` counts the samples of each split that have a modality at all. `parent` is the fingerprint before the last
    append, null if there was none; `growth` tells every append, oldest first.
    """
    manifest = dataset.manifest
    return {
        "name": manifest.name,
        "task": manifest.task,
        "fingerprint": manifest.fingerprint,
        "parent": manifest.growth[-1].parent if manifest.growth else None,
        "splits": {name: record.samples for name, record in manifest.splits.items()},
        "modalities": {
            name: {"dim": record.dim, "max_length": record.max_length} for name, record in manifest.modalities.items()
        },
        "present": {name: dataset.present(name) for name in manifest.modalities},
        "repaired": dict(manifest.repaired),
        "groups": {name: record.groups for name, record in manifest.splits.items()},
        "groups_shared_between_splits": manifest.groups_shared_between_splits,
        "exposures": dataset.exposures(),
        "label_range": list(manifest.label_range),
        "growth": [step.model_dump(mode="json", exclude={"parent_test"}) for step in manifest.growth],
        "path": str(dataset.folder),
    }
