"""What all tests share: the synthetic `small` dataset, written once, and one Ray cluster, started on first use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gapwise.data.synth import synthesise


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "small"
    synthesise("small", folder, 0)
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Four logical CPUs whatever the machine has, so that a trial and its Ray Train workers fit side by side."""
    from gapwise.distributed.cluster import connected

    with connected(cpus=4):
        yield
