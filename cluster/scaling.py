"""What a study of 1,000 trials on MOSEI would cost on 1, 8 and 64 GPUs, and what is full first: arithmetic, no run.

    python cluster/scaling.py        # prints the tables that cluster/SCALING.md quotes

Measured constants are read from tests/benchmarks/results/*.json, or stand below as MEASURED with the place where they
were. Nothing was ever measured on a GPU: what stands below as ASSUMED is a guess, and whoever knows better changes it
and runs this again. It refuses to know prices.
"""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "tests" / "benchmarks" / "results"
GPUS = (1, 8, 64)

# The study: facts of the dataset, and what we ask for.
TRAIN_SAMPLES, VALID_SAMPLES, ALL_SAMPLES = 16_326, 1_871, 22_856  # MMSA's splits of CMU-MOSEI
BATCH, RATES, EPOCHS = 64, 10, 20
TRIALS, GP_TRIALS = 1_000, 300  # `auto` leaves the Gaussian process after 300
SECOND_PHASE_RUNS, REFIT_RUNS, MASK_SEEDS = 9, 9, 20  # 3 configurations, 3 seeds
CALLS_BESIDE_EPOCHS = 3  # of the study actor a trial: asked, begun, ended; MLflow hears as often

# MEASURED, but in no result file.
GP_QUESTION_AT_300 = 0.62  # seconds of processor time, platform/DECISIONS.md of 2026-11-21
TRAIN_START = 28.0  # seconds until a TorchTrainer trains, the slowest seen on 2 cores
PARAMETERS = 213_455  # of PRLF at the benchmarks' size, counted
COPIES = 4  # in a trial's checkpoint: weights, two moments of the optimiser, the best weights
DISK_SAMPLES = 2_199  # that 329.8 MB hold (node_memory.json)

# ASSUMED.
GPU_STEP = (
    0.015  # seconds a training step of PRLF at batch 64: small models wait for kernel launches, not for arithmetic
)
GPU_FORWARD = 0.005  # seconds a forward pass of a batch
GPUS_A_NODE = 8
STORAGE_WRITES = 200.0  # megabytes a second that the shared storage takes in small files
STORAGE_READS = 1_000.0  # megabytes a second that it gives


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Seconds, milliseconds and megabytes of the result files, all on x86_64 with 2 cores."""

    step_seconds: float
    forward_seconds_a_sample: float
    call_milliseconds: float
    gp_question: float
    """Seconds of processor time a trial while the Gaussian process is asked, mean of 308 trials."""
    tpe_question: float
    gp_epochs: float
    """Epochs a trial, most are stopped early; of trials of 20 epochs, on a surrogate."""
    tpe_epochs: float
    overhead_seconds: float
    journal_megabytes: float
    events_megabytes: float
    dataset_megabytes: float
    mlflow_report: float
    """One client's; eight at once have twice that each."""


def measured(folder: Path = RESULTS) -> Measured:
    """Raises OSError or KeyError where a result is missing."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    bare, steps, search = found["evaluation"]["late_fusion"], found["steps"]["milliseconds_a_step"], found["search"]
    first = found["large_study_random"]["blocks"][0]
    bare_seconds = bare["seconds_bare"] / (bare["views"] * bare["samples"])
    return Measured(
        step_seconds=steps["prlf"] / 1000,
        forward_seconds_a_sample=bare_seconds * steps["prlf"] / steps["late_fusion"],
        call_milliseconds=found["actors"]["book_cpu_milliseconds_a_call"],
        gp_question=search["methods"]["asha_gp"]["cpu_seconds_a_trial"],
        tpe_question=found["history"]["milliseconds_asking"]["tpe"]["1000"] / 1000,
        gp_epochs=_epochs_a_trial(search["methods"]["asha_gp"]),
        tpe_epochs=_epochs_a_trial(search["methods"]["asha_tpe"]),
        overhead_seconds=found["overhead"]["overhead_seconds_a_trial"]["warm"],
        journal_megabytes=first["journal_megabytes"],
        events_megabytes=first["events_megabytes"],
        dataset_megabytes=found["node_memory"]["dataset_on_disk"] / DISK_SAMPLES * ALL_SAMPLES,
        mlflow_report=found["postgres_logging"]["clients"]["1"]["milliseconds_a_report"]["median"] / 1000,
    )


def _epochs_a_trial(method: dict[str, Any]) -> float:
    return sum(method["every"]) / len(method["every"]) / float(method["trials"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of the search: trials that are asked for in one way."""

    trials: int
    epochs: float
    question: float
    """Seconds of the study actor until it has answered."""

    def actor_seconds(self, constants: Measured) -> float:
        """Of the study actor, a trial: all its calls and the question."""
        return (self.epochs + CALLS_BESIDE_EPOCHS) * constants.call_milliseconds / 1000 + self.question

    def mlflow_seconds(self, constants: Measured) -> float:
        """Of the delivery thread, a trial."""
        return (self.epochs + CALLS_BESIDE_EPOCHS) * constants.mlflow_report


