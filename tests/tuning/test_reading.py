"""Reading studies while they may be written: journals of the real book, drivers that are real other processes.

Faked: training (see `write_study`).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gapwise.distributed.lock import DriverLock, driver_of
from gapwise.errors import SpecError, StudyError
from gapwise.spec.search import SearchSpec
from gapwise.tuning.assignment import Outcome, failure
from gapwise.tuning.book import StudyBook
from gapwise.tuning.reading import Study, read_studies, read_study, trials_so_far

WriteStudy = Callable[..., Path]
MakeSpace = Callable[..., SearchSpec]

WRITER = """
import sys
from pathlib import Path
with Path(sys.argv[1]).open("ab") as journal:
    for line in sys.stdin.buffer:
        half = len(line) // 2
        journal.write(line[:half])
        journal.flush()
        print("half", flush=True)
        sys.stdin.buffer.readline()
        journal.write(line[half:])
        journal.flush()
        print("whole", flush=True)
"""
HOLDER = """
import sys
from pathlib import Path
from gapwise.distributed.lock import DriverLock
with DriverLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def process(script: str, place: Path) -> Iterator["subprocess.Popen[str]"]:
    made = subprocess.Popen(
        [sys.executable, "-c", script, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with made:
        yield made
        made.kill()


def heard(one: "subprocess.Popen[str]") -> str:
    assert one.stdout is not None
    return one.stdout.readline().strip()


def told(one: "subprocess.Popen[str]", line: str) -> str:
    assert one.stdin is not None
    one.stdin.write(line)
    one.stdin.flush()
    return heard(one)


def states(study: Study) -> dict[str, str]:
    return {one.assignment.key: one.outcome.state for one in study.trials}


def test_every_trial_is_read_with_its_state_objective_epochs_and_reason(
    write_study: WriteStudy, tmp_path: Path
) -> None:
    write_study(tmp_path, "one")
    found = {one.assignment.key: one for one in read_study(tmp_path, "one").trials}
    assert list(found) == [
        *("prlf-0", "prlf-1", "prlf-2", "prlf-3", "late_fusion-0", "late_fusion-1"),
        *("prlf-3-seed1", "prlf-3-seed2", "late_fusion-0-seed1", "late_fusion-0-seed2"),
    ]
    pruned, failed, repeat = found["prlf-1"], found["prlf-2"], found["prlf-3-seed1"]
    assert (pruned.outcome.state, pruned.outcome.cost, pruned.epochs) == ("pruned", 1.5, 2)
    assert (failed.outcome.state, failed.outcome.reason) == ("failed", "NaN: the loss is nan")
    assert (repeat.outcome.state, repeat.outcome.cost, repeat.epochs) == ("complete", 0.9, None)
    assert repeat.assignment.source == 3


@pytest.mark.parametrize(
    ("until", "state", "waiting"),
    [("search", "resumable", 0), ("second phase", "resumable", 2), ("refit", "resumable", 0), ("finished",) * 2 + (0,)],
)
def test_a_study_without_a_driver_is_resumable_until_it_is_finished(
    write_study: WriteStudy, tmp_path: Path, until: str, state: str, waiting: int
) -> None:
    write_study(tmp_path, "one", until=until)
    study = read_study(tmp_path, "one")
    assert (study.state, study.waiting) == (state, waiting)


def test_a_running_trial_shows_its_best_epoch_so_far(write_study: WriteStudy, tmp_path: Path) -> None:
    folder = write_study(tmp_path, "one", until="search")
    book = StudyBook(read_study(tmp_path, "one").space, folder / "journal.log")
    adopted = book.next_search()
    assert adopted is not None and adopted.key == "prlf-3"
    for epoch, cost in ((2, 0.7), (3, 0.9)):
        book.report(adopted, epoch, cost, {})
    (running,) = [one for one in read_study(tmp_path, "one").trials if one.outcome.state == "running"]
    assert (running.assignment.key, running.outcome.cost, running.outcome.best_epoch) == ("prlf-3", 0.7, 2)
    assert running.epochs == 3


def test_a_finished_study_that_grew_is_resumable_until_its_result_counts_the_new_trials(
    write_study: WriteStudy, tmp_path: Path
) -> None:
    folder = write_study(tmp_path, "one")
    before = read_study(tmp_path, "one")
    book = StudyBook(before.space.model_copy(update={"trials": 5, "baseline_share": 0.4}), folder / "journal.log")
    new = book.next_search()
    assert new is not None
    assert (before.state, read_study(tmp_path, "one").state) == ("finished", "resumable")
    book.finish(new, failure("crash"))
    after = read_study(tmp_path, "one")
    assert (after.state, after.result) == ("resumable", None)


def test_a_failure_that_was_tried_again_with_success_leaves_no_result_behind_that_does_not_know_it(
    write_study: WriteStudy, tmp_path: Path
) -> None:
    folder = write_study(tmp_path, "one")
    before = read_study(tmp_path, "one")
    book = StudyBook(before.space, folder / "journal.log", retry_failed=True)
    again = book.next_search()
    assert again is not None
    book.finish(again, Outcome("complete", 0.5, 1, {}, 1.0))
    assert (before.state, read_study(tmp_path, "one").state) == ("finished", "resumable")


def test_a_driver_s_lock_makes_it_running_and_reading_leaves_the_lock_with_it(
    write_study: WriteStudy, tmp_path: Path
) -> None:
    folder = write_study(tmp_path, "one", until="search")
    assert driver_of(folder) is None
    with process(HOLDER, folder) as driver:
        assert heard(driver) == "held"
        study = read_study(tmp_path, "one")
        assert study.state == "running"
        assert study.driver is not None and f"process {driver.pid} since" in study.driver
        with pytest.raises(StudyError, match="another driver is running this"):
            DriverLock(folder).__enter__()
    assert read_study(tmp_path, "one").state == "resumable"


def test_a_driver_that_starts_while_somebody_looks_waits_the_moment_out(
    write_study: WriteStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look is stretched until the driver has asked once in vain."""
    import fcntl

    folder = write_study(tmp_path, "one", until="search")
    (folder / "driver.lock").touch()
    with (folder / "driver.lock").open() as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        monkeypatch.setattr("gapwise.distributed.lock.time.sleep", lambda _: fcntl.flock(look, fcntl.LOCK_UN))
        with DriverLock(folder):
            assert "process" in (folder / "driver.lock").read_text()


def test_reading_changes_no_byte_and_leaves_no_file(write_study: WriteStudy, tmp_path: Path) -> None:
    folder = write_study(tmp_path, "one", until="second phase")

    def look() -> dict[str, tuple[bytes, int]]:
        files = (file for file in folder.rglob("*") if file.is_file())
        return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}

    before = look()
    read_study(tmp_path, "one")
    assert look() == before


def test_a_line_that_is_being_written_is_not_seen_until_it_is_whole(write_study: WriteStudy, tmp_path: Path) -> None:
    folder = write_study(tmp_path, "one")
    journal = folder / "journal.log"
    *lines, last = journal.read_text().splitlines(keepends=True)
    assert '"state"' in last, "the second phase's last run ends"
    journal.write_text("".join(lines))
    with process(WRITER, journal) as writer:
        assert told(writer, last) == "half"
        torn = journal.read_bytes()
        assert states(read_study(tmp_path, "one"))["late_fusion-0-seed2"] == "running"
        assert journal.read_bytes() == torn, "a reader repairs nothing"
        assert told(writer, "go on\n") == "whole"
        assert states(read_study(tmp_path, "one"))["late_fusion-0-seed2"] == "complete"


def test_a_journal_cut_after_any_byte_can_be_read(write_study: WriteStudy, tmp_path: Path) -> None:
    folder = write_study(tmp_path, "one", until="search")
    whole = (folder / "journal.log").read_bytes()
    for length in range(0, len(whole), 97):
        (folder / "journal.log").write_bytes(whole[:length])
        read_study(tmp_path, "one")


def test_a_journal_damaged_before_its_end_is_named_with_its_line(write_study: WriteStudy, tmp_path: Path) -> None:
    folder = write_study(tmp_path, "one")
    lines = (folder / "journal.log").read_bytes().split(b"\n")
    lines[4] = lines[4][:-5] + lines[5]
    (folder / "journal.log").write_bytes(b"\n".join(lines))
    with pytest.raises(StudyError, match=r"journal.log: the journal is damaged in line 5"):
        read_study(tmp_path, "one")


@pytest.mark.parametrize("record", ["7", "{}", '{"op_code": 99, "worker_id": "w"}', '{"op_code": 4}'])
def test_records_that_no_book_writes_are_refused(write_study: WriteStudy, tmp_path: Path, record: str) -> None:
    folder = write_study(tmp_path, "one")
    with (folder / "journal.log").open("a") as journal:
        journal.write(record + "\n")
    with pytest.raises(StudyError, match="records do not fit together"):
        read_study(tmp_path, "one")


def change(file: Path, key: str, value: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))


@pytest.mark.parametrize(
    ("file", "said"),
    [("study.json", "study format 2, written by a newer gapwise"), ("result.json", "result format 2 .allowed: 1.")],
)
def test_a_format_from_the_future_is_refused(write_study: WriteStudy, tmp_path: Path, file: str, said: str) -> None:
    change(write_study(tmp_path, "one") / file, "format_version", 2)
    with pytest.raises(StudyError, match=said):
        read_study(tmp_path, "one")


@pytest.mark.parametrize("file", ["study.json", "result.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"format_version": 1}'])
def test_a_file_that_is_not_what_it_should_be_is_refused(
    write_study: WriteStudy, tmp_path: Path, file: str, content: str
) -> None:
    (write_study(tmp_path, "one") / file).write_text(content)
    with pytest.raises(StudyError, match=f"{file}: cannot be read"):
        read_study(tmp_path, "one")


def test_a_space_with_a_key_of_another_version_is_refused_by_its_path(write_study: WriteStudy, tmp_path: Path) -> None:
    file = write_study(tmp_path, "one") / "study.json"
    space = json.loads(file.read_text())["space"]
    change(file, "space", space | {"trails": 3})
    with pytest.raises(SpecError, match=r"study.json: trails: unknown key 'trails'; did you mean 'trials'"):
        read_study(tmp_path, "one")


def test_a_study_without_a_journal_says_so_and_its_trials_so_far_are_none(
    write_study: WriteStudy, tmp_path: Path
) -> None:
    folder = write_study(tmp_path, "one")
    space = read_study(tmp_path, "one").space
    (folder / "journal.log").unlink()
    with pytest.raises(StudyError, match="there is no journal: no trial was started"):
        read_study(tmp_path, "one")
    assert trials_so_far(folder, space, "journal") == []


def test_an_unknown_study_is_refused_naming_those_that_exist(write_study: WriteStudy, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no study 'one' \(allowed: none exists yet\)"):
        read_study(tmp_path, "one")
    write_study(tmp_path, "two")
    with pytest.raises(StudyError, match=r"no study 'one' \(allowed: two\)"):
        read_study(tmp_path, "one")
    with pytest.raises(SpecError, match="cannot be a name"):
        read_study(tmp_path, "../two")


def test_one_broken_study_does_not_hide_the_others(write_study: WriteStudy, tmp_path: Path) -> None:
    write_study(tmp_path, "good")
    os.truncate(write_study(tmp_path, "bad") / "study.json", 3)
    found = read_studies(tmp_path)
    assert isinstance(found["good"], Study)
    assert isinstance(found["bad"], StudyError)


def test_a_study_older_than_its_notes_on_the_data_can_be_read(write_study: WriteStudy, tmp_path: Path) -> None:
    file = write_study(tmp_path, "one", until="search") / "study.json"
    fields = json.loads(file.read_text())
    assert (fields.pop("dataset"), Path(fields.pop("data")).name) == ("synthetic-small", "small")
    file.write_text(json.dumps(fields))
    study = read_study(tmp_path, "one")
    assert (study.dataset, study.data) == (None, None)
