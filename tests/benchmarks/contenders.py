"""Who runs the trials: bare loops, gapwise, and what else a team could take. Each is a process of its own.

    python tests/benchmarks/contenders.py gapwise --trials 8 --data DIR --folder EMPTY_DIR

All train the same job: `fit` on PRLF, narrow, 3 epochs, every epoch validated; what a configuration may vary (learning
rate, dropout, reliability temperature, Fisher weight) does not change what it costs. All draw at random and prune
nothing. Every trial adds a line to `ends.txt` in the folder when its training is done: that is all that is compared.

  loop          one process, one thread, one trial after another; no storage
  loop_2threads the same with two threads
  two_loops     two such processes of one thread, half of the trials each: what the two cores can give
  gapwise       the warm executor, concurrency 2: journal, events, a checkpoint an epoch
  optuna        a loop around Optuna's ask and tell on a journal file; nothing else is kept
  optuna_2      two processes of it on one journal
  tune          Ray Tune, OptunaSearch, a function trainable with reused actors, one report a trial; no checkpoints
  tune_train    Ray Tune, OptunaSearch, a TorchTrainer inside each trial; no checkpoints
  syne_tune     Syne Tune, local back end: a process a trial; no checkpoints
"""

import argparse
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

CONCURRENCY = 2
RANGES = {
    "optimiser.lr": (1e-3, 1e-2, True),
    "model.dropout": (0.0, 0.4, False),
    "model.tau_rel": (0.1, 2.0, True),
    "model.fisher_lambda": (0.0, 1.0, False),
}
"""By path: lowest, highest, whether logarithmic."""
_COMMON = {"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2}
_PROTOCOL = {"name": "frames", "mask_visible": True, "rates": [0.0, 0.5, 0.9]}


class Race(NamedTuple):
    """What a contender is given."""

    trials: int
    data: Path
    folder: Path

    @property
    def ends(self) -> Path:
        return self.folder / "ends.txt"


def space(trials: int) -> Any:
    """As a gapwise search space; the baseline gets the one trial that it cannot be denied."""
    from gapwise.spec.loader import validate
    from gapwise.spec.search import SearchSpec

    parameters = {
        path: {"role": "nuisance", "low": low, "high": high, "log": log} for path, (low, high, log) in RANGES.items()
    }
    mapping = {
        "question": "who orchestrates?",
        "arms": {"prlf": {"parameters": parameters}},
        "common": _COMMON,
        "train": {"epochs": 3, "patience": 0, "protocol": _PROTOCOL, "objective": {"metric": "mae"}},
        "trials": trials,
        "baseline_share": 1e-9,
        "sampler": {"name": "random"},
        "pruner": {"name": "none"},
    }
    return validate(SearchSpec, mapping, where="benchmark")


def train(values: dict[str, Any], race: Race) -> float:
    """One trial, and its line in the file."""
    from gapwise.training.checkpoint import NoSink
    from gapwise.training.decision import NoReporter
    from gapwise.training.loop import fit
    from gapwise.tuning.assignment import Assignment
    from gapwise.tuning.trial import Place, job_of

    assignment = Assignment("search", "prlf", 0, values, 0, 0)
    trained = fit(
        job_of(Place(space(race.trials), str(race.data), str(race.folder)), assignment), NoReporter(), NoSink()
    )
    note(race, time.time())
    return trained.kept.cost


def note(race: Race, ended: float) -> None:
    with race.ends.open("a") as opened:
        opened.write(f"{ended}\n")


def suggest(trial: Any) -> dict[str, Any]:
    return {path: trial.suggest_float(path, low, high, log=log) for path, (low, high, log) in RANGES.items()}


def loop(race: Race, threads: int = 1) -> None:
    import optuna
    import torch

    torch.set_num_threads(threads)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: train(suggest(trial), race), n_trials=race.trials)


def twice(name: str, race: Race) -> None:
    """Two processes of a contender that runs alone, half of the trials each, into the same file."""
    command = [sys.executable, __file__, name, "--trials", str(race.trials // 2)]
    command += ["--data", str(race.data), "--folder", str(race.folder)]
    running = [subprocess.Popen(command) for _ in range(CONCURRENCY)]
    if any(process.wait() for process in running):
        raise SystemExit(f"{name} failed")


def gapwise(race: Race) -> None:
    from gapwise.distributed.cluster import connected
    from gapwise.tuning.actor import Record, running_book
    from gapwise.tuning.events import read_events
    from gapwise.tuning.executor import PhaseRun, run_phases
    from gapwise.tuning.trial import Place

    asked, record = space(race.trials), Record(race.folder)
    with connected(cpus=CONCURRENCY), running_book("race", asked, record) as book:
        place = Place(asked, str(race.data), str(race.folder))
        run_phases(book, iter([PhaseRun("search", "race", place, CONCURRENCY)]))
    for event in read_events(record.events, 0, most=100 * race.trials)[0]:
        if event.kind == "finished" and event.assignment.arm == "prlf":
            note(race, event.time)


def optuna_loop(race: Race) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(race.folder / "optuna.log")))
    study = optuna.create_study(
        storage=storage, study_name="race", sampler=optuna.samplers.RandomSampler(), load_if_exists=True
    )
    study.optimize(lambda trial: train(suggest(trial), race), n_trials=race.trials)


