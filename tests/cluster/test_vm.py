"""The launcher files for VMs, held against Ray's own schema and validator and our rules: token, no open dashboard.

Nothing is faked and no cloud is asked: whether images, machine types and addresses exist is the team's business. Each
check is shown to refuse a spoiled file.
"""

import copy
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "cluster" / "vm").glob("*.yaml"))
Config = dict[str, Any]


def read(path: Path) -> Config:
    loaded: Config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def rays_complaint(config: Config) -> str:
    """What `ray up` would say before it asks the cloud for anything; empty where it is content."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except Exception as error:  # noqa: BLE001 - jsonschema's, ValueError, and what `cli_logger.abort` raises
        return f"{type(error).__name__}: {error}"
    return ""


def settings() -> dict[str, str]:
    """The environment that every node sources."""
    lines = (ROOT / "cluster" / "vm" / "gapwise.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def ours(config: Config) -> list[str]:
    """What Ray's schema does not know."""
    found = []
    head = next(line for line in config["head_start_ray_commands"] if "ray start" in line)
    worker = next(line for line in config["worker_start_ray_commands"] if "ray start" in line)
    words = shlex.split(head.split("ray start", 1)[1])
    if "--dashboard-host=127.0.0.1" not in words:
        found.append("the dashboard, which is the Jobs API, listens to others")
    if "--num-cpus=0" not in words:
        found.append("trials on the head")
    found += [f"no settings: {line}" for line in (head, worker) if "set -a; . ~/gapwise.env; set +a;" not in line]
    if not any("chmod 600 ~/.ray/auth_token" in line for line in config["setup_commands"]):
        found.append("the token's file may be read by others")
    mounted = config["file_mounts"]
    if mounted.get("~/.ray/auth_token") != "~/.ray/auth_token":
        found.append("nodes have no token")
    found += [f"not in the repository: {local}" for local in mounted.values() if not _is_known(local)]
    commands = [line for key, lines in config.items() if key.endswith("commands") for line in lines]
    return found + [problem for line in commands for problem in _of_a_command(line)]


def _of_a_command(line: str) -> list[str]:
    found = []
    if re.search(r"pip install[^;&]*\sgapwise(\s|$|\[|=)", line):
        found.append("a stranger's package")
    if "ray-wheels" in line or re.search(r"pip install[^;&]*\sray\b", line):
        found.append("another Ray than the wheel's")
    return found


def _is_known(local: str) -> bool:
    """A file of the person's own, what they build into dist/, or a file of the repository."""
    return local.startswith(("~/", "dist/")) or (ROOT / local).is_file()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestEachFile:
    def test_ray_itself_is_content_with_it(self, path):
        assert rays_complaint(read(path)) == ""

    def test_so_are_we(self, path):
        assert ours(read(path)) == []

    def test_it_fits_the_ray_that_the_wheel_brings(self, path):
        assert any("-c constraints.txt" in line for line in read(path)["setup_commands"])


def test_there_is_one_file_for_each_kind_of_machines():
    assert [path.stem for path in FILES] == ["aws", "gcp", "on-premise"]


def test_every_node_asks_for_the_token_and_reports_nothing_home():
    assert settings()["RAY_AUTH_MODE"] == "token"
    assert settings()["RAY_USAGE_STATS_ENABLED"] == "0"
    assert settings()["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert settings()["GAPWISE_HOME"].startswith("/")


SPOILED_FOR_RAY: dict[str, Callable[[Config], Any]] = {
    "a misspelt field": lambda c: c.update(max_worker=3),
    "a head type that is not there": lambda c: c.update(head_node_type="haed"),
    "a resource as a word": lambda c: c["available_node_types"]["gpu"].update(resources={"GPU": "one"}),
    "an unknown field of a node type": lambda c: c["available_node_types"]["gpu"].update(minimum=3),
    "no provider": lambda c: c.pop("provider"),
    "fewer workers than the least": lambda c: c.update(max_workers=0),
}


@pytest.mark.parametrize("spoil", SPOILED_FOR_RAY.values(), ids=SPOILED_FOR_RAY)
def test_ray_refuses(spoil):
    config = read(ROOT / "cluster" / "vm" / "aws.yaml")

    spoil(config)

    assert rays_complaint(config) != ""


def replaced(key: str, old: str, new: str) -> Callable[[Config], Any]:
    return lambda config: config.update({key: [line.replace(old, new) for line in config[key]]})


SPOILED_FOR_US: dict[str, Callable[[Config], Any]] = {
    "an open dashboard": replaced("head_start_ray_commands", "127.0.0.1", "0.0.0.0"),
    "trials on the head": replaced("head_start_ray_commands", "--num-cpus=0", ""),
    "workers without the token": replaced("worker_start_ray_commands", "set -a; . ~/gapwise.env; set +a;", ""),
    "a token for everybody": replaced("setup_commands", "chmod 600", "chmod 644"),
    "no token": lambda c: c["file_mounts"].pop("~/.ray/auth_token"),
    "a file that is not there": lambda c: c["file_mounts"].update({"~/x": "cluster/vm/nothing.env"}),
    "the stranger's gapwise": lambda c: c["setup_commands"].append("pip install -q gapwise"),
    "the newest Ray": lambda c: c["setup_commands"].append("pip install -U ray"),
}


@pytest.mark.parametrize("spoil", SPOILED_FOR_US.values(), ids=SPOILED_FOR_US)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_we_refuse(path, spoil):
    config = read(path)

    spoil(config)

    assert ours(config) != []
