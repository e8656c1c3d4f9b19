"""Stands before all champions of a name: each sample goes to the one of the nearest missing rate.

It holds no weights. Who serves which rate is asked of the registry when samples come, so a promotion or a rollback is
followed without registering anything again; champions are fetched once, and their files checked, before they answer.

Shape legend: B samples.
"""

import logging
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gapwise.data.batch import ModalityBatch
from gapwise.data.missing_rate import missing_rates
from gapwise.data.rows import from_rows
from gapwise.data.shape import DataShape
from gapwise.errors import DataError, RegistryError
from gapwise.evaluation.routing import nearest
from gapwise.spec.protocol import rate_key
from gapwise.tracking import aliases, registry
from gapwise.tracking.client import Tracking
from gapwise.tracking.served import ServedModel, answering

_log = logging.getLogger(__name__)
_FRESH_SECONDS = 10.0
Rates = NDArray[np.float64]


class Answered(NamedTuple):
    """What was answered, and by whom."""

    predictions: NDArray[Any]
    """(B,) float32 scores or int64 classes."""
    rates: Rates
    """(B,) missing rates, estimated or told."""
    versions: NDArray[np.str_]
    """(B,)"""


class Router:
    """The champions of a registered name, followed while they change."""

    def __init__(self, tracking: Tracking, name: str) -> None:
        self._tracking, self.name = tracking, name
        self._champions: dict[str, str] = {}
        self._loaded: dict[str, ServedModel] = {}
        self._asked = -_FRESH_SECONDS
        self._lock = threading.RLock()  # MLflow answers each request on a thread of its own

    def champions(self) -> dict[str, str]:
        """{rate: version}, asked again after some seconds; while the registry does not answer, those of before.

        Raises RegistryError where there are none.
        """
        with self._lock:
            if time.monotonic() - self._asked > _FRESH_SECONDS:
                self._ask()
            if not self._champions:
                where = f"registered model {self.name!r}"
                raise RegistryError("has no champions", where=where, allowed="a promoted name")
            return self._champions

    def _ask(self) -> None:
        try:
            self._champions = aliases.champions(registry.aliases(self._tracking, self.name))
        except RegistryError as error:
            if not self._champions:
                raise
            _log.warning("%s; the champions of before answer", error)
        self._asked = time.monotonic()
        self._loaded = {one: self._loaded[one] for one in self._champions.values() if one in self._loaded}

    def shape(self) -> DataShape:
        """What the champion of the lowest rate reads."""
        return self.model(next(iter(self.champions().values()))).folder.shape

    def model(self, version: str) -> ServedModel:
        """A version, fetched and checked when it is asked for first."""
        with self._lock:
            if version not in self._loaded:
                with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
                    folder = registry.download(self._tracking, f"models:/{self.name}/{version}", Path(temporary))
                    self._loaded[version] = answering(folder)
            return self._loaded[version]

    def answer(self, batch: ModalityBatch, told: Rates | None = None) -> Answered:
        """`told` is (B,) missing rates; NaN, or None for all, for those that are to be estimated."""
        rates, versions = self._ways(batch, self.shape(), told)
        chosen = _by_version(versions)
        if len(chosen) == 1:
            return Answered(self.model(versions[0]).answer(batch), rates, versions)
        parts = {v: self.model(v).answer(batch.part(torch.from_numpy(rows))) for v, rows in chosen.items()}
        return Answered(_joined(chosen, parts), rates, versions)

    def answer_rows(self, columns: Mapping[str, Sequence[Any]], told: Rates | None = None) -> Answered:
        """The same of rows as `data.rows` describes them, if the champion of the lowest rate reads them too.

        Raises DataError.
        """
        shape = self.shape()
        rates, versions = self._ways(from_rows(columns, shape, mask_visible=False), shape, told)
        chosen = _by_version(versions)
        parts = {
            version: self.model(version).answer_rows({m: [cells[row] for row in rows] for m, cells in columns.items()})
            for version, rows in chosen.items()
        }
        return Answered(_joined(chosen, parts), rates, versions)

    def _ways(self, batch: ModalityBatch, shape: DataShape, told: Rates | None) -> tuple[Rates, NDArray[np.str_]]:
        champions = self.champions()
        rates = missing_rates(batch, shape).double().numpy()
        if told is not None:
            wrong = told[~np.isnan(told) & ~((told >= 0.0) & (told <= 1.0))]
            if len(wrong):
                raise DataError(f"{wrong[0]:g} is no missing rate", where="missing_rate", allowed="0 to 1, or null")
            rates = np.where(np.isnan(told), rates, told)
        near = {rate: champions[str(nearest(rate_key(float(rate)), champions))] for rate in np.unique(rates.round(2))}
        return rates, np.array([near[rate] for rate in rates.round(2)])


def _by_version(versions: NDArray[np.str_]) -> dict[str, NDArray[np.int64]]:
    return {str(version): np.flatnonzero(versions == version) for version in np.unique(versions)}


def _joined(chosen: Mapping[str, NDArray[np.int64]], parts: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    order = np.argsort(np.concatenate(list(chosen.values())))
    joined: NDArray[Any] = np.concatenate([parts[version] for version in chosen])[order]
    return joined