def parts(constants: Measured) -> tuple[Part, Part]:
    """The Gaussian process, then TPE."""
    return (
        Part(trials=GP_TRIALS, epochs=constants.gp_epochs, question=constants.gp_question),
        Part(trials=TRIALS - GP_TRIALS, epochs=constants.tpe_epochs, question=constants.tpe_question),
    )


def steps_an_epoch() -> int:
    return math.ceil(TRAIN_SAMPLES / BATCH)


def core_epoch(constants: Measured) -> float:
    """Seconds an epoch on one of the cores that were measured."""
    return steps_an_epoch() * constants.step_seconds + VALID_SAMPLES * RATES * constants.forward_seconds_a_sample


def gpu_epoch() -> float:
    """Seconds an epoch on one GPU: assumed, all of it."""
    return steps_an_epoch() * GPU_STEP + _passes(1) * GPU_FORWARD


def _passes(mask_seeds: int) -> int:
    return math.ceil(VALID_SAMPLES / BATCH) * RATES * mask_seeds


def trial_seconds(part: Part, epoch: float, constants: Measured) -> float:
    return part.epochs * epoch + constants.overhead_seconds


def search_seconds(gpus: int, constants: Measured) -> float:
    """Trials share the GPUs evenly, unless the study actor cannot answer as fast as they come."""
    return sum(
        part.trials * max(trial_seconds(part, gpu_epoch(), constants) / gpus, part.actor_seconds(constants))
        for part in parts(constants)
    )


def end_seconds(gpus: int) -> float:
    """Second phase and refit: runs of all epochs, in as many rounds as it takes."""
    repeat = EPOCHS * gpu_epoch() + _passes(MASK_SEEDS) * GPU_FORWARD
    refit = EPOCHS * gpu_epoch()
    return math.ceil(SECOND_PHASE_RUNS / gpus) * repeat + TRAIN_START + math.ceil(REFIT_RUNS / gpus) * refit


def checkpoint_megabytes() -> float:
    return PARAMETERS * 4 * COPIES / 1e6


def filled(constants: Measured) -> list[tuple[str, str, float]]:
    """(what, its arithmetic, the number of GPUs that fill it), fewest first."""
    gp, tpe = parts(constants)
    epoch = gpu_epoch()
    late = Part(trials=1, epochs=gp.epochs, question=GP_QUESTION_AT_300)
    early, later = (trial_seconds(part, epoch, constants) for part in (gp, tpe))
    rows = [
        _row("study actor, Gaussian process, 300th trial", early, late.actor_seconds(constants)),
        _row("study actor, Gaussian process, mean", early, gp.actor_seconds(constants)),
        _row("study actor, TPE at 1,000 trials", later, tpe.actor_seconds(constants)),
        _row("MLflow, Gaussian process's trials", early, gp.mlflow_seconds(constants)),
        _row("MLflow, TPE's trials", later, tpe.mlflow_seconds(constants)),
        _row("storage, a checkpoint an epoch (assumed)", epoch, checkpoint_megabytes() / STORAGE_WRITES),
    ]
    return sorted(rows, key=lambda row: row[2])


