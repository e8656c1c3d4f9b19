"""Which Ray a command gets. Faked: Ray's own start."""

from typing import Any

import pytest
import ray

from gapwise.distributed import cluster
from gapwise.distributed.cluster import connected


def test_without_an_address_a_cluster_of_its_own_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **how: asked.update(how))
    monkeypatch.setattr(ray, "nodes", list)
    monkeypatch.setattr(cluster, "draining", set)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with connected():
        pass
    assert asked["address"] == "local"
