"""What the functions of `gapwise.api` return: frozen, one readable line each, with tables as pandas frames.

The figures are those that the commands print with `--json`; nothing is computed here but the shape of a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from gapwise.errors import SpecError, nearest
from gapwise.spec.train import TrainSpec

if TYPE_CHECKING:
    from gapwise.tuning.reading import Study as Record
    from gapwise.tuning.result import Best, StudyResult

Conditions = dict[str, dict[str, dict[str, float]]]
"""{condition: {metric: {"mean": ..., "sd": ...}}}; a condition is a missing rate or a subset of modalities."""


class _Shown:
    """A notebook shows the line and the table."""

    __slots__ = ()

    def to_frame(self) -> pd.DataFrame:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return f"<p>{_escaped(repr(self))}</p>{self.to_frame().to_html()}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class TrainedModel(_Shown):
    """A training run that has ended; `evaluate` takes it as it is."""

    run_id: str
    """In MLflow, and for `evaluate`."""
    folder: Path
    """Model folder: weights and description."""
    spec: TrainSpec
    """As it was trained, `auto` decided."""
    epochs: int
    """Trained."""
    metrics: Mapping[str, Mapping[str, float]]
    """{metric: {condition: value}} of the kept epoch on validation, under one mask seed."""
    wall_seconds: float

    def __repr__(self) -> str:
        return (
            f"TrainedModel({self.spec.model.name}, run {self.run_id}, {self.epochs} epochs, {self.wall_seconds:.0f} s)"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a condition, one column a metric."""
        return pd.DataFrame({name: dict(curve) for name, curve in self.metrics.items()}).rename_axis("condition")


@dataclass(frozen=True, slots=True, repr=False)
class Study(_Shown):
    """A study as it stood when it was read: finished, or as far as it is."""

    record: "Record"
    """Everything that is on disk, trial by trial."""

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def state(self) -> Literal["running", "resumable", "finished"]:
        return self.record.state

    @property
    def trials(self) -> dict[str, int]:
        """Search trials by state."""
        from gapwise.tuning.account import line

        counted: dict[str, int] = line(self.record)["trials"]
        return counted

    @property
    def result(self) -> "StudyResult | None":
        """None until the study is finished."""
        return self.record.result

    def __repr__(self) -> str:
        counted = ", ".join(f"{count} {state}" for state, count in self.trials.items() if count) or "no trials yet"
        return f"Study({self.name!r}, {self.state}: {counted}; models {', '.join(self.record.space.arm_names())})"

    def to_frame(self) -> pd.DataFrame:
        """One row a trial of both phases: state, objective (lower is better), epochs, seconds, and every value."""
        from gapwise.tuning.account import trial_rows

        rows = [
            {key: value for key, value in row.items() if key != "values"} | row["values"]
            for row in trial_rows(self.record)
        ]
        return pd.DataFrame(rows).set_index("trial") if rows else pd.DataFrame()

    def leaders(self) -> pd.DataFrame:
        """One row a condition: the best configuration so far, its metric on validation, late_fusion and the floor."""
        from gapwise.tuning.leaders import leaders

        found = leaders(self.record)
        rows = {
            condition: _led("", best) | _led("late_fusion_", found.baseline.get(condition)) | {"floor": found.floor}
            for condition, best in (found.best or found.baseline).items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("condition")


def _led(prefix: str, best: "Best | None") -> dict[str, Any]:
    if best is None:
        return {}
    return {f"{prefix}trial": best.trial, f"{prefix}mean": best.mean, f"{prefix}sd": best.sd}


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Evaluation(_Shown):
    """A robustness grid with what stands beside it."""

    model: str
    """As it was asked for."""
    body: Mapping[str, Any]
    """What `gapwise evaluate --json` prints."""

    @property
    def conditions(self) -> Conditions:
        """Of the model."""
        found: Conditions = self.body.get("rates") or self.body["subsets"]
        return found

    def __repr__(self) -> str:
        body = self.body
        return (
            f"Evaluation({self.model!r} on {body['split']}, protocol {body['protocol']}, "
            f"{len(self.conditions)} conditions, {body['mask_seeds']} mask seeds)"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a condition and one for their mean; for each metric its mean over mask seeds, and METRIC_sd."""
        rows = {**self.conditions, "mean": self.body["mean"]}
        return pd.DataFrame.from_dict({key: _flat(row) for key, row in rows.items()}, orient="index").rename_axis(
            "condition"
        )

    def compared(self, metric: str) -> pd.DataFrame:
        """One row a condition: the model, late_fusion where one is known, the optima of synthetic data, the floor.

        Raises SpecError for a metric that was not measured.
        """
        if metric not in self.body["mean"]:
            known = list(self.body["mean"])
            raise SpecError(f"no metric {metric!r}{nearest(metric, known)}", where="metric", allowed=known)
        others = {"late_fusion": "baseline", "optimum": "optimum", "plug-in": "plugin_optimum"}
        columns = {"model": {key: row[metric]["mean"] for key, row in self.conditions.items()}} | {
            name: {key: row[metric]["mean"] for key, row in self.body[where]["conditions"].items()}
            for name, where in others.items()
            if self.body[where] is not None
        }
        return pd.DataFrame(columns).assign(floor=self.body["floor"][metric]).rename_axis("condition")


def _flat(row: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {
        f"{metric}{ending}": figure[part]
        for metric, figure in row.items()
        for ending, part in (("", "mean"), ("_sd", "sd"))
    }


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Promotion(_Shown):
    """What the gate decided at every rate."""

    report: Mapping[str, Any]
    """What `gapwise promote --json` prints: decisions, effects, intervals, reasons."""
    entry: int | None
    """Number of the ledger's entry; None for a dry run, and where there was nothing to decide."""
    held: bool
    """Whether every rate was held."""
    again: bool
    """Whether the very same was asked before, so that this is that answer and nothing was read or spent."""

    def __repr__(self) -> str:
        decided: dict[str, list[str]] = {}
        for row in self.report["decisions"]:
            decided.setdefault(row["decision"], []).append(row["rate"])
        said = "; ".join(f"{decision} at {', '.join(rates)}" for decision, rates in decided.items())
        entry = f"ledger entry {self.entry}" if self.entry is not None else "nothing registered"
        return f"Promotion({self.report['name']!r}, {said}; {entry})"

    def to_frame(self) -> pd.DataFrame:
        """One row a missing rate: decision, trial, version, rival, effect, interval, p and reasons."""
        return pd.DataFrame(self.report["decisions"]).set_index("rate")
