"""The journal on disk: torn lines, stale locks, one driver a study. Real Optuna journals and real other processes."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from gapwise.distributed.lock import DriverLock
from gapwise.errors import StudyError
from gapwise.tuning.journal import open_journal, repair

HOLDER = """
import sys
from pathlib import Path
from gapwise.distributed.lock import DriverLock
with DriverLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def add_trial(journal: Path) -> int:
    study = optuna.create_study(storage=open_journal(journal), study_name="one", load_if_exists=True)
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    study.tell(trial, 1.0)
    return len(study.trials)


def test_a_torn_last_line_is_set_aside_and_the_study_goes_on(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    add_trial(journal)
    whole = journal.read_bytes()
    tear = whole.splitlines()[-1][:-7]
    journal.write_bytes(whole + tear)
    assert add_trial(journal) == 2
    (torn,) = tmp_path.glob("*.torn")
    assert torn.read_bytes() == tear
    assert journal.read_bytes().startswith(whole)
    assert add_trial(journal) == 3


def test_a_journal_that_is_one_torn_line_starts_empty(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    journal.write_bytes(b'{"op_code": 0, "wor')
    assert add_trial(journal) == 1


def test_a_whole_journal_is_left_as_it_is(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    add_trial(journal)
    before, when = journal.read_bytes(), journal.stat().st_mtime_ns
    assert repair(journal) is None
    assert (journal.read_bytes(), journal.stat().st_mtime_ns) == (before, when)
    assert [entry.name for entry in tmp_path.iterdir()] == ["journal.log"]


def test_there_may_be_no_journal_yet(tmp_path: Path) -> None:
    assert repair(tmp_path / "journal.log") is None


def test_the_lock_of_a_writer_that_died_is_removed(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    add_trial(journal)
    lock = optuna.storages.journal.JournalFileSymlinkLock(str(journal))
    assert lock.acquire()  # a symlink, whose owner dies here without releasing it
    journal.with_name("journal.log.lock-renamed").symlink_to("nowhere")
    assert add_trial(journal) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["journal.log"]


def holding(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_driver_is_refused_by_name_of_the_first_and_admitted_when_it_dies(tmp_path: Path) -> None:
    with holding(tmp_path) as owner:
        with pytest.raises(StudyError, match=f"another driver is running this: process {owner.pid} since"):
            DriverLock(tmp_path).__enter__()
        owner.kill()
    with DriverLock(tmp_path):
        assert "process" in (tmp_path / "driver.lock").read_text()


def test_a_driver_that_leaves_frees_the_study(tmp_path: Path) -> None:
    for _ in range(2):
        with DriverLock(tmp_path):
            pass


def test_a_line_that_a_full_disk_let_in_by_half_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = tmp_path / "journal.log"
    storage = open_journal(journal)
    study = optuna.create_study(storage=storage, study_name="one")
    before = journal.read_bytes()

    def full(_: int) -> None:
        os.truncate(journal, journal.stat().st_size - 7)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            study.ask()
    assert journal.read_bytes() == before
    study.tell(study.ask(), 1.0)
    assert add_trial(journal) == 2
