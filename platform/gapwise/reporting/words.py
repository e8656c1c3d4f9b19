"""How reports write figures: metrics with their unit and direction, numbers, names of parameters."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gapwise.evaluation.metrics import LOWER_IS_BETTER
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.train import ObjectiveSpec

_NAMES = {
    "mae": ("mean absolute error", "label units"),
    "corr": ("Pearson correlation", "no unit"),
    "acc2_non0": ("binary accuracy without zeros", "share of samples"),
    "acc2_has0": ("binary accuracy", "share of samples"),
    "acc7": ("7-class accuracy", "share of samples"),
    "acc5": ("5-class accuracy", "share of samples"),
    "accuracy": ("accuracy", "share of samples"),
    "macro_recall": ("macro recall", "mean share of each class"),
}
NONE = "-"
SPLITS = {"valid": "validation", "test": "test"}


def metric_label(metric: str) -> str:
    """ "mean absolute error (label units), lower is better"."""
    name, unit = _NAMES.get(metric, (metric, "0 to 1"))
    return f"{name} ({unit}), {'lower' if metric in LOWER_IS_BETTER else 'higher'} is better"


def axis_label(metric: str) -> str:
    """For a figure, in two lines: "mae" and "(label units, lower is better)"."""
    unit = _NAMES.get(metric, ("", "0 to 1"))[1]
    return f"{metric}\n({unit}, {'lower' if metric in LOWER_IS_BETTER else 'higher'} is better)"


def objective_label(objective: ObjectiveSpec) -> str:
    """ "objective: mean mae" and, in a second line, "(label units, lower is better)"."""
    if objective.rate is None:
        return f"objective: {objective.reduce} {axis_label(objective.metric)}"
    return f"objective at rate {objective.rate:g}: {axis_label(objective.metric)}"


def condition_label(protocol: ProtocolSpec) -> str:
    """What robustness is drawn against, with its unit."""
    if not protocol.has_rates:
        return "modalities present (subset)"
    kind = {"frames": "share of frames", "block": "share of frames, in one block"}.get(protocol.name, "share of cells")
    return f"missing rate ({kind})"


def number(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def spread(mean: float | None, sd: float | None) -> str:
    """ "1.234 ± 0.021", without the spread where there is none."""
    return number(mean) if mean is None or sd is None else f"{mean:.3f} ± {sd:.3f}"


def short(path: str) -> str:
    """A parameter as people say it: "tau_cross" for `model.tau_cross`."""
    return path.removeprefix("model.").removeprefix("optimiser.")


def value(given: Any) -> str:
    return f"{given:.4g}" if isinstance(given, float) else str(given)


def duration(seconds: float) -> str:
    """ "45 s", "12 min" or "3.4 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def now() -> str:
    """Local time to the minute, with its offset."""
    return datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")


_FLATTERED = "; who was chosen on this split, among many, looks better than it is: --split test is the fair question"


def evidence(body: Mapping[str, Any]) -> str:
    """What stands behind the figures, in a sentence."""
    masks = f"{body['mask_seeds']} mask seeds" if body["mask_seeds"] > 1 else "one mask"
    return (
        f"{SPLITS[body['split']]} split, {body['samples']} samples in {body['groups']} groups, {masks}; "
        f"intervals resample groups and masks, at the level that Holm's procedure leaves each of "
        f"{len(body['differences'])} differences (alpha {body['alpha']:g} in all); models as they ship, so noise "
        f"between training seeds is not in them{_FLATTERED if body['split'] == 'valid' else ''}"
    )


def signed(value: float | None) -> str:
    """ "+0.0123"."""
    return NONE if value is None else f"{value:+.4f}"


def interval_cell(row: Mapping[str, Any]) -> str:
    """ "+0.012 to +0.050"."""
    return NONE if row["interval"] is None else " to ".join(signed(end) for end in row["interval"])
