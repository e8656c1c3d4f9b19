"""What may leave the disk. Decided here from values alone; `removal` does it.

A running study is not touched, and an unfinished one keeps all that it needs to go on: only what Ray left behind, which
nothing here reads again, is free. A finished study keeps its journal and result, and the models that ship: those that
an alias of the registry names, and those of the top K winners of each rate among studies judged on the same
validation data, with their study's baselines. Champions serve from the registry's own copies, which are not touched.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from gapwise.evaluation.objective import as_cost
from gapwise.spec.fingerprint import canonical
from gapwise.tuning.reading import Study
from gapwise.tuning.result import Best, StudyResult

Model = tuple[str, str]
"""A shipped model, by study and trial."""
Kind = Literal["Ray's folders", "checkpoint", "refit leftover", "model", "deleted study"]


class Item(NamedTuple):
    """A folder or file that may go."""

    study: str
    kind: Kind
    path: Path
    bytes: int
    changed: float
    """Newest change of anything in it, seconds since the epoch."""


def kept_models(results: Sequence[StudyResult], aliased: Iterable[Model], top: int) -> set[Model]:
    """The shipped models to keep; a rate's winners are ranked by their mean over the refit's fresh seeds."""
    places: dict[tuple[bytes, str], list[tuple[float, Model]]] = {}
    for result in results:
        for rate, best in _winners(result).items():
            mean = result.model(best.trial).over_seeds[best.metric][rate].mean
            cost = as_cost(best.metric, mean)
            places.setdefault((_ground(result), rate), []).append((cost, (result.study, best.trial)))
    first = {model for ranked in places.values() for _, model in sorted(ranked)[:top]}
    beside = {
        (result.study, best.trial)
        for result in results
        if result.study in {study for study, _ in first}
        for best in result.baseline.values()
    }
    return {*aliased} | first | beside


def _winners(result: StudyResult) -> dict[str, Best]:
    return result.best or result.baseline


def _ground(result: StudyResult) -> bytes:
    """What figures must share to be compared."""
    protocol = result.protocol.model_dump(mode="json", exclude={"rates", "incomplete_share"})
    return canonical([result.fingerprints["valid"], result.objective.metric, protocol])


def free_paths(study: Study, kept: Collection[Model]) -> Iterator[tuple[Kind, Path]]:
    """What a study may lose."""
    folder = study.folder
    if study.driver is not None:
        return
    for place in (folder / "tune", folder / "train", folder / "refit" / "ray"):
        if place.exists():
            yield "Ray's folders", place
    if study.result is None:
        return
    yield from (("checkpoint", place) for place in folder.glob("trials/*"))
    shipped = {folder / model.folder for model in study.result.models if (study.name, model.trial) in kept}
    for place in chain(folder.glob("refit/*/seed-*"), folder.glob("refit/*/.seed-*")):
        if place.is_dir() and place not in shipped:
            yield ("model" if place.suffix == "" else "refit leftover"), place


def until_under(items: Iterable[Item], used: int, quota: int) -> list[Item]:
    """The oldest, until what is left is within the quota."""
    chosen = []
    for item in sorted(items, key=lambda one: (one.changed, one.path)):
        if used <= quota:
            break
        chosen.append(item)
        used -= item.bytes
    return chosen
