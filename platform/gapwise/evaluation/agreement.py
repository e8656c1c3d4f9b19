"""How far a reliability estimate agrees with the true Fisher information, which only a synthetic dataset knows.

One modality, one condition and one mask seed at a time: between modalities and between missing rates information
differs so much that pooling would give the answer away. Beside each figure stands a trivial one. A score is held
against the plain count of observed frames; the dominant modality against naming the modality that carries most on
average in the training split under the same condition, both literally and among those that the sample has.

Ranks of log I are the ranks of I, so no logarithm is taken.

Shape legend: K conditions, V mask seeds, N samples, M modalities in sorted order.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gapwise.data.store import Split
from gapwise.data.synth import read_task
from gapwise.data.truth import truth_if_any
from gapwise.evaluation.fisher import observed_frames, true_information
from gapwise.evaluation.grid import split_masks
from gapwise.evaluation.metrics import Index, Real, average_ranks, pearson
from gapwise.spec.protocol import ProtocolSpec

Figure = dict[str, float]
"""{mean, sd} over mask seeds, with one seed less in the divisor; sd 0 for one seed."""

NAMINGS = ("chosen", "always_best", "best_available")
"""Who names the most informative modality: the model; always the best on average; the best of those that are there."""

_CONSTANT = 1e-6
"""Scores are float32 within (0, 1): a range of less is one number computed in different orders."""
_TIED = 1e-9
"""Far below what tells two float32 scores apart, far above the rounding of float64."""


class Known(NamedTuple):
    """What the generator knows of every sample, (K, V, N, M): observed frames, and their information about y."""

    frames: Real
    information: Real


class Claims(NamedTuple):
    """What a model says: `score` (K, V, N, M), more being more reliable; `dominant` (K, V, N), -1 for none."""

    conditions: list[str]
    modalities: list[str]
    score: Real
    dominant: Index


def known_grid(split: Split, protocol: ProtocolSpec, mask_seeds: Sequence[int]) -> Known | None:
    """Of every row of a split, on the models' own masks; None where nobody knows.

    Raises DataError for parameters or a truth that are not this dataset's.
    """
    task = read_task(split)
    truth = truth_if_any(split) if task is not None else None
    if task is None or truth is None:
        return None
    frames, information = [], []
    for masks in split_masks(split, protocol, mask_seeds):
        frames.append([_columns(observed_frames(split, mask)) for mask in masks.values()])
        information.append([_columns(true_information(task, truth, split, mask)) for mask in masks.values()])
    return Known(np.stack(frames, axis=1), np.stack(information, axis=1))


def _columns(by_modality: dict[str, Real]) -> Real:
    return np.stack([by_modality[name] for name in sorted(by_modality)], axis=1)


def average_information(training: Known) -> Real:
    """(K, M): the mean over a training split, where a modality that is missing counts as 0."""
    average_KM: Real = training.information.mean((1, 2))
    return average_KM


def agreement(claims: Claims, known: Known, average_KM: Real) -> dict[str, Any]:
    """`correlations`, their mean, and `dominant`, as plain values; None for a figure that is undefined."""
    correlations = {
        condition: {
            name: {
                "score": _correlation(claims.score[k, :, :, m], known, k, m),
                "count": _correlation(known.frames[k, :, :, m], known, k, m),
            }
            for m, name in enumerate(claims.modalities)
        }
        for k, condition in enumerate(claims.conditions)
    }
    return {
        "correlations": correlations,
        "mean_of_correlations": _summary(cell for row in correlations.values() for cell in row.values()),
        "dominant": _dominant(claims, known.information, average_KM),
    }


def _correlation(cue_VN: Real, known: Known, k: int, m: int) -> Figure | None:
    """With the information of modality m, over the samples in which it is there."""
    pairs = zip(cue_VN, known.information[k, :, :, m], strict=True)
    return over_seeds([rank_correlation(cue_N[true_N > 0], true_N[true_N > 0]) for cue_N, true_N in pairs])


def _summary(cells: Iterable[dict[str, Figure | None]]) -> dict[str, float | int | None]:
    """Means over the cells (condition and modality) in which both correlations are defined, and how many they are."""
    both = [(one["score"]["mean"], one["count"]["mean"]) for one in cells if one["score"] and one["count"]]
    score, count = np.mean(both, axis=0).tolist() if both else (None, None)
    return {"score": score, "count": count, "cells": len(both)}


def _dominant(claims: Claims, information: Real, average_KM: Real) -> dict[str, dict[str, Any]]:
    """Shares of the samples with any modality in which the named one is the most informative."""
    best_KM = np.broadcast_to(average_KM[:, None, None, :], information.shape)
    named = (claims.dominant, best_KM.argmax(-1), np.where(information > 0, best_KM, -1.0).argmax(-1))
    right = {name: accuracy(one, information) for name, one in zip(NAMINGS, named, strict=True)}
    return {
        condition: {
            "best_on_average": claims.modalities[int(average_KM[k].argmax())] if average_KM[k].any() else None,
            **{name: over_seeds(values[k]) for name, values in right.items()},
        }
        for k, condition in enumerate(claims.conditions)
    }


def accuracy(named: Index, information: Real) -> list[list[float | None]]:
    """By condition and mask seed; any of several equally informative modalities is right, none (-1) is wrong.

    None where no sample has any modality.
    """
    most = information.max(-1, keepdims=True)
    best = information >= most * (1 - 1e-9)
    right = np.take_along_axis(best, np.maximum(named, 0)[..., None], axis=-1)[..., 0] & (named >= 0)
    counted = most[..., 0] > 0
    return [
        [float(hit_N[some_N].mean()) if some_N.any() else None for hit_N, some_N in zip(hits, some, strict=True)]
        for hits, some in zip(right, counted, strict=True)
    ]


def rank_correlation(first_N: Real, second_N: Real) -> float | None:
    """Spearman's, ties averaged; None where either side is constant, or where there are fewer than two samples."""
    if len(first_N) < 2 or any(np.ptp(side) <= _CONSTANT for side in (first_N, second_N)):
        return None
    return float(pearson(_ranks(first_N)[None], _ranks(second_N))[0])


def _ranks(values_N: Real) -> Real:
    """(N,) average ranks; neighbours no further apart than rounding are tied."""
    order = values_N.argsort()
    level_N = np.empty(len(values_N), np.int64)
    level_N[order] = (np.diff(values_N[order], prepend=values_N[order[:1]]) > _TIED).cumsum()
    return average_ranks(level_N)


def over_seeds(values: Sequence[float | None]) -> Figure | None:
    """Mean and sd of those that are defined; None if none is."""
    known = np.array([value for value in values if value is not None])
    if not known.size:
        return None
    return {"mean": float(known.mean()), "sd": float(known.std(ddof=1)) if known.size > 1 else 0.0}
