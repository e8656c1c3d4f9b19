"""A team's own command after a champion changed: an executable `hooks/promotion` in the home of whoever decided.

It gets the ledger's entry as JSON on its standard input, and the registered name as its only argument. The decision
stands whatever it does; that it failed, or took longer than a minute, is said.
"""

import json
import logging
import subprocess

from gapwise.promotion.chain import Entry
from gapwise.promotion.standing import Deed, Standing, record
from gapwise.spec.home import Home
from gapwise.tracking.client import Tracking
from gapwise.tracking.ledger import keep_report

HOOK = "hooks/promotion"
_SECONDS = 60
_log = logging.getLogger(__name__)


def done(tracking: Tracking, home: Home, now: Standing, deed: Deed) -> Entry:
    """Record what a person decided, and announce it."""
    title = f"{now.ledger.last_number + 1:04d} {deed.action}"
    run_id = keep_report(tracking, home, now.name, title, [])
    entry = record(tracking, now, deed._replace(run_id=run_id))
    announce(home, now.name, entry)
    return entry


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
