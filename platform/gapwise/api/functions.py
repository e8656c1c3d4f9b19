"""The functions of `gapwise.api`, in the order in which one uses them; each one's example goes on where the last ended.

Data are named by a folder or given as a `Dataset`, specs by a YAML file, a dict of the same keys, or a spec; `settings`
are what `--set` is on the command line: {"train.epochs": 3}. Studies and training need the extra `train`; the tests run
the examples as they stand.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gapwise.api.champion import Champion
from gapwise.api.values import Evaluation, Promotion, Study, TrainedModel
from gapwise.data import synth
from gapwise.data.source import snapshot
from gapwise.data.store import Dataset, open_dataset
from gapwise.errors import SpecError
from gapwise.spec.base import Spec
from gapwise.spec.gate import GateSpec
from gapwise.spec.home import home
from gapwise.spec.loader import read_mapping, set_path, validate
from gapwise.spec.search import SearchSpec
from gapwise.spec.train import TrainSpec
from gapwise.tracking.client import connect
from gapwise.tracking.router import Router

if TYPE_CHECKING:
    from gapwise.tuning.events import Event
    from gapwise.tuning.study import StudyPlan
    from gapwise.verbs.tune import Audience

AnySpec = TypeVar("AnySpec", bound=Spec)
Data = Dataset | Path | str
Settings = Mapping[str, Any]
Written = Path | str | Mapping[str, Any]
"""A YAML file, or what would stand in it."""


def synthesise(folder: Path | str, *, preset: str = "small", seed: int = 0, size: str = "") -> Dataset:
    """A synthetic dataset in a new folder, whose best possible predictions are known; `gapwise data synth`.

    Raises DataError for an unknown preset or size, and for a folder that is not empty.

    >>> import gapwise
    >>> gapwise.synthesise("data/small")
    Dataset('synthetic-small', regression -3 to 3; train 400, valid 150, test 150; audio 12x6, text 8x16, vision 10x8)
    """
    synth.synthesise(preset, Path(folder), seed, size)
    return open_dataset(folder)


def load_dataset(place: Path | str) -> Dataset:
    """A dataset, every byte held against its fingerprint. A URI (s3://, gs://, ...) is copied into the home first.

    Its `train` and `valid` are splits; `valid.to_frame()` are labels and frames, in the form in which a champion takes
    rows. `test(reason)` is logged. Raises DataError.

    >>> import gapwise
    >>> data = gapwise.load_dataset("data/small")
    >>> data.to_frame()[["samples", "groups", "audio", "text"]]
           samples  groups  audio  text
    split
    train      400      80    400   400
    valid      150      30    150   150
    test       150      30    150   150
    >>> data.valid.to_frame().columns.tolist()
    ['group', 'label', 'audio', 'text', 'vision']
    """
    if "://" in str(place):
        return open_dataset(snapshot(str(place), home().root / "snapshots" / "loaded"))
    return open_dataset(place, verify=True)


def tune(
    space: Written | SearchSpec,
    data: Data,
    *,
    study: str = "",
    trials: int | None = None,
    settings: Settings | None = None,
    warm_start: Sequence[str] = (),
    concurrency: int | None = None,
    search_seconds: float | None = None,
    resume: bool = False,
    retry_failed: bool = False,
    storage: str = "journal",
    address: str | None = None,
    priority: int = 0,
    report: bool = True,
    quiet: bool = False,
) -> Study:
    """Search every model of the space and late_fusion, repeat the best over seeds, refit the winners: `gapwise tune`.

    `study` is the study's name, by default that of the file and the dataset. No search trial starts later than
    `search_seconds` after the first. The `report` goes into MLflow when the study is done. Unless `quiet`, stderr says
    what happens. Interrupting the kernel once keeps a checkpoint of every run; `resume=True` goes on from there. Only
    in a process's main thread.

    Raises SpecError, DataError and StudyError before anything runs.

    >>> import gapwise
    >>> space = {
    ...     "question": "Does PRLF's reliability help on this data?",
    ...     "trials": 1,
    ...     "common": {"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2},
    ...     "train": {"epochs": 2, "patience": 0, "protocol": {"rates": [0.0, 0.5]}},
    ...     "arms": {"prlf": {"parameters": {"model.tau_rel": {"role": "searched", "low": 0.1, "high": 2.0}}}},
    ...     "second_phase": {"top_k": 1, "seeds": 2, "cap": 1, "mask_seeds": 2},
    ... }
    >>> gapwise.tune(space, "data/small", study="first", quiet=True)
    Study('first', finished: 2 complete; models prlf, late_fusion)
    """
    from gapwise.tuning.storage import checked_storage
    from gapwise.verbs.tune import Wish, add_report, conduct

    began = time.perf_counter()
    changes = dict(settings or {}) | ({"trials": trials} if trials is not None else {})
    changes |= {"warm_start.studies": list(warm_start)} if warm_start else {}
    folder = _folder(data)
    name = study or _name_of(space, folder)
    wish = Wish(
        name=name,
        space=_spec(SearchSpec, space, changes),
        data=folder,
        command=_command(space, folder, name),
        concurrency=concurrency,
        storage=checked_storage(storage),
        address=address,
        priority=priority,
        began=began,
        search_budget_seconds=search_seconds,
        resume=resume,
        retry_failed=retry_failed,
    )
    audience = _audience(quiet)
    ended = conduct(wish, audience)
    if report:
        add_report(ended, audience.say)
    return load_study(name)


def load_study(name: str) -> Study:
    """A study as it stands on disk, finished or not; one that runs is not disturbed. Raises StudyError.

    >>> import gapwise
    >>> study = gapwise.load_study("first")
    >>> study.to_frame()[["phase", "state"]]
                            phase     state
    trial
    prlf-0                 search  complete
    late_fusion-0          search  complete
    prlf-0-seed1            seeds  complete
    prlf-0-seed2            seeds  complete
    late_fusion-0-seed1     seeds  complete
    late_fusion-0-seed2     seeds  complete
    >>> study.leaders().index.tolist()
    ['0.0', '0.5']
    """
    from gapwise.tuning.reading import read_study

    return Study(read_study(home().studies, name))


def promote(
    studies: str | Study | Sequence[str | Study],
    *,
    name: str,
    data: Data | None = None,
    gate: Written | GateSpec | None = None,
    approval: bool = False,
    dry_run: bool = False,
) -> Promotion:
    """Put the best model of every missing rate before the gate: `gapwise promote`.

    Unless `dry_run`, this reads the test split, which is logged, and moves the aliases of those that pass. Raises
    GateError, RegistryError, StudyError and SpecError; nothing has moved then.

    >>> import gapwise
    >>> promotion = gapwise.promote("first", name="small")
    >>> promotion.held, promotion.entry, promotion.to_frame().index.tolist()
    (False, 1, ['0.0', '0.5'])
    """
    from gapwise.verbs.promote import PromoteWish
    from gapwise.verbs.promote import promote as decide

    asking = [studies] if isinstance(studies, str | Study) else list(studies)
    wish = PromoteWish(
        studies=tuple(one.name if isinstance(one, Study) else one for one in asking),
        name=name,
        data=None if data is None else _folder(data),
        gate=_spec(GateSpec, {} if gate is None else gate, {}),
        approval=approval,
        dry_run=dry_run,
    )
    decided = decide(wish)
    entry = decided.entry.sequence if decided.entry is not None else None
    return Promotion(report=decided.report, entry=entry, held=decided.held, again=decided.again)


def load_champion(name: str, *, rate: float | None = None) -> Champion:
    """The champions of a registered name, to answer in this process; `gapwise predict`.

    `rate` is the missing rate that all rows are taken to have; without it each row's is estimated. What rows look like
    is said at `Champion.predict`. Raises RegistryError for an unknown name, SpecError for what is no rate.

    >>> import gapwise, numpy as np
    >>> champion = gapwise.load_champion("small", rate=0.5)
    >>> champion.modalities
    {'audio': (12, 6), 'text': (8, 16), 'vision': (10, 8)}
    >>> text = np.random.default_rng(0).standard_normal((3, 8, 16))
    >>> text[1, 4:] = np.nan  # frames that are missing; all of a sample's would be a missing modality
    >>> champion.predict({"text": text})["missing_rate"].tolist()
    [0.5, 0.5, 0.5]
    >>> rows = gapwise.load_dataset("data/small").valid.to_frame()
    >>> champion.predict(rows[["text", "audio"]]).index.equals(rows.index)
    True
    """
    if rate is not None and not 0.0 <= rate <= 1.0:
        raise SpecError(f"not a missing rate: {rate!r}", where="rate", allowed="0 to 1, or None for each row's own")
    router = Router(connect(home()), name)
    router.champions()
    return Champion(rate=rate, router=router)


def evaluate(
    model: str | TrainedModel,
    data: Data,
    *,
    protocol: str | None = None,
    rates: Sequence[float] | None = None,
    mask_seeds: int = 20,
    split: str = "valid",
    baseline: str | None = None,
    diagnostics: bool = False,
) -> Evaluation:
    """Score a model at every missing rate, or on every subset of modalities: `gapwise evaluate`.

    `model` is a run's id, a model folder, models:/NAME@ALIAS, or what `train` returned. Reading `test` is logged with
    the dataset. Raises CheckpointError, RegistryError, DataError and SpecError.

    >>> import gapwise
    >>> evaluation = gapwise.evaluate("models:/small@champion-mr50", "data/small", mask_seeds=3)
    >>> evaluation
    Evaluation('models:/small@champion-mr50' on valid, protocol frames, 2 conditions, 3 mask seeds)
    >>> evaluation.compared("mae").columns.tolist()
    ['model', 'late_fusion', 'optimum', 'plug-in', 'floor']
    """
    from gapwise.verbs.evaluate import EvaluateWish
    from gapwise.verbs.evaluate import evaluate as judged

    asked = model.run_id if isinstance(model, TrainedModel) else model
    wish = EvaluateWish(
        model=asked,
        data=_folder(data),
        protocol=protocol,
        rates=None if rates is None else tuple(rates),
        mask_seeds=mask_seeds,
        split=split,
        baseline=baseline,
        diagnostics=diagnostics,
    )
    return Evaluation(model=asked, body=judged(wish).body)


def train(
    spec: Written | TrainSpec,
    data: Data,
    *,
    settings: Settings | None = None,
    workers: int | tuple[int, int] = 1,
    resume: str | None = None,
    address: str | None = None,
    each_epoch: Callable[[dict[str, Any]], object] | None = None,
) -> TrainedModel:
    """One training run through Ray Train; validation chooses the epoch: `gapwise train`.

    `workers` may be (fewest, most); `resume` is the id of a run that stopped. `each_epoch` is told each epoch's
    figures. Raises SpecError, DataError and CheckpointError before anything runs, and `training.job.Diverged`.

    >>> import gapwise
    >>> spec = {"model": {"name": "late_fusion", "width": 16, "heads": 2, "depth": 1}, "epochs": 2}
    >>> model = gapwise.train(spec, "data/small", settings={"protocol.rates": [0.0, 0.5]})
    >>> model.to_frame()[["mae"]].index.tolist()
    ['0.0', '0.5']
    >>> gapwise.evaluate(model, "data/small", mask_seeds=2).to_frame().index.tolist()
    ['0.0', '0.5', 'mean']
    """
    from gapwise.verbs.train import TrainWish
    from gapwise.verbs.train import train as run

    asked = _spec(TrainSpec, spec, settings or {})
    wish = TrainWish(spec=asked, data=_folder(data), workers=workers, resume=resume, address=address)
    done = run(wish, lambda _: each_epoch or _ignore)
    return TrainedModel(
        run_id=done.run_id,
        folder=done.folder,
        spec=done.model.spec,
        epochs=done.model.trained["epochs"],
        metrics=done.model.validation,
        wall_seconds=done.wall_seconds,
    )


def _folder(data: Data) -> Path:
    return (data.folder if isinstance(data, Dataset) else Path(data)).absolute()


def _spec(kind: type[AnySpec], written: Written | AnySpec, settings: Settings) -> AnySpec:
    """A spec with `settings` applied before it is checked. Raises SpecError as the loader does."""
    if isinstance(written, Spec):
        fields, where = written.model_dump(mode="json"), kind.__name__
    elif isinstance(written, Mapping):
        fields, where = copy.deepcopy(dict(written)), kind.__name__
    else:
        fields, where = read_mapping(Path(written)), str(written)
    for path, value in settings.items():
        set_path(fields, path, value)
    return validate(kind, fields, where=where)


def _name_of(space: Written | SearchSpec, folder: Path) -> str:
    if not isinstance(space, Path | str):
        raise SpecError("a space that is no file has no name", where="study", allowed='study="..."')
    return f"{Path(space).stem}-{open_dataset(folder).manifest.name}"


def _command(space: Written | SearchSpec, folder: Path, name: str) -> tuple[str, ...]:
    """What one would type to go on; nothing where there is no file to name."""
    return (str(space), "--data", str(folder), "--study", name) if isinstance(space, Path | str) else ()


def _audience(quiet: bool) -> "Audience":
    from gapwise.cli.output import say
    from gapwise.cli.progress import StudyDisplay
    from gapwise.verbs.tune import Audience

    if quiet:
        return Audience(_ignore, Unseen)
    return Audience(say, StudyDisplay)


def _ignore(what: object) -> None:
    del what


class Unseen:
    """A display that nobody looks at."""

    def __init__(self, plan: "StudyPlan") -> None:
        del plan

    def __enter__(self) -> "Unseen":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def stage(self, name: str, total: int) -> None: ...

    def done(self, what: str) -> None: ...

    def see(self, events: "list[Event]") -> None: ...
