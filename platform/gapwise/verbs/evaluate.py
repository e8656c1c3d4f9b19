"""A trained model's robustness grid, for whoever asks: `gapwise evaluate` or `gapwise.evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gapwise.data.store import open_dataset
from gapwise.data.truth import truth_if_any
from gapwise.promotion.judge import baseline_of, diagnose, judge, refuse_other_shape
from gapwise.spec.home import home
from gapwise.spec.loader import validate
from gapwise.spec.protocol import ProtocolSpec
from gapwise.tracking.client import connect
from gapwise.tracking.locate import locate


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateWish:
    """What is to be judged, on what, and how."""

    model: str
    """A run's id, a model folder, runs:/ID or models:/NAME@ALIAS."""
    data: Path
    protocol: str | None
    """None: the model's own."""
    rates: tuple[float, ...] | None
    """None: the model's grid, or the protocol's."""
    mask_seeds: int
    split: str
    baseline: str | None
    """None: the registered name's `baseline` alias."""
    diagnostics: bool


class Judged(NamedTuple):
    """`body` is what `gapwise evaluate --json` prints."""

    kind: str
    """Name of the model, as in a spec."""
    body: dict[str, Any]


def evaluate(wish: EvaluateWish) -> Judged:
    """Judge a model. Raises what `locate` and `judge` do; a read of the test split is logged with the dataset."""
    dataset = open_dataset(wish.data, verify=True)
    tracking = connect(home())
    found = locate(tracking, wish.model)
    spec = _protocol(found.spec.protocol, wish.protocol, wish.rates)
    beside = locate(tracking, wish.baseline) if wish.baseline else baseline_of(tracking, wish.model)
    refuse_other_shape(found, dataset)
    chosen = dataset.split(wish.split, reason=f"evaluate {wish.model}")
    if wish.diagnostics:
        truth_if_any(chosen)  # one that cannot be read is said before the work, not after it
    body = judge(found, beside, dataset, spec, split=chosen, mask_seeds=wish.mask_seeds)
    if wish.diagnostics:
        body["diagnostics"] = diagnose(found, dataset, spec, split=chosen, mask_seeds=wish.mask_seeds)._asdict()
    return Judged(found.spec.model.name, body)


def _protocol(own: ProtocolSpec, name: str | None, chosen: tuple[float, ...] | None) -> ProtocolSpec:
    changed: dict[str, Any] = own.model_dump()
    if name is not None:
        changed["name"] = name
        if (name == "random_rate") != (own.name == "random_rate"):
            del changed["rates"]  # a share of cells is another scale than a share of frames: the protocol's own grid
    if chosen is not None:
        changed["rates"] = chosen
    return validate(ProtocolSpec, changed, where="--protocol and --rates")
