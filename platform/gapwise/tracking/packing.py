"""What a registered model is packed from, and what it needs of a package index: other people's packages alone.

The name `gapwise` on the public index is another project's. So a model names what it imports, at the versions that it
was registered with, and brings gapwise's own code as an archive that Python imports from as it is.
"""

import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import mlflow
import pandas as pd
from mlflow.models import ModelSignature

import gapwise
from gapwise.data.shape import DataShape

CODE = "code"
"""The artifact that holds the code."""
_ENTRY = Path(__file__).with_name("served_entry.py")
_NEEDS = ("mlflow", "numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "safetensors", "scipy", "torch")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


class Packing(NamedTuple):
    """What a version is made of: what it answers from, what it reads, and how it is asked."""

    artifacts: dict[str, Path]
    signature: ModelSignature
    example: pd.DataFrame
    shape: DataShape


def pack(packing: Packing, folder: Path) -> None:
    """Write MLflow's folder of a model, its code beside it."""
    code = folder.with_name("gapwise.zip")
    write_code(code)
    mlflow.pyfunc.save_model(
        folder,
        python_model=str(_ENTRY),
        artifacts={CODE: str(code), **{one: str(path) for one, path in packing.artifacts.items()}},
        signature=packing.signature,
        input_example=packing.example,
        pip_requirements=requirements(packing.shape),
    )


def requirements(shape: DataShape) -> list[str]:
    """What answering imports, at the versions that are installed here; builds (`+cpu`) are the index's to choose."""
    text = any(modality.tokens is not None for modality in shape.modalities.values())
    return [f"{name}=={version(name).partition('+')[0]}" for name in (*_NEEDS, *(("transformers",) if text else ()))]


def write_code(file: Path) -> None:
    """gapwise's source as one archive: the same bytes for the same source."""
    root = Path(gapwise.__file__).parent
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sorted(root.rglob("*.py")):
            entry = zipfile.ZipInfo(source.relative_to(root.parent).as_posix(), _LONG_AGO)
            archive.writestr(entry, source.read_bytes(), zipfile.ZIP_DEFLATED)
