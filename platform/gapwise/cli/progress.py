"""What a person sees of a running study: one live table on a terminal, a log line a finished run elsewhere."""

from rich.console import Console, Group, RenderableType
from rich.text import Text

from gapwise.cli.live import Screen, span
from gapwise.cli.output import figure, heading, stderr, table
from gapwise.spec.search import BASELINE, SearchSpec
from gapwise.tuning.events import Event
from gapwise.tuning.reading import trials_so_far
from gapwise.tuning.study import StudyPlan
from gapwise.tuning.tally import Counter, Tally

_STATES = {"complete": "done", "running": "running", "pruned": "pruned", "failed": "failed"}


class StudyDisplay:
    """Told of stages by the driver and of trials by the observer, each on a thread of its own."""

    def __init__(self, plan: StudyPlan, console: Console = stderr) -> None:
        self._plan = plan
        earlier = trials_so_far(plan.folder, plan.space, plan.storage)
        self._counter = Counter(plan.space, earlier, search_budget_seconds=plan.search_budget_seconds)
        self._screen = Screen(self._draw, console)
        self._waits, self._said = "", ""
        if plan.turns is not None:
            plan.turns.watchers.append(self)

    def __enter__(self) -> "StudyDisplay":
        self._screen.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.__exit__()

    def stage(self, name: str, total: int) -> None:
        self._counter.stage(name, total)
        self._screen.say(f"{name}: {total} runs")

    def done(self, what: str) -> None:
        self._counter.done()
        self._say_finished(what)

    def see(self, events: list[Event]) -> None:
        """Events of the study's book."""
        for event in events:
            self._counter.note(event)
            if event.kind == "finished":
                self._say_finished(_ending(event))

    def stands(self, wanted: int, held: int, waits: str) -> None:
        """Slots of a shared cluster; a log line only where there are none, for trials come and go all the time."""
        del wanted
        self._waits = waits
        if waits and not held and waits != self._said:
            self._said = waits
            self._screen.say(waits)
        if held:
            self._said = ""

    def _say_finished(self, what: str) -> None:
        self._screen.say(f"{self._counter.progress()}: {what}")

    def _draw(self) -> RenderableType:
        tally = self._counter.now()
        if not tally.stage:
            return Text(f"study {self._plan.name}")
        parts: list[RenderableType] = [Text(_headline(self._plan.name, tally), style="bold")]
        if self._waits:
            parts.append(Text(self._waits))
        if tally.stage != "refit":  # a refit is no trial of a model's
            parts.append(_arms(tally))
        if tally.leaders:
            parts.append(_leaders(self._plan.space, tally))
        return Group(*parts)


def _ending(event: Event) -> str:
    body = event.body
    value = f"objective {body['cost']:.4f}" if body["cost"] is not None else body["reason"]
    spent = f"epoch {body['best_epoch']}, {body['train_seconds']:.1f} s"
    return f"{event.assignment.key} {body['state']}, {value}, {spent}"


def _headline(name: str, tally: Tally) -> str:
    left = f", about {span(tally.seconds_left)} left in it" if tally.seconds_left else ""
    return (
        f"study {name}: {tally.stage} {tally.finished}/{tally.total} after {span(tally.seconds)}{left}; "
        f"{tally.epochs_saved} epochs saved by pruning"
    )


def _arms(tally: Tally) -> RenderableType:
    broken = any(arm.counts.get("infeasible") for arm in tally.arms.values())
    states = _STATES | ({"infeasible": "infeasible"} if broken else {})
    rows = [
        [
            name,
            *(str(arm.counts.get(state) or "-") for state in states),
            *(["-", "-"] if arm.best is None else [f"{arm.best[1]:.4f}", arm.best[0]]),
        ]
        for name, arm in tally.arms.items()
    ]
    return table(["model", *states.values(), "best objective", "trial"], rows, words=("trial",))


def _leaders(space: SearchSpec, tally: Tally) -> RenderableType:
    rows = [
        [
            condition,
            *(["-", "-"] if best is None else [figure(best.mean), f"{best.arm}-{best.source}"]),
            "-" if baseline is None else figure(baseline.mean),
        ]
        for condition, (best, baseline) in tally.leaders.items()
    ]
    metric = space.train.objective.metric
    columns = [heading(space.train.protocol.name), f"best {metric} so far", "trial", BASELINE]
    return table(columns, rows, words=("trial",))
