"""A promotion as somebody asked for it."""

from typing import NamedTuple

from gapwise.data.store import Dataset
from gapwise.spec.gate import GateSpec
from gapwise.spec.protocol import ProtocolSpec
from gapwise.tuning.result import StudyResult


class Asked(NamedTuple):
    """Which studies ask for which name, and what decides."""

    name: str
    results: list[StudyResult]
    """Of one dataset, protocol and metric."""
    dataset: Dataset
    spec: GateSpec
    dry_run: bool = False
    """Decide on validation, and change nothing."""
    approval: bool = False
    """Ask a person before anything moves."""

    @property
    def metric(self) -> str:
        return self.results[0].objective.metric

    @property
    def protocol(self) -> ProtocolSpec:
        return self.results[0].protocol

    @property
    def studies(self) -> list[str]:
        return [one.study for one in self.results]

    @property
    def test_fingerprint(self) -> str:
        return self.dataset.fingerprints()["test"]
