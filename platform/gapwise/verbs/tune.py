"""A study from the wish to its end, for whoever asks: `gapwise tune`, `gapwise.tune` or a schedule's tick.

It refuses all that can be refused before the study exists, and shows nothing by itself: who watches is handed in.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from gapwise.data.store import Dataset, open_dataset
from gapwise.distributed.cluster import connected
from gapwise.distributed.lock import DriverLock
from gapwise.distributed.placement import place
from gapwise.distributed.shared import refuse_unshared
from gapwise.distributed.turns import Turns
from gapwise.errors import RegistryError
from gapwise.reporting.log import attach_report, log_result
from gapwise.spec.home import home
from gapwise.spec.search import SearchSpec
from gapwise.tracking.client import Tracking, connect
from gapwise.tracking.study_run import StudyName, StudyRun
from gapwise.tuning.delivery import Delivery
from gapwise.tuning.events import Event
from gapwise.tuning.executor import needs_of
from gapwise.tuning.logbook import Logbook
from gapwise.tuning.memory import check_shared_memory
from gapwise.tuning.observer import Watcher
from gapwise.tuning.opening import Asked, check_study, open_study, settled_space
from gapwise.tuning.pack_size import check_pack
from gapwise.tuning.pausing import Pause
from gapwise.tuning.record import recorded_study
from gapwise.tuning.result import StudyResult
from gapwise.tuning.study import Stages, StudyPlan, run_study

Act = Callable[[StudyPlan, Stages, list[Watcher], str], StudyResult]


class Display(Stages, Protocol):
    """Told of a study's stages and of its trials."""

    def see(self, events: list[Event]) -> None: ...


class Audience(NamedTuple):
    """Who hears of a study under way."""

    say: Callable[[str], None]
    """One line, such as the study's question."""
    display: Callable[[StudyPlan], AbstractContextManager[Display]]
    """Made when the study begins, left when it ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """A study as somebody asked for it, by hand or by schedule."""

    name: str
    space: SearchSpec
    data: Path
    command: tuple[str, ...] = ()
    """What `gapwise tune` was given, for the line that says how to go on."""
    concurrency: int | None
    storage: str
    """As `checked_storage` returned it."""
    address: str | None
    priority: int = 0
    """Among studies on a cluster."""
    began: float
    """On `time.perf_counter`'s clock."""
    search_budget_seconds: float | None = None
    resume: bool = False
    retry_failed: bool = False


class Ended(NamedTuple):
    """A study, finished."""

    result: StudyResult
    told: bool
    """Whether MLflow has taken all of it; if not, one line has said so."""


def add_report(ended: Ended, say: Callable[[str], None]) -> None:
    """The study's page and figures into MLflow, from this process; a failure, and an interrupt, is one line.

    Not where the server takes nothing: it has been waited for already, and `--resume` comes by here again.
    """
    if not ended.told:
        return
    try:
        said = attach_report(connect(home()), home(), ended.result)
    except RegistryError as error:
        said = f"no report in MLflow: {error}"
    except KeyboardInterrupt:
        said = f"no report in MLflow: interrupted; `gapwise report {ended.result.study}` writes it"
    if said:
        say(said)


def conduct(wish: Wish, audience: Audience, act: Act = run_study) -> Ended:
    """Check all that can be refused, connect, and run the study to its end, watched and told to MLflow.

    `act` is what runs it; by default a search. Raises what the commands that take a study's options raise.
    """
    dataset = open_dataset(wish.data, verify=True)
    space = settled_space(wish.space, dataset)
    asked = Asked(wish.name, space, dataset, wish.storage, wish.command)
    study_folder = home().studies / wish.name
    check_study(study_folder, asked, resume=wish.resume)
    tracking = connect(home())
    with connected(wish.address) as found:
        refuse_unshared(home().root, [wish.data])
        placement = place(found, needs_of(space), wish.concurrency)
        if 0.0 < placement.share.gpus < 1.0:
            check_shared_memory(space, str(wish.data))
        if not found.gpus:  # on a GPU the workers find out: memory is theirs alone
            check_pack(space, str(wish.data), placement.at_once)
        # All that can be refused has been: from here on the study exists.
        open_study(study_folder, asked, resume=wish.resume)
        audience.say(f"study {wish.name}: {space.question}")
        plan = StudyPlan(
            name=wish.name,
            space=space,
            data=wish.data,
            fingerprint=dataset.manifest.fingerprint,
            folder=study_folder,
            concurrency=placement.at_once,
            grows=wish.concurrency is None,
            began=wish.began,
            search_budget_seconds=wish.search_budget_seconds,
            pause=Pause(audience.say),
            storage=asked.storage,
            retry_failed=wish.retry_failed,
        )
        if wish.address and wish.address != "local":
            plan = replace(plan, turns=Turns(plan.book, wish.name, wish.priority))
        with DriverLock(plan.folder):
            run = _told_to(tracking, plan, dataset, resume=wish.resume)
            return _carried_out(act, plan, run, audience)


def _told_to(tracking: Tracking, plan: StudyPlan, dataset: Dataset, *, resume: bool) -> StudyRun:
    study = StudyName(plan.name, recorded_study(plan.folder).get("id"))
    return StudyRun.begin(tracking, home(), study, plan.space, dataset, resume=resume)


def _carried_out(act: Act, plan: StudyPlan, run: StudyRun, audience: Audience) -> Ended:
    """The study from here to its end."""
    logbook = Logbook(run, plan.space.train.objective.metric)
    with Delivery(plan.record.events, logbook) as delivery, audience.display(plan) as display:
        result = act(plan, display, [display], run.run_id)
        delivery.afterwards(lambda: log_result(run, result))
    return Ended(result, delivery.all_taken)
