"""What the doctor says: every answer of every check, from facts written here. No cluster, no store, no clock."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gapwise.distributed.facts import ClusterFacts, NodeFacts, TokenFacts, listeners, token_facts
from gapwise.distributed.health import (
    check_auth,
    check_clocks,
    check_dashboard,
    check_gpus,
    check_libraries,
    check_python,
    check_ray,
    check_storage,
    check_threads,
    check_token,
    check_versions,
)
from gapwise.distributed.placement import Node, Resources
from gapwise.spec.health import Check

NODE = NodeFacts(
    python="3.11.7",
    versions={"ray": "2.60.0", "gapwise": "0.1.0"},
    cpus=8,
    gpus=0,
    cuda=False,
    free_bytes=50 * 10**9,
)
HERE = {"this machine": NODE}
CLUSTER = ClusterFacts(loopback=False, open=False, dashboard=frozenset({"10.0.0.1"}))
NEEDS = ["ray[train]<2.62,>=2.60; extra == 'train'".replace("'", '"'), "numpy>=2", 'ruff; extra == "dev"']


def says(check: Check, status: str, *words: str) -> None:
    """What does not stand well says how to mend it."""
    assert check.status == status, check
    assert bool(check.mend) == (status != "ok")
    for word in words:
        assert word in f"{check.detail} {check.mend}"


def test_python_is_held_against_the_supported_range() -> None:
    says(check_python("3.11.7", ">=3.11,<3.13"), "ok")
    says(check_python("3.13.0", ">=3.11,<3.13"), "fail", "3.13.0", "<3.13")


def test_libraries_are_held_against_the_package_s_own_requirements() -> None:
    says(check_libraries(NEEDS, {"numpy": "2.4.6", "ray": "2.60.0"}), "ok", "2 within")
    says(check_libraries(NEEDS, {"numpy": "2.4.6"}), "ok", "1 within")
    says(check_libraries(NEEDS, {"ray": "2.59.0"}), "fail", "numpy is missing", "ray 2.59.0 is outside")
    says(check_libraries(NEEDS, {"numpy": "2.4.6", "ruff": "0"}), "ok", "1 within")


@pytest.mark.parametrize(
    ("value", "status"), [(None, "ok"), ("", "ok"), ("4", "ok"), ("9", "warn"), ("0", "warn"), ("many", "warn")]
)
def test_threads_are_a_number_that_the_cores_can_hold(value: str | None, status: str) -> None:
    says(check_threads(value, 8), status)


def test_ray_is_private_reached_or_not_reached() -> None:
    says(check_ray(None, ""), "ok", "private")
    says(check_ray("auto", ""), "ok", "answers")
    says(check_ray("auto", "no Ray cluster runs"), "fail", "no Ray cluster runs")


def test_a_token_that_others_read_fails_and_says_chmod() -> None:
    file = Path("/home/me/.ray/auth_token")
    says(check_token(TokenFacts(on=False, file=file, mode=None)), "ok")
    says(check_token(TokenFacts(on=True, file=None, mode=None)), "ok", "RAY_AUTH_TOKEN")
    says(check_token(TokenFacts(on=True, file=file, mode=0o600)), "ok", "0600")
    says(check_token(TokenFacts(on=True, file=file, mode=0o644)), "fail", "0644", f"chmod 600 {file}")
    says(check_token(TokenFacts(on=True, file=file, mode=None)), "fail", "cannot be read")


def test_a_cluster_that_others_reach_must_ask_for_a_token() -> None:
    says(check_auth(CLUSTER), "ok")
    says(check_auth(replace(CLUSTER, open=True)), "fail", "CVE-2023-48022", "RAY_AUTH_MODE=token")
    says(check_auth(replace(CLUSTER, open=True, loopback=True)), "warn")


def test_a_dashboard_is_not_public_without_a_token() -> None:
    public = replace(CLUSTER, dashboard=frozenset({"0.0.0.0"}))
    says(check_dashboard(replace(public, open=True)), "fail", "0.0.0.0", "runs code")
    says(check_dashboard(public), "warn", "0.0.0.0", "NetworkPolicy")
    says(check_dashboard(replace(public, open=True, dashboard=frozenset({"127.0.0.1", "::1"}))), "ok", "loopback")
    says(check_dashboard(replace(public, open=True, dashboard=frozenset())), "ok", "none")


def test_every_node_has_our_versions() -> None:
    says(check_versions(NODE, HERE), "ok", "this machine")
    for other in (replace(NODE, python="3.12.1"), replace(NODE, versions=NODE.versions | {"gapwise": "0.0.9"})):
        says(check_versions(NODE, {"a": NODE, "b": other}), "fail", "b has")
    says(check_versions(NODE, {"a": NODE, "b": NODE}), "ok", "2 nodes")


def test_storage_is_seen_and_written_by_every_node_and_has_room() -> None:
    says(check_storage("/home", HERE, {}), "ok", "50.0 GB")
    says(check_storage("/home", {"a": NODE, "b": replace(NODE, free_bytes=5 * 10**9)}, {}), "warn", "5.0 GB")
    says(check_storage("/home", {"a": NODE, "b": replace(NODE, free_bytes=10**8)}, {}), "fail", "0.1 GB")
    says(check_storage("/home", {"a": replace(NODE, free_bytes=None)}, {}), "fail", "cannot be written")
    says(check_storage("/home", {"a": NODE, "b": NODE}, {"b": "/home"}), "fail", "b does not see /home")


def test_gpus_are_held_against_cores_torch_and_what_is_to_run_at_once() -> None:
    gpus = {"a": replace(NODE, gpus=4, cuda=True)}
    says(check_gpus(Resources((Node(8, 4),)), gpus, None), "ok", "4 trials")
    says(check_gpus(Resources((Node(8, 4),)), gpus, 4), "ok")
    says(check_gpus(Resources((Node(8, 4),)), gpus, 5), "fail", "at most 4")
    says(check_gpus(Resources((Node(2, 4),)), gpus, None), "warn", "2 trials")
    says(check_gpus(Resources((Node(8, 4),)), {"a": replace(NODE, gpus=4)}, None), "fail", "CUDA")
    says(check_gpus(Resources((Node(8),)), HERE, None), "ok", "8 trials")


@pytest.mark.parametrize(
    ("offset", "status"), [(0.5, "ok"), (-1.9, "ok"), (5.0, "warn"), (-5.0, "warn"), (61.0, "fail"), (-90.0, "fail")]
)
def test_a_node_s_clock_is_ours(offset: float, status: str) -> None:
    says(check_clocks({"a": 0.1, "b": offset}), status, *([f"b is {offset:+.1f} s"] if status != "ok" else []))


def test_one_machine_has_one_clock() -> None:
    says(check_clocks({}), "ok")


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is written in the machine's own byte order")
def test_listeners_are_read_from_the_kernel_s_table() -> None:
    head = "  sl  local_address rem_address   st tx_queue rx_queue\n"
    four = head + "   0: 0100007F:2049 00000000:0000 0A 0\n   1: 00000000:2049 00000000:0000 0A 0\n"
    four += "   2: 0200000A:2049 00000000:0000 01 0\n   3: 0300000A:2050 00000000:0000 0A 0\n"
    six = head + f"   0: {'0' * 32}:2049 {'0' * 32}:0000 0A 0\n"
    six += f"   1: 0000000000000000FFFF00000100007F:2049 {'0' * 32}:0000 0A 0\n"
    assert listeners(four, 0x2049) == {"127.0.0.1", "0.0.0.0"}
    assert listeners(six, 0x2049) == {"::", "127.0.0.1"}


def test_a_token_s_facts_come_from_the_environment_and_the_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("t")
    file.chmod(0o640)
    found = token_facts({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)})
    assert found == TokenFacts(on=True, file=file, mode=0o640)
    assert token_facts({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t"}).file is None
    default = token_facts({"HOME": str(tmp_path)})
    assert default == TokenFacts(on=False, file=tmp_path / ".ray" / "auth_token", mode=None)
