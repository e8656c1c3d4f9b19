"""A team's own command: it gets JSON on standard input; what it does changes nothing here, and failures are said."""

import json
import logging
import subprocess
from collections.abc import Sequence
from typing import Any

_SECONDS = 60
_log = logging.getLogger(__name__)


def run_hook(command: Sequence[str], told: dict[str, Any], *, stands: str) -> None:
    """Run it for at most a minute. `stands` ends a warning: what holds although the command failed."""
    try:
        ended = subprocess.run(
            list(command),
            input=json.dumps(told),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("%s: %s; %s", command[0], error, stands)
        return
    if ended.returncode:
        said = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
        last = f", {said[-1]}" if said else ""
        _log.warning("%s: exit code %d%s; %s", command[0], ended.returncode, last, stands)
