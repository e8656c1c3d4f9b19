"""A study that waits for its turn, as Tune sees it, and as people see it. Tune itself runs in `test_sharing_on_ray`.

Faked: Ray, by a study's book that is called directly; other studies, by claims on the cluster's book.
"""

import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import ray

from gapwise.distributed.cluster_book import ClusterBook, Want
from gapwise.distributed.lock import DriverLock
from gapwise.distributed.placement import Needs, Node, Resources, Share
from gapwise.distributed.turns import Turns
from gapwise.spec.search import SearchSpec
from gapwise.testing.handle import Handle
from gapwise.tuning.account import whole
from gapwise.tuning.assignment import failure
from gapwise.tuning.book import StudyBook
from gapwise.tuning.executor import PhaseRun
from gapwise.tuning.reading import read_study
from gapwise.tuning.sharing_search import SharingSearcher, slot
from gapwise.tuning.standing import on_the_cluster, read_standing
from gapwise.tuning.trial import Place

MakeSpace = Callable[..., SearchSpec]


class Scene:
    """One study that wants two trials at once on a cluster of two cores, and others' claims."""

    def __init__(self, space: SearchSpec, folder: Path) -> None:
        self.cluster = ClusterBook(lambda: Resources((Node(2),)), lambda: 0.0)
        self.book = StudyBook(space, folder / "journal.log")
        self.turns = Turns("mine", "mine", 0, lambda: lambda method, given: getattr(self.cluster, method)(given))
        run = PhaseRun("search", "book", Place(space, "data", str(folder)), concurrency=2)
        self.searcher = SharingSearcher(Handle(self.book), run, Share(1, 0.0), self.turns)

    def other(self, *, wanted: int, held: int = 0, priority: int = 0) -> None:
        self.cluster.tell(Want("other", "other", priority, wanted, held, Fraction(1), "CPU"))

    def held(self) -> int:
        return next(one.held for one in self.cluster.claims() if one.name == "mine")

    def end(self, trial: str) -> None:
        self.book.finish(self.searcher._running[trial], failure("it is a test"))
        self.searcher.on_trial_complete(trial)


@pytest.fixture
def scene(make_space: MakeSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    return Scene(make_space(trials=3, baseline_share=0.4), tmp_path)


def test_alone_it_starts_what_it_wants_and_ends_when_its_book_has_no_more(scene: Scene) -> None:
    for trial in ("a", "b"):
        assert "assignment" in scene.searcher.suggest(trial)
    assert scene.held() == 2
    scene.end("a")
    assert "assignment" in scene.searcher.suggest("c")
    for before, trial in (("b", "d"), ("c", "e")):
        scene.end(before)
        assert "assignment" in scene.searcher.suggest(trial)
    scene.end("d")
    assert scene.searcher.suggest("f") == "FINISHED"
    assert scene.searcher.over
    assert scene.held() == 1
    scene.end("e")
    assert scene.held() == 0


def test_a_trial_that_ends_while_a_higher_priority_waits_gives_its_slot_away(scene: Scene) -> None:
    scene.searcher.suggest("a")
    scene.searcher.suggest("b")
    scene.other(wanted=1, priority=5)
    assert scene.searcher.may_start(), "with all that it wants running there is nothing to give way with"
    scene.end("a")
    assert not scene.searcher.may_start(), "Tune hears that it is over, and frees the actor"
    assert scene.searcher.suggest("c") is None
    assert not scene.searcher.over
    scene.other(wanted=0)
    scene.end("b")
    assert scene.searcher.may_start()


def test_a_study_with_nothing_to_run_does_not_wait_for_a_slot_to_say_so(scene: Scene) -> None:
    scene.other(wanted=2, held=2, priority=5)
    assert not scene.searcher.may_start()
    scene.book.pause()
    scene.turns.hold(0)
    assert scene.searcher.may_start()
    assert scene.searcher.suggest("a") == "FINISHED"
    assert scene.held() == 0


def test_a_worker_that_died_for_good_gives_its_slot_back(scene: Scene) -> None:
    scene.searcher.suggest("a")
    scene.searcher.on_trial_complete("a", error=True)
    assert scene.held() == 1, "Tune may start it again"
    scene.searcher.given_up("a", "it died")
    assert scene.held() == 0


def test_tune_may_keep_a_copy_that_holds_nothing(scene: Scene) -> None:
    assert len(pickle.dumps(scene.searcher)) < 200


@pytest.mark.parametrize(
    ("needs", "share", "devices"),
    [
        (Needs(), Share(1, 0.0), (Fraction(1), "CPU")),
        (Needs(workers=3), Share(1, 0.0), (Fraction(3), "CPU")),
        (Needs(), Share(8, 1.0), (Fraction(1), "GPU")),
        (Needs(trials_per_device=3), Share(2, 1 / 3), (Fraction(1, 3), "GPU")),
    ],
)
def test_a_trial_takes_devices_not_cores_where_there_are_gpus(needs: Needs, share: Share, devices: object) -> None:
    assert slot(needs, share) == devices


def test_who_looks_at_a_study_reads_how_it_stands_while_a_driver_shares(
    scene: Scene, write_study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "studies", "one", until="search")
    scene.other(wanted=2, held=2, priority=5)
    with DriverLock(folder), on_the_cluster(scene.turns, folder):
        assert whole(read_study(tmp_path / "studies", "one"))["sharing"] is None
        scene.searcher.may_start()
        assert whole(read_study(tmp_path / "studies", "one"))["sharing"] == {
            "priority": 0,
            "wanted": 2,
            "held": 0,
            "waits": "waiting for 2 slots: study other (priority 5) is first",
        }
    assert read_standing(folder) is None


def test_what_a_killed_driver_left_is_not_believed(write_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_study(tmp_path, "one", until="search")
    (folder / "sharing").write_text('{"priority": 0, "wanted": 2, "held": 0, "waits": "waiting"}')
    assert whole(read_study(tmp_path, "one"))["sharing"] is None
    with DriverLock(folder), on_the_cluster(None, folder):
        assert whole(read_study(tmp_path, "one"))["sharing"] is None
