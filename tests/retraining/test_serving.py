"""`retrain serve` as a loop of processes, and whether a process lives. Ticks are one-line scripts; signals are real."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from gapwise.cli.retrain import Loop
from gapwise.retraining import here
from gapwise.retraining.cron import checked
from gapwise.retraining.log import Owner

YEARLY = checked("0 0 1 1 *", "UTC", "here")


def test_the_loop_looks_once_when_it_starts_and_again_while_nothing_is_due(tmp_path, monkeypatch):
    calls = tmp_path / "calls"
    loop = Loop(YEARLY, [sys.executable, "-c", f"open({str(calls)!r}, 'a').write('x')"])
    monkeypatch.setattr("gapwise.cli.retrain._BETWEEN_TICKS_SECONDS", 0.0)

    def tick_twice(plain=loop._tick):
        plain()
        loop._stopped = len(calls.read_text()) == 2

    loop._tick = tick_twice
    loop.run()

    assert calls.read_text() == "xx"


def test_a_stop_reaches_the_tick_once_and_the_loop_waits_for_its_end(tmp_path):
    said, ready = tmp_path / "said", tmp_path / "ready"
    script = (
        "import pathlib, signal, sys, time\n"
        f"said = pathlib.Path({str(said)!r})\n"
        "def told(number, frame):\n"
        "    with said.open('a') as file: file.write('told ')\n"
        "signal.signal(signal.SIGINT, told)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "while not said.exists(): time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        "with said.open('a') as file: file.write('ended')\n"
    )
    loop = Loop(YEARLY, [sys.executable, "-c", script])

    def stop_when_it_runs():
        while not ready.exists():
            time.sleep(0.01)
        loop.stop(signal.SIGTERM, None)

    stopper = threading.Thread(target=stop_when_it_runs)
    stopper.start()
    loop.run()
    stopper.join()

    assert said.read_text() == "told ended"


def test_a_process_of_this_machine_is_seen_alive_or_gone_and_one_of_another_is_not_seen():
    mine = here.owner()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        other = mine.model_copy(update={"process": child.pid})
        assert here.lives(mine) is True
        assert here.lives(other) is True
        child.kill()
    assert here.lives(other) is False
    assert here.lives(Owner(who="x@y", machine="elsewhere", process=1)) is None


def test_the_code_s_fingerprint_is_of_every_source_file():
    package = Path(here.__file__).parents[1]

    assert len(here.code_fingerprint()) == 64
    assert here.code_fingerprint() == here.code_fingerprint()
    assert len(list(package.rglob("*.py"))) > 200
