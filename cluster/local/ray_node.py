"""`ray start`, told that this machine's address is 127.0.0.1, so that nothing of the node listens anywhere else.

On Linux `ray start --node-ip-address 127.0.0.1` takes the machine's outer address instead, and its servers then listen
on all addresses. Ray has a switch for machines without such an address (its tests on Windows and macOS), but with it
`ray start` refuses a second node. So this one function is replaced here, for this command alone; drivers need only the
switch, which team.env and the environment of submitted jobs have. Nothing else of Ray is touched.
"""

import os
import sys

LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def loopback(_address: str | None = None) -> str:
    return "127.0.0.1"


def main() -> int:
    from ray._private import services
    from ray.scripts.scripts import main as ray

    services.get_node_ip_address = loopback
    os.environ.update(LOOPBACK_ONLY)  # after Ray was imported: for the processes that this node starts
    return int(ray() or 0)


if __name__ == "__main__":
    sys.exit(main())
