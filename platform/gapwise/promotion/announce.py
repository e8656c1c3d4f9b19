"""A team's own command after a champion changed: an executable `hooks/promotion` in the home of whoever decided.

It gets the ledger's entry as JSON on its standard input, and the registered name as its only argument. The decision
stands whatever it does; that it failed, or took longer than a minute, is said.
"""

from gapwise.promotion.chain import Entry
from gapwise.promotion.hook import run_hook
from gapwise.promotion.standing import Deed, Standing, record
from gapwise.spec.home import Home
from gapwise.tracking.client import Tracking
from gapwise.tracking.ledger import keep_report

HOOK = "hooks/promotion"


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
    told = {"name": name, "digest": entry.digest, **entry.model_dump(mode="json")}
    run_hook([str(hook), name], told, stands="the decision stands")
