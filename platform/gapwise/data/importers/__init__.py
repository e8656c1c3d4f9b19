"""Importers: files that other tools write, turned into datasets. One file a format, one line here."""

from collections.abc import Callable, Mapping
from pathlib import Path

from gapwise.data.importers.mmsa import import_mmsa
from gapwise.data.importers.npz import import_npz
from gapwise.data.importers.options import ImportOptions
from gapwise.data.importers.parquet import import_parquet
from gapwise.data.manifest import Manifest
from gapwise.errors import DataError

__all__ = ["IMPORTERS", "ImportOptions", "import_dataset"]

Importer = Callable[[Path, Path, ImportOptions], Manifest]

IMPORTERS: Mapping[str, Importer] = {"mmsa": import_mmsa, "parquet": import_parquet, "npz": import_npz}


def import_dataset(path: Path, out: Path, file_format: str, options: ImportOptions) -> Manifest:
    """Import `path` into the folder `out`; DataError if the format is unknown or the file is not what it should be."""
    importer = IMPORTERS.get(file_format)
    if importer is None:
        raise DataError(f"unknown format {file_format!r}", where=str(path), allowed=IMPORTERS)
    return importer(path, out, options)