def tune_function(race: Race) -> None:
    from ray import tune

    def trainable(config: dict[str, Any]) -> None:
        tune.report({"cost": train(config, race)})

    _tune(race, trainable, cpus=1, reuse=True)


def tune_train(race: Race) -> None:
    def trainable(config: dict[str, Any]) -> None:
        from ray import train as ray_train
        from ray.train.torch import TorchTrainer
        from ray.tune.integration.ray_train import TuneReportCallback

        def worker(values: dict[str, Any]) -> None:
            ray_train.report({"cost": train(values, race)})

        TorchTrainer(
            worker,
            train_loop_config=config,
            scaling_config=ray_train.ScalingConfig(num_workers=1),
            run_config=ray_train.RunConfig(storage_path=str(race.folder / "train"), callbacks=[TuneReportCallback()]),
        ).fit()

    _tune(race, trainable, cpus=0.01, reuse=False)


def _tune(race: Race, trainable: Callable[[dict[str, Any]], None], *, cpus: float, reuse: bool) -> None:
    """Four logical CPUs, so that two trials and the workers inside them fit side by side."""
    import optuna
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    tune.Tuner(
        tune.with_resources(trainable, {"CPU": cpus}),
        param_space={
            path: (tune.loguniform if log else tune.uniform)(low, high) for path, (low, high, log) in RANGES.items()
        },
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(metric="cost", mode="min", sampler=optuna.samplers.RandomSampler(seed=0)),
            num_samples=race.trials,
            max_concurrent_trials=CONCURRENCY,
            reuse_actors=reuse,
        ),
        run_config=tune.RunConfig(storage_path=str(race.folder / "tune"), verbose=0),
    ).fit()
    ray.shutdown()


def syne_tune(race: Race) -> None:
    script = str(Path(__file__).resolve())
    os.environ["SYNETUNE_FOLDER"] = str(race.folder / "syne")
    os.chdir(race.folder)  # it leaves a file where it runs
    from syne_tune import StoppingCriterion, Tuner
    from syne_tune.backend import LocalBackend
    from syne_tune.config_space import loguniform, uniform
    from syne_tune.optimizer.baselines import RandomSearch

    ranges = {
        path.replace(".", "__"): (loguniform if log else uniform)(low, high)
        for path, (low, high, log) in RANGES.items()
    }
    fixed = {"race_trials": race.trials, "race_data": str(race.data), "race_folder": str(race.folder)}
    Tuner(
        trial_backend=LocalBackend(entry_point=script, pass_args_as_json=False),
        scheduler=RandomSearch(ranges | fixed, metrics=["cost"], random_seed=0),
        stop_criterion=StoppingCriterion(max_num_trials_completed=race.trials),
        n_workers=CONCURRENCY,
        sleep_time=0.1,
        results_update_interval=1.0,
        tuner_name="race",
    ).run()


def syne_trial(arguments: list[str]) -> None:
    """Syne Tune's side of a trial: `--name value` pairs on the command line."""
    from syne_tune import Reporter

    pairs = dict(zip(arguments[::2], arguments[1::2], strict=True))
    given = {name.removeprefix("--"): value for name, value in pairs.items()}
    race = Race(int(given["race_trials"]), Path(given["race_data"]), Path(given["race_folder"]))
    values = {path: float(given[path.replace(".", "__")]) for path in RANGES}
    Reporter()(cost=train(values, race))


CONTENDERS: dict[str, Callable[[Race], None]] = {
    "loop": loop,
    "loop_2threads": functools.partial(loop, threads=2),
    "two_loops": functools.partial(twice, "loop"),
    "gapwise": gapwise,
    "optuna": optuna_loop,
    "optuna_2": functools.partial(twice, "optuna"),
    "tune": tune_function,
    "tune_train": tune_train,
    "syne_tune": syne_tune,
}


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1].startswith("--"):
        syne_trial(sys.argv[1:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    chosen = parser.parse_args()
    CONTENDERS[chosen.name](Race(chosen.trials, chosen.data.absolute(), chosen.folder.absolute()))


if __name__ == "__main__":
    main()
