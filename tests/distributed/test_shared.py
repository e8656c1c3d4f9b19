"""A folder that not every node sees is refused.

In the real test two nodes share this machine, and one of them has an empty file system mounted over the folder, in a
mount namespace of its own. Elsewhere the nodes and what they answer are faked.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gapwise.distributed import shared
from gapwise.distributed.shared import Look, look_here, refuse_unshared, unseen
from gapwise.errors import SpecError
from gapwise.testing.ray_head import Head


def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "living_nodes", lambda: {"a": "1", "b": "2", "c": "3"})


def answers(**blind: str) -> Callable[[Look], dict[str, str]]:
    """Nodes a, b and c look here; of those named, each says what it is told to."""
    return lambda look: {node: blind[node] if node in blind else look_here(look, node) for node in "abc"}


def test_a_folder_that_all_nodes_see_passes_and_nothing_is_left_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three(monkeypatch)
    refuse_unshared(tmp_path / "home", [tmp_path], ask=answers())
    assert list((tmp_path / "home").iterdir()) == []


def test_a_node_that_does_not_see_it_is_named_with_what_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three(monkeypatch)
    with pytest.raises(SpecError, match=r"node b does not see.*3 nodes.*every node mounts.*GAPWISE_HOME") as refused:
        refuse_unshared(tmp_path, ask=answers(b=str(tmp_path)))
    assert str(refused.value).startswith(f"{tmp_path}: ")
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_writes_where_we_do_not_see_it_is_refused(tmp_path: Path) -> None:
    assert unseen(tmp_path, [], answers(c="")) == {"c": str(tmp_path)}


def test_data_that_a_node_does_not_see_is_what_is_named(tmp_path: Path) -> None:
    assert unseen(tmp_path, [tmp_path / "none"], answers()) == dict.fromkeys("abc", str(tmp_path / "none"))


def test_a_node_that_cannot_read_the_probe_says_the_folder(tmp_path: Path) -> None:
    assert look_here(Look(str(tmp_path), ".probe", ()), "a") == str(tmp_path)


def test_one_node_is_asked_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "living_nodes", lambda: {"a": "1"})

    def never(look: Look) -> dict[str, str]:
        raise AssertionError

    refuse_unshared(tmp_path / "home", ask=never)
    assert not (tmp_path / "home").exists()


DRIVER = """
import sys
import time
from pathlib import Path
import ray
from gapwise.distributed.cluster import connected
from gapwise.distributed.shared import refuse_unshared
from gapwise.errors import SpecError
with connected(sys.argv[1]):
    for _ in range(600):  # whoever was orphaned must not ask for ever
        if len([node for node in ray.nodes() if node["Alive"]]) == 2:
            break
        time.sleep(0.2)
    for folder in sys.argv[2:]:
        try:
            refuse_unshared(Path(folder))
            print("shared")
        except SpecError as error:
            print(error)
"""


def may_mount() -> bool:
    try:
        return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="mount namespaces need root")
def test_a_folder_that_is_another_on_the_second_node_is_refused() -> None:
    head = Head()
    try:
        own, common = head.folder / "own", head.folder / "common"
        own.mkdir()
        head.start(cpus=1)
        head.join(before=f"mount -t tmpfs none {own}")
        command = [sys.executable, "-c", DRIVER, head.address, str(own), str(common)]
        done = subprocess.run(command, env=head.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + head.log()
        first, second = done.stdout.splitlines()
        assert first.startswith(f"{own}: node ") and "does not see this folder" in first
        assert second == "shared"
        assert list(own.iterdir()) == list(common.iterdir()) == []
    finally:
        head.stop()
