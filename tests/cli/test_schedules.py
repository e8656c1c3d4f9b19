"""`gapwise retrain` with what people get wrong: one line, exit code 2, and no record of it. Ray is never reached."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
GOOD = {"name": "m", "cron": "'0 3 * * 1'", "time_zone": "Europe/Berlin", "data": "data"}


def write(**changed: str) -> Path:
    file = Path("schedule.yaml")
    file.write_text("".join(f"{key}: {value}\n" for key, value in {**GOOD, **changed}.items()))
    return file


@pytest.mark.parametrize("verb", ["tick", "history", "serve"])
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cron": "'0 0 30 2 *'"}, "schedule.yaml: cron: '0 0 30 2 *'"),
        ({"cron": "'0 0 31 4,6 *'"}, "cron: '0 0 31 4,6 *'"),
        ({"cron": "'@weekly'"}, "'@weekly' needs five fields"),
        ({"cron": "'61 * * * *'"}, "bad minute"),
        ({"time_zone": "Mars/Olympus"}, "time_zone: unknown time zone 'Mars/Olympus'"),
        ({"time_zone": "Berlin"}, "allowed: Europe/Berlin"),
        ({"triggers": "{new_dota: true}"}, "triggers.new_dota: unknown key 'new_dota'; did you mean 'new_data'?"),
        ({"mode": "{kind: study}"}, "required key 'space' is missing"),
        ({"mode": "{kind: guess}"}, "unknown name 'guess'"),
        ({"name": "m-schedule"}, "is the name of a ledger, a router or a schedule"),
        ({"gate": "{margin: -1}"}, "gate.margin"),
        ({"data": "''"}, "must not be empty"),
        ({"storage": "mysql://x"}, "storage: must be journal, sqlite:///FILE or postgresql://"),
    ],
)
def test_a_schedule_that_cannot_be_is_one_line(call: Call, verb: str, changed: dict[str, str], said: str) -> None:
    answer = call("retrain", verb, write(**changed))

    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert said in answer.err, answer.err


def test_a_schedule_without_its_data_fails_with_a_record_and_names_them(call: Call) -> None:
    answer = call("retrain", "tick", write(), "--json")

    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert "no dataset.json here" in answer.err
    told = json.loads(call("retrain", "history", "schedule.yaml", "--json").out)
    assert [(one["kind"], one["outcome"], one["attempt"]) for one in told["entries"]] == [("end", "failed", 1)]
    assert told["running"] is None


def test_a_schedule_of_a_name_without_champions_says_what_to_do(call: Call, small: Path) -> None:
    answer = call("retrain", "tick", write(data=str(small)))

    assert answer.code == 2
    assert "there are no champions to train again (allowed: a name that a study was promoted to, or mode:" in answer.err


def test_a_space_file_that_is_missing_is_named(call: Call, small: Path) -> None:
    answer = call("retrain", "tick", write(data=str(small), mode="{kind: study, space: nowhere.yaml}"))

    assert answer.code == 2
    assert "nowhere.yaml: cannot be read" in answer.err


def test_a_metric_that_the_gate_does_not_know_is_refused_before_anything_is_trained(call: Call, small: Path) -> None:
    answer = call("retrain", "tick", write(data=str(small), gate="{also: {nonsense: 0.1}}"))

    assert answer.code == 2
    assert "the gate cannot weigh 'nonsense'" in answer.err


def test_history_of_a_schedule_that_never_ran_is_empty_and_says_when_it_will(call: Call) -> None:
    answer = call("retrain", "history", write())

    assert answer.code == 0
    assert "next: " in answer.out
