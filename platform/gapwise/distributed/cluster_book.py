"""Who is on a shared cluster, and whose turn it is: one small detached actor in Ray's namespace of this package.

Each driver says what it holds and wants, every few seconds and whenever it would start a trial; the rules are in
`sharing`. What a driver says replaces what it said before, so a lost call or a book that Ray restarted on another node
heals with the next. A driver that says nothing for a lease's length is gone, and its slots are others'. Ray still
places what is started: should the book be wrong for a moment, a trial waits in Ray, and never runs beside too many.

The actor costs one idle process; it stays when the last study leaves. A private cluster has none.
"""

import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import ray

from gapwise.distributed.cluster import NAMESPACE, resources
from gapwise.distributed.placement import Resources
from gapwise.distributed.sharing import Claim, Device, starters, why_it_waits

LEASE_SECONDS = 20.0
RENEW_SECONDS = 4.0
"""How often drivers renew."""
_ACTOR_NAME = "cluster book 1"
"""The number changes with the calls: two versions of this package do not talk to one another's book."""


_PATIENCE_SECONDS = 15.0

Call = Callable[[str, object], Any]
"""A method of the book by name, and what it is given. Raises Silent."""


class Silent(Exception):
    """The book does not answer: its node has gone, and Ray has not started it on another yet."""


class Want(NamedTuple):
    """What a driver says; see `Claim`."""

    study: str
    name: str
    priority: int
    wanted: int
    held: int
    size: Fraction
    device: Device


class Answer(NamedTuple):
    """What it hears."""

    starts: bool
    """Whether it may start the trial that it asked for; the book counts it as held from now on."""
    waits: str
    """Why it has to wait for what it wants, in a line; empty where it does not."""


class ClusterBook:
    """Claims and their leases; `capacity` is asked at every decision, because nodes come and go."""

    def __init__(self, capacity: Callable[[], Resources], clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity, self._clock = capacity, clock
        self._claims: dict[str, Claim] = {}
        self._heard: dict[str, float] = {}
        self._starts = 0

    def ask(self, want: Want) -> Answer:
        """May one more trial start?"""
        claim, claims, devices = self._take_down(want)
        if claim.study not in starters(claims, devices):
            return Answer(False, why_it_waits(claim, claims, devices))
        self._starts += 1
        self._claims[claim.study] = claim._replace(held=claim.held + 1, started=self._starts)
        return Answer(True, "")

    def tell(self, want: Want) -> Answer:
        """The same without starting anything: a renewal, or a trial that has ended."""
        claim, claims, devices = self._take_down(want)
        return Answer(False, why_it_waits(claim, claims, devices))

    def leave(self, study: str) -> None:
        """This driver is done."""
        self._claims.pop(study, None)
        self._heard.pop(study, None)

    def claims(self) -> list[Claim]:
        """Who is here."""
        self._forget_the_dead()
        return list(self._claims.values())

    def _take_down(self, want: Want) -> tuple[Claim, list[Claim], int]:
        """The claim, all that want the same devices, and how many of those there are."""
        before = self._claims.get(want.study)
        claim = Claim(*want, started=before.started if before else 0)
        self._claims[want.study], self._heard[want.study] = claim, self._clock()
        self._forget_the_dead()
        found = self._capacity()
        devices = found.gpus if want.device == "GPU" else found.cpus
        return claim, [one for one in self._claims.values() if one.device == want.device], devices

    def _forget_the_dead(self) -> None:
        for study in [one for one, heard in self._heard.items() if self._clock() - heard > LEASE_SECONDS]:
            self.leave(study)


class ClusterBookActor(ClusterBook):
    """The book of the cluster that it runs on."""

    def __init__(self) -> None:
        super().__init__(resources)


def reach() -> Call:
    """The cluster's one book, which is created where there is none. Raises Silent."""
    remote: Any = ray.remote(ClusterBookActor)
    kept = {"lifetime": "detached", "get_if_exists": True, "num_cpus": 0, "max_restarts": -1}
    try:
        book = remote.options(name=_ACTOR_NAME, namespace=NAMESPACE, **kept).remote()
    except (ray.exceptions.RayError, ValueError) as error:  # ValueError: the one of this name ended just now
        raise Silent(str(error)) from error

    def call(method: str, given: object) -> Any:
        try:
            return ray.get(getattr(book, method).remote(given), timeout=_PATIENCE_SECONDS)
        except ray.exceptions.RayError as error:
            raise Silent(str(error)) from error

    return call
