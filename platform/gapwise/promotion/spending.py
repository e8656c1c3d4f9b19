"""The yearly alpha of a name on a test split: what decisions have spent of it, and the refusal of one too many."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

from gapwise.data.manifest import Manifest
from gapwise.errors import GateError
from gapwise.promotion.chain import Entry
from gapwise.spec.gate import GateSpec

_YEAR = timedelta(days=365)


def looked_at(manifest: Manifest) -> set[str]:
    """Fingerprints of the test split and of what it grew out of, whose samples are among its own."""
    return {manifest.splits["test"].fingerprint, *(step.parent_test for step in manifest.growth)}


def decisions_within_a_year(entries: Iterable[Entry], tests: Collection[str]) -> list[float]:
    """The alpha of each."""
    since = datetime.now(UTC) - _YEAR
    return [
        float(str(one.facts["alpha"]))
        for one in entries
        if one.facts.get("test_fingerprint") in tests and datetime.fromisoformat(one.time) > since
    ]


def refuse_spent(name: str, alphas: Collection[float], spec: GateSpec) -> None:
    """Raises GateError where nothing is left of the yearly alpha for one more decision."""
    if sum(alphas) + spec.alpha > spec.yearly_alpha * (1.0 + 1e-9):
        raise GateError(
            f"{len(alphas)} decisions were made on this test split within a year, and spent {sum(alphas):g} of"
            f" yearly_alpha {spec.yearly_alpha:g}; this one needs {spec.alpha:g}",
            where=f"gate of {name!r}",
            allowed="new test data, a later date, or a stricter decision",
        )
