"""A team's own command after a champion changed: an executable `hooks/promotion` in the home of whoever decided.

It gets the ledger's entry as JSON on its standard input, and the registered name as its only argument. The decision
stands whatever it does; that it failed, or took longer than a minute, is said.
"""

import json
import logging
import subprocess

from gapwise.promotion.chain import Entry
from gapwise.spec.home import Home

HOOK = "hooks/promotion"
_SECONDS = 60
_log = logging.getLogger(__name__)


def announce(home: Home, name: str, entry: Entry) -> None:
    """Run the hook, where there is one, for an entry by which champions changed."""
    hook = home.root / HOOK
    if not entry.moves or not hook.exists():
        return
    told = json.dumps({"name": name, "digest": entry.digest, **entry.model_dump(mode="json")})
    try:
        ended = subprocess.run(
            [str(hook), name], input=told, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("%s: %s; the decision stands", hook, error)
        return
    if ended.returncode:
        said = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
        _log.warning("%s: exit code %d%s; the decision stands", hook, ended.returncode, f", {said[-1]}" if said else "")
