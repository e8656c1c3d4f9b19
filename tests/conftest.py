"""What all tests share: the synthetic `small` dataset, written once, and one Ray cluster, started on first use."""

from pathlib import Path

import pytest

from gapwise.data.synth import synthesise


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "small"
    synthesise("small", folder, 0)
    return folder
