"""`gapwise retrain`: a schedule's ticks, from cron, a Kubernetes CronJob or `serve`."""

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gapwise.cli.options import AddressOption
from gapwise.cli.output import JsonOption, print_json, print_table, say, stdout
from gapwise.cli.promote import HELD
from gapwise.spec.home import home
from gapwise.spec.loader import load_spec
from gapwise.spec.schedule import ScheduleSpec

if TYPE_CHECKING:
    from gapwise.retraining.cron import Cron
    from gapwise.retraining.log import Entry, State
    from gapwise.retraining.tick import Ticked
    from gapwise.tracking.client import Tracking

app = typer.Typer(
    help="Train again on a schedule: ticks, a loop that calls them, and their record.", no_args_is_help=True
)
ScheduleArgument = Annotated[
    Path, typer.Argument(metavar="SCHEDULE.yaml", help="A schedule; see README, Training again.")
]
GIVEN_UP = 1
"""Exit code of a tick of which no attempt is left."""
_LOOK_SECONDS, _BETWEEN_TICKS_SECONDS = 30.0, 300.0


class _Opened:
    """A schedule with its record."""

    def __init__(self, file: Path) -> None:
        from gapwise.retraining.cron import checked
        from gapwise.tracking.client import connect
        from gapwise.tracking.registry import refuse_reserved
        from gapwise.tracking.schedule_log import ScheduleLog

        self.spec: ScheduleSpec = load_spec(ScheduleSpec, file)
        self.cron: Cron = checked(self.spec.cron, self.spec.time_zone, str(file))
        refuse_reserved(self.spec.name, f"{file}: name")
        self.tracking: Tracking = connect(home())
        self.log: ScheduleLog = ScheduleLog(self.tracking, home(), self.spec.name)


