"""Importers: files that other tools write, turned into datasets. One file a format, one line here."""

from collections.abc import Callable, Mapping
from pathlib import Path

from gapwise.data.importers.mmsa import read_mmsa
from gapwise.data.importers.npz import read_npz
from gapwise.data.importers.options import Content, ImportOptions, write_options
from gapwise.data.importers.parquet import read_parquet
from gapwise.data.manifest import Manifest
from gapwise.data.writer import write_dataset
from gapwise.errors import DataError, nearest

__all__ = ["IMPORTERS", "ImportOptions", "import_dataset", "read_content"]

Importer = Callable[[Path, ImportOptions], Content]

IMPORTERS: Mapping[str, Importer] = {"mmsa": read_mmsa, "parquet": read_parquet, "npz": read_npz}


def import_dataset(path: Path, out: Path, file_format: str, options: ImportOptions) -> Manifest:
    """Import `path` into the folder `out`; DataError if the format is unknown or the file is not what it should be."""
    content = read_content(path, file_format, options)
    return write_dataset(content.splits, out, write_options(path, content.groups, options))


def read_content(path: Path, file_format: str, options: ImportOptions) -> Content:
    """Read `path` and write nothing; DataError as in `import_dataset`."""
    importer = IMPORTERS.get(file_format)
    if importer is None:
        raise DataError(
            f"unknown format {file_format!r}{nearest(file_format, IMPORTERS)}", where=str(path), allowed=IMPORTERS
        )
    return importer(path, options)
