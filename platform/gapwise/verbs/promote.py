"""Winners of studies before the gate, for whoever asks: `gapwise promote` or `gapwise.promote`."""

from dataclasses import dataclass
from pathlib import Path

from gapwise.data.store import open_dataset
from gapwise.promotion.asked import Asked
from gapwise.promotion.promote import Decided
from gapwise.promotion.promote import promote as decide
from gapwise.spec.gate import GateSpec
from gapwise.spec.home import home
from gapwise.tracking.client import connect
from gapwise.tracking.registry import refuse_reserved
from gapwise.tuning.result import load_result


@dataclass(frozen=True, kw_only=True, slots=True)
class PromoteWish:
    """Which studies ask for which name, and what decides."""

    studies: tuple[str, ...]
    name: str
    data: Path | None
    """Dataset whose test split decides; None: the first study's."""
    gate: GateSpec
    approval: bool
    dry_run: bool


def promote(wish: PromoteWish) -> Decided:
    """Decide every rate. Raises what `promotion.promote` does, and StudyError for a study that is not finished."""
    refuse_reserved(wish.name, "--name")
    results = [load_result(home().studies, study) for study in wish.studies]
    dataset = open_dataset(wish.data or results[0].data)
    asked = Asked(wish.name, results, dataset, wish.gate, dry_run=wish.dry_run, approval=wish.approval)
    return decide(connect(home()), home(), asked)