@app.command(epilog="Example, every five minutes from cron:  `gapwise retrain tick mosi.yaml --json`")
def tick(
    file: ScheduleArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Train now, due or not, changed or not; what is running is left alone.")
    ] = False,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do what is due, if anything is: any number of machines may call this as often as they like."""
    from gapwise.cli.scheduled_work import RealWork
    from gapwise.retraining import here
    from gapwise.retraining.tick import Desk
    from gapwise.retraining.tick import tick as act

    opened = _Opened(file)
    began = time.perf_counter()
    desk = Desk(
        schedule=opened.spec,
        cron=opened.cron,
        store=opened.log,
        work=RealWork(opened.spec, file, opened.tracking, home(), address),
        owner=here.owner(),
        now=lambda: datetime.now(UTC),
        lives=here.lives,
    )
    done = act(desk, force=force)
    body = _body(opened.spec.name, done, time.perf_counter() - began)
    print_json(body) if as_json else _show(done)
    if done.outcome in ("held", "given up"):
        raise typer.Exit(HELD if done.outcome == "held" else GIVEN_UP)


def _body(name: str, done: "Ticked", seconds: float) -> dict[str, Any]:
    return {
        "schedule": name,
        "due": done.tick is not None,
        "action": done.action,
        "reason": done.reason,
        "record": done.record,
        "tick": None if done.tick is None else done.tick.isoformat(),
        "attempt": done.attempt,
        "outcome": done.outcome,
        "study": done.facts.get("study"),
        "entry": done.facts.get("entry"),
        "seconds": round(seconds, 3),
    }


def _show(done: "Ticked") -> None:
    if done.tick is None:
        stdout.print(f"wait: {done.reason}", soft_wrap=True, markup=False)
        return
    head = f"{done.action} ({done.outcome}): {done.reason}"
    stdout.print(head, soft_wrap=True, markup=False)
    study = f", study {done.facts['study']}" if "study" in done.facts else ""
    stdout.print(f"tick of {done.tick:%Y-%m-%d %H:%M} UTC, record {done.record}{study}", soft_wrap=True, markup=False)


@app.command(epilog="Example:  `gapwise retrain history mosi.yaml --last 10`")
def history(
    file: ScheduleArgument,
    last: Annotated[int, typer.Option(help="Newest entries to show; 0 for all.", min=0)] = 30,
    as_json: JsonOption = False,
) -> None:
    """The record: every due tick with what came of it, and what is running."""
    from gapwise.retraining.log import fold
    from gapwise.retraining.policy import without_success

    opened = _Opened(file)
    state, now = fold(opened.log.read()), datetime.now(UTC)
    shown = [one for one in state.entries if one.kind != "renew"]
    shown = shown[-last:] if last else shown
    behind = without_success(state, now, opened.cron, opened.spec.alert_after)
    upcoming = opened.cron.next(now)
    if as_json:
        print_json(
            {
                "schedule": opened.spec.name,
                "entries": [_entry(one) for one in shown],
                "running": None if state.running is None else state.running.owner.who,
                "next": upcoming.isoformat(),
                "ticks_without_success": behind,
                "healthy": behind < opened.spec.alert_after if state.entries else None,
            }
        )
        return
    _show_history(opened.spec, shown, state)
    late = "" if behind < opened.spec.alert_after else f"; no success in the last {behind} ticks or more"
    stdout.print(f"next: {upcoming:%Y-%m-%d %H:%M} UTC{late}", soft_wrap=True)


def _entry(one: "Entry") -> dict[str, Any]:
    found = one.model_dump(mode="json", exclude={"format_version", "owner", "expires", "facts"})
    facts = {key: value for key, value in one.facts.items() if key != "space"}
    return {**found, "who": one.owner.who, "facts": facts}


def _show_history(spec: ScheduleSpec, shown: "list[Entry]", state: "State") -> None:
    rows = [
        [
            str(one.sequence),
            f"{one.time:%Y-%m-%d %H:%M}",
            f"{one.tick:%Y-%m-%d %H:%M}",
            str(one.attempt or "-"),
            one.outcome or one.kind,
            one.reason,
        ]
        for one in shown
    ]
    columns = ["entry", "written (UTC)", "tick (UTC)", "attempt", "what", "reason"]
    print_table(f"schedule of {spec.name}", columns, rows, words=("what", "reason"))
    if state.running is not None:
        over = " (over: the next tick takes it over)" if state.running.expires < datetime.now(UTC) else ""
        stdout.print(
            f"running: attempt {state.running.number} by {state.running.owner.who},"
            f" lease until {state.running.expires:%Y-%m-%d %H:%M} UTC{over}",
            soft_wrap=True,
        )


@app.command(epilog="Example:  `gapwise retrain serve mosi.yaml`")
def serve(file: ScheduleArgument, address: AddressOption = None) -> None:
    """Call ticks when they are due, until stopped; each in a process of its own, so none takes the loop down."""
    opened = _Opened(file)
    command = [sys.executable, "-m", "gapwise", "retrain", "tick", str(file)]
    if address:
        command += ["--address", address]
    loop = Loop(opened.cron, command)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, loop.stop)
    say(f"schedule of {opened.spec.name}: next tick {opened.cron.next(datetime.now(UTC)):%Y-%m-%d %H:%M} UTC")
    loop.run()


class Loop:
    """Calls a tick when one is due, and every few minutes besides: others die, and their ticks are taken over.

    It looks at the clock now and then instead of sleeping long: clocks jump, and machines are suspended.
    """

    def __init__(self, cron: "Cron", command: list[str]) -> None:
        self._cron, self._command = cron, command
        self._stopped = False
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Until `stop`; a tick that runs then comes to its end before."""
        seen, again_at = None, 0.0
        while not self._stopped:
            latest = self._cron.latest(datetime.now(UTC))
            if latest != seen or time.monotonic() >= again_at:
                self._tick()
                seen, again_at = latest, time.monotonic() + _BETWEEN_TICKS_SECONDS
            else:
                time.sleep(min(_LOOK_SECONDS, self._left()))

    def _left(self) -> float:
        now = datetime.now(UTC)
        return max(0.05, (self._cron.next(now) - now).total_seconds())

    def _tick(self) -> None:
        # A session of its own: Ctrl-C at a terminal reaches it once, through `stop`.
        self._child = subprocess.Popen(self._command, start_new_session=True)
        self._child.wait()
        self._child = None

    def stop(self, number: int, frame: FrameType | None) -> None:
        """A running tick is told as Ctrl-C tells it: it keeps a checkpoint, and the next one goes on from there."""
        del frame
        self._stopped = True
        if self._child is None:
            raise KeyboardInterrupt(number)
        self._child.send_signal(signal.SIGINT)
