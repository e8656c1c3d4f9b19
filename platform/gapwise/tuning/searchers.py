"""Optuna's samplers and pruners from a spec, with every default written out because Optuna's have changed.

A sampler is built anew for each question with a seed from (study seed, arm, trial number), so that replaying a prefix
of the journal reproduces every suggestion, whatever ran in between.
"""

import hashlib

import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from gapwise.spec.search import PrunerSpec, SamplerSpec

optuna.logging.set_verbosity(optuna.logging.WARNING)


def question_seed(study_seed: int, arm: str, number: int) -> int:
    """31 bits from (study seed, arm, trial number)."""
    text = f"{study_seed}\x1f{arm}\x1f{number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little") >> 1


def build_sampler(spec: SamplerSpec, seed: int) -> BaseSampler:
    if spec.name == "random":
        return RandomSampler(seed=seed)
    return TPESampler(
        seed=seed,
        n_startup_trials=spec.startup,
        multivariate=spec.multivariate,
        group=False,
        constant_liar=spec.constant_liar,
    )


def build_pruner(spec: PrunerSpec) -> BasePruner:
    if spec.name == "none":
        return NopPruner()
    return SuccessiveHalvingPruner(
        min_resource=spec.min_epochs, reduction_factor=spec.reduction, min_early_stopping_rate=0, bootstrap_count=0
    )