def _row(what: str, between: float, busy: float) -> tuple[str, str, float]:
    return what, f"{between:.1f} s / {busy:.3f} s", between / busy


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def constants_table(constants: Measured) -> str:
    gp, tpe = parts(constants)
    step, forward = 1000 * constants.step_seconds, 1000 * constants.forward_seconds_a_sample
    asked, last = 1000 * gp.question, 1000 * GP_QUESTION_AT_300
    guess = f"**assumed**: {1000 * GPU_STEP:.0f} ms a step, {1000 * GPU_FORWARD:.0f} ms a batch forward"
    rows = [
        ["a training step of PRLF, one core", f"{step:.0f} ms", "measured (`steps.json`)"],
        [
            "a sample forward, one core",
            f"{forward:.2f} ms",
            "late_fusion measured (`evaluation.json`); **assumed**: by steps",
        ],
        [
            "an epoch, one core",
            f"{core_epoch(constants):.0f} s",
            f"{steps_an_epoch()} steps, {VALID_SAMPLES:,} samples x {RATES}",
        ],
        ["an epoch, one GPU", f"{gpu_epoch():.1f} s", guess],
        [
            "epochs a trial",
            f"{gp.epochs:.1f}, then {tpe.epochs:.1f}",
            f"measured on a surrogate, of {EPOCHS} (`search.json`)",
        ],
        ["a call of the study actor", f"{constants.call_milliseconds:.1f} ms", "measured (`actors.json`)"],
        [
            "a question to the Gaussian process",
            f"{asked:.0f} ms",
            f"measured (`search.json`); {last:.0f} ms at the 300th",
        ],
        ["a question to TPE at 1,000 trials", f"{1000 * tpe.question:.0f} ms", "measured (`history.json`)"],
        [
            "a report to MLflow's server",
            f"{1000 * constants.mlflow_report:.0f} ms",
            "measured, PostgreSQL and a password (`postgres_logging.json`); one thread a study",
        ],
        [
            "a trial's checkpoint",
            f"{checkpoint_megabytes():.1f} MB",
            f"{PARAMETERS:,} parameters (counted) x 4 bytes x {COPIES}",
        ],
        [
            "the dataset",
            f"{constants.dataset_megabytes / 1000:.1f} GB",
            "2,199 samples measured (`node_memory.json`), by samples",
        ],
        ["the shared storage", f"{STORAGE_WRITES:.0f} MB/s in, {STORAGE_READS:.0f} out", "**assumed**"],
    ]
    return table(["constant", "value", "where from"], rows)


def cost_table(constants: Measured) -> str:
    rows = []
    for gpus in GPUS:
        search, end = search_seconds(gpus, constants), end_seconds(gpus)
        told = sum(part.trials * part.mlflow_seconds(constants) for part in parts(constants))
        held, busy = gpus * (search + end) / 3600, told / search
        rows.append([str(gpus), minutes(search), minutes(end), minutes(search + end), f"{held:.1f}", f"{busy:.0%}"])
    return table(
        ["GPUs", "search", "second phase and refit", "in all", "GPU hours held", "MLflow's thread in the search"], rows
    )


def filled_table(constants: Measured) -> str:
    rows = [[what, arithmetic, f"{gpus:.0f}"] for what, arithmetic, gpus in filled(constants)]
    return table(["what", "a GPU needs it every / for", "GPUs that fill it"], rows)


def sums(constants: Measured) -> str:
    cores = sum(part.trials * trial_seconds(part, core_epoch(constants), constants) for part in parts(constants))
    nodes = math.ceil(max(GPUS) / GPUS_A_NODE)
    once = nodes * constants.dataset_megabytes
    files = f"{constants.journal_megabytes:.0f} MB and {constants.events_megabytes:.0f} MB"
    read = f"{once / 1000:.0f} GB, {once / STORAGE_READS:.0f} s"
    lines = [
        f"- The same search on the two cores that were measured: {cores / 2 / 3600:.0f} h.",
        f"- Journal and events after {TRIALS:,} trials: {files}.",
        f"- {nodes} nodes of {GPUS_A_NODE} GPUs read the dataset once: {read}.",
    ]
    return "\n".join(lines)


def document(constants: Measured) -> str:
    """What cluster/SCALING.md quotes."""
    shown = (constants_table, cost_table, filled_table, sums)
    return "\n\n".join(one(constants) for one in shown)


if __name__ == "__main__":
    sys.stdout.write(document(measured()) + "\n")
