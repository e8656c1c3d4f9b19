"""Which Ray a command gets, and what it says where it gets none. Faked: Ray's own start."""

from typing import Any

import pytest
import ray

from gapwise.distributed import cluster
from gapwise.distributed.cluster import check_versions, connected
from gapwise.errors import SpecError


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


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup. This could happen because some of the raylet failed"),
        RuntimeError("Failed to start GCS.  Last 0 lines of error files:\n\n.Please check gcs_server.out"),
    ],
)
def test_a_ray_that_does_not_start_in_time_is_one_line_with_advice(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def late(**_: Any) -> None:
        raise error

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(SpecError, match=r"Ray did not start on this machine: .*less busy.*--address"), connected():
        pass


def test_a_bug_while_ray_starts_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> None:
        raise TypeError("unexpected keyword")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", broken)
    with pytest.raises(TypeError), connected():
        pass


def test_a_cluster_has_our_ray_and_our_python_s_first_two_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.11.7")
    check_versions("a", ray.__version__, "3.11.9")
    check_versions("a", ray.__version__, None)
    for theirs in (("2.0.0", "3.11.7"), (ray.__version__, "3.12.7")):
        with pytest.raises(SpecError, match="the cluster has Ray"):
            check_versions("a", *theirs)
