"""What all tests share: the synthetic `small` dataset, one Ray cluster, started on first use, and studies on disk."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gapwise.data.synth import synthesise


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell starts what runs in the background with Ctrl-C ignored, and whom we start inherits that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "small"
    synthesise("small", folder, 0)
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Four logical CPUs whatever the machine has, so that a trial and its Ray Train workers fit side by side."""
    from gapwise.distributed.cluster import connected

    with connected(cpus=4):
        yield


RATES = ("0.0", "0.5")
STUDY_SPACE = {
    "question": "which?",
    "arms": {"prlf": {"parameters": {"optimiser.lr": {"role": "nuisance", "low": 0.0001, "high": 0.01, "log": True}}}},
    "train": {"epochs": 4, "protocol": {"rates": [0.0, 0.5]}},
    "trials": 4,
    "baseline_share": 0.5,
    "pruner": {"name": "none"},
    "second_phase": {"top_k": 1, "seeds": 2, "cap": 1, "mask_seeds": 2},
}
WriteStudy = Callable[..., Path]


@pytest.fixture
def write_study(small: Path) -> WriteStudy:
    """`write_study(studies, name, until="second phase", data=folder, shift=0.1)`: a study as a driver leaves it.

    The journal is the book's own; training and refits are not run. Trials of prlf: 0 complete (objective 1.0), 1 pruned
    after 2 of 4 epochs, 2 failed, 3 complete (0.8); of late_fusion: 0 and 1 complete (1.2). `until` is where the driver
    died: in the search (prlf-3 running after one epoch), in the second phase (its second run running, two waiting), in
    the refit; or it is finished. `shift` is added to every figure; other keywords replace keys of the space.
    """

    def write(
        studies: Path, name: str, *, until: str = "finished", data: Path = small, shift: float = 0.0, **changes: Any
    ) -> Path:
        from gapwise.data.store import open_dataset
        from gapwise.spec.search import SearchSpec
        from gapwise.tuning.book import StudyBook
        from gapwise.tuning.opening import Asked, open_study, settled_space

        dataset = open_dataset(data)
        space = settled_space(SearchSpec.model_validate(STUDY_SPACE | changes), dataset)
        open_study(studies / name, Asked(name, space, dataset), resume=False)
        book = StudyBook(space, studies / name / "journal.log")
        if _search(book, shift, cut=until == "search") and _repeat(book, shift, cut=until == "second phase"):
            _refit(studies / name, cut=until == "refit")
            if until == "finished":
                _finish(studies / name, space, dataset, shift)
        return studies / name

    return write


def _search(book: Any, shift: float, *, cut: bool) -> bool:
    from gapwise.tuning.assignment import failure

    while (one := book.next_search()) is not None:
        key, cost = one.key, {"prlf-0": 1.0, "prlf-1": 1.5, "prlf-3": 0.8}.get(one.key, 1.2) + shift
        for epoch in range(1, 5 if key != "prlf-1" else 3):
            book.report(one, epoch, cost + 0.1 * (4 - epoch), {})
            if cut and key == "prlf-3":
                return False
        ending = failure("NaN: the loss is nan") if key == "prlf-2" else _outcome(cost, pruned=key == "prlf-1")
        book.finish(one, ending)
    return True


def _outcome(cost: float, *, pruned: bool = False) -> Any:
    from gapwise.tuning.assignment import Outcome

    curve = {rate: cost + float(rate) for rate in RATES}
    return Outcome("pruned" if pruned else "complete", cost, 2 if pruned else 4, {"mae": curve}, 2.5)


def _repeat(book: Any, shift: float, *, cut: bool) -> bool:
    from gapwise.tuning.arm import Repeat

    winners = {("prlf", 3): 0.9, ("late_fusion", 0): 1.1}
    chosen = {(one.assignment.arm, one.assignment.number): one.assignment.values for one in book.finished("search")}
    book.plan_repeats([Repeat(*key, chosen[key], seed) for key in winners for seed in (1, 2)])
    while (one := book.next_repeat()) is not None:
        if cut and one.seed == 2:
            return False
        book.finish(one, _outcome(winners[one.arm, one.source] + shift))
    return True


def _refit(folder: Path, *, cut: bool) -> None:
    """What Ray, trials and refits leave, as files of 1000 bytes each: the names are real, the contents are not."""
    left = ["tune/search/state.json", "refit/ray/attempt-1/marker", "trials/prlf-2/resume.safetensors"]
    left += [f"refit/{trial}/seed-{seed}/model.json" for trial in ("prlf-3", "late_fusion-0") for seed in (1001, 1002)]
    left += ["refit/late_fusion-0/seed-1002.run/resume.safetensors"] if cut else ["refit/prlf-3/seed-1003.failed"]
    for name in left:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(1000))


def _finish(folder: Path, space: Any, dataset: Any, shift: float) -> None:
    from gapwise.tuning.result import Best, RefitModel, Spread, StudyResult, save_result

    def best(trial: str, mean: float) -> dict[str, Best]:
        return {
            rate: Best(trial=trial, metric="mae", mean=mean + shift + float(rate), sd=0.01, seeds=2) for rate in RATES
        }

    def model(trial: str, mean: float) -> RefitModel:
        return RefitModel(
            trial=trial,
            arm=trial.rsplit("-", 1)[0],
            values={},
            spec_fingerprint=f"spec of {trial}",
            epochs=4,
            seeds=[1001, 1002],
            shipped_seed=1001,
            folder=f"refit/{trial}/seed-1001",
            over_seeds={"mae": {rate: Spread(mean=mean + shift + float(rate), sd=0.01) for rate in RATES}},
            shipped={},
        )

    result = StudyResult(
        study=folder.name,
        question=space.question,
        task="regression",
        dataset=dataset.manifest.name,
        data=str(dataset.folder),
        fingerprints=dataset.fingerprints(),
        spec_fingerprint="s",
        protocol=space.train.protocol,
        objective=space.train.objective,
        mask_seeds=2,
        trials={"complete": 4, "pruned": 1, "failed": 1, "running": 0},
        arms={},
        wall_seconds=1.0,
        search_seconds=1.0,
        train_seconds=1.0,
        best=best("prlf-3", 0.9),
        baseline=best("late_fusion-0", 1.1),
        floor={"mae": 1.4},
        models=[model("prlf-3", 0.95), model("late_fusion-0", 1.15)],
        parent_run_id="run",
    )
    save_result(folder, result)
