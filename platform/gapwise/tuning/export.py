"""A study in one file for other tools (JSON, CSV), or as a short summary that is good for committing.

The summary has one line a trial, figures rounded as people quote them, and nothing of this machine.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

from gapwise.errors import SpecError
from gapwise.spec.base import without_nan
from gapwise.spec.search import SearchSpec
from gapwise.tuning.account import stage, trial_row, whole
from gapwise.tuning.files import write_whole
from gapwise.tuning.reading import Study, TrialRecord
from gapwise.tuning.result import FrontMember

FORMAT_VERSION = 1
_FORMATS = ".json or .csv"


def export(study: Study, file: Path, *, summary: bool) -> None:
    """Write the file, whole or not at all. Raises SpecError for an ending or a place that does not do."""
    text = _text(study, file.suffix, summary=summary)
    try:
        write_whole(file, text)
    except OSError as error:
        raise SpecError(f"cannot be written: {error.strerror}", where=f"--out {file}") from error


def _text(study: Study, ending: str, *, summary: bool) -> str:
    if ending == ".json":
        return (_summary_text(study) if summary else _json(_everything(study))) + "\n"
    if ending == ".csv" and not summary:
        return _csv(study)
    allowed = ".json with --summary" if summary else _FORMATS
    raise SpecError(f"cannot export to {ending or 'a file without an ending'!r}", where="--out", allowed=allowed)


def _json(body: Any, indent: int | None = 1) -> str:
    return json.dumps(without_nan(body), indent=indent, allow_nan=False)


def _everything(study: Study) -> dict[str, Any]:
    """All that is known."""
    return {
        "format_version": FORMAT_VERSION,
        **whole(study),
        "trials": [
            trial_row(study.space, one) | {"objective_by_epoch": one.costs, "metrics": one.outcome.metrics}
            for one in study.trials
        ],
        "result": None if study.result is None else study.result.model_dump(mode="json"),
    }


def _csv(study: Study) -> str:
    """A line a trial: columns `value:PATH` for what was tried and `METRIC@CONDITION` for its curves.

    Where there are any, `objectives:NAME` and `constraints:NAME`.
    """
    rows = [_flat(study.space, one) for one in study.trials]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(space: SearchSpec, one: TrialRecord) -> dict[str, Any]:
    row = trial_row(space, one)
    values = {f"value:{path}": value for path, value in row.pop("values").items()}
    goals = {
        f"{kind}:{name}": value for kind in ("objectives", "constraints") for name, value in row.pop(kind, {}).items()
    }
    curves = {
        f"{metric}@{condition}": value
        for metric, curve in one.outcome.metrics.items()
        for condition, value in curve.items()
    }
    return row | goals | values | curves


def _summary_text(study: Study) -> str:
    """JSON with a line for each trial and each winner."""
    head = _head(study)
    lines = [f" {_json(key)}: {_json(value, indent=None)}" for key, value in head.items()]
    lines += [f" {_json(key)}: {_by_line(rows)}" for key, rows in _tables(study).items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _head(study: Study) -> dict[str, Any]:
    space = study.space
    return {
        "format_version": FORMAT_VERSION,
        "study": study.name,
        "question": space.question,
        "dataset": study.dataset if study.result is None else study.result.dataset,
        "data_fingerprint": study.data_fingerprint,
        "selected_on": "validation",
        "objective": f"{space.train.objective.reduce} {study.metric}, protocol {space.train.protocol.name}",
        "mask_seeds": {"search": 1, "second phase": space.second_phase.mask_seeds},
        "stage": stage(study),
    }


def _tables(study: Study) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Trials by arm, and once the study is finished its winners by condition with the baseline's beside."""
    arms = study.space.arm_names()
    tables = {
        "search": {
            arm: [_searched(study.space, one) for one in study.of("search") if one.assignment.arm == arm]
            for arm in arms
        },
        "second_phase": {
            arm: [_repeated(study.space, one) for one in study.of("seeds") if one.assignment.arm == arm] for arm in arms
        },
    }
    if study.result is not None:
        chosen = {"best": study.result.best, "baseline": study.result.baseline}
        tables["winners"] = {
            name: [{"condition": condition, **_short(best.model_dump())} for condition, best in rows.items()]
            for name, rows in chosen.items()
        }
        if study.space.objectives:
            fronts = {"front": study.result.front, "baseline_front": study.result.baseline_front}
            tables["pareto_front"] = {name: [_of_front(one) for one in members] for name, members in fronts.items()}
    return tables


def _of_front(one: FrontMember) -> dict[str, Any]:
    figures = {name: value.mean for name, value in one.objectives.items()}
    spreads = {f"{name} sd": value.sd for name, value in one.objectives.items()}
    return {"trial": one.trial, **_short(figures | spreads), "seeds": one.seeds}


def _searched(space: SearchSpec, one: TrialRecord) -> dict[str, Any]:
    row = trial_row(space, one)
    goals = _short(row.get("objectives", {}) | row.get("constraints", {}))
    ending = {**_ending(row), **goals, "epochs": row["epochs"], **_remarks(row)}
    return {"trial": row["number"], **ending, **_short(row["values"])}


def _repeated(space: SearchSpec, one: TrialRecord) -> dict[str, Any]:
    row = trial_row(space, one)
    return {
        "trial": row["source"],
        "seed": row["seed"],
        **_ending(row),
        **_short(row.get("objectives", {})),
        "best_epoch": row["best_epoch"],
        **_remarks(row),
    }


def _ending(row: dict[str, Any]) -> dict[str, Any]:
    return {"state": row["state"], **_short({"objective": row["objective"]})}


def _remarks(row: dict[str, Any]) -> dict[str, Any]:
    """What is unusual about it."""
    return {name: row[name] for name in ("reason", "micro_batch", "objective_changed") if row[name]}


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers to four digits that count."""
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}


def _by_line(table: dict[str, list[dict[str, Any]]]) -> str:
    parts = []
    for name, rows in table.items():
        inside = ",\n".join(f"   {_json(row, indent=None)}" for row in rows)
        parts.append(f"  {_json(name)}: [\n{inside}\n  ]" if rows else f"  {_json(name)}: []")
    return "{\n" + ",\n".join(parts) + "\n }"
