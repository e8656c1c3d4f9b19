"""Whether the data moved since the last training, as a schedule asks it: the tests are `drift`'s, the samples are here.

Errors are those of the champion of the lowest missing rate on the test split as it is, the newer samples against the
older: it was neither trained nor chosen on them. Each look is in the split's exposure log.
"""

from pathlib import Path

import numpy as np

from gapwise.data.store import Dataset, open_dataset
from gapwise.errors import DataError
from gapwise.promotion.evidence import outputs
from gapwise.retraining.drift import Drift, error_drift, errors, input_drift, measured
from gapwise.retraining.policy import Drifted
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.schedule import TriggersSpec
from gapwise.tracking import aliases, registry
from gapwise.tracking.client import Tracking
from gapwise.tracking.locate import locate

_SEED = 0


def moved(tracking: Tracking, name: str, folder: Path, since: str, triggers: TriggersSpec) -> Drifted:
    """`since` is the fingerprint of the data that was last trained on, which these data must have grown out of.

    Raises DataError where they did not.
    """
    dataset = open_dataset(folder)
    steps = dataset.manifest.steps_since(since)
    said, reasons = [], []
    if triggers.input_drift is not None:
        found = input_drift(measured(dataset, range(steps.start)), measured(dataset, steps), seed=_SEED)
        words = f"inputs: {_words(found)}"
        said.append(words)
        if found.p_value <= triggers.input_drift:
            reasons.append(f"{words}: {found.feature} moved most, by {found.effect:+.2f} sd")
    if triggers.error_drift is not None:
        found = _errors(tracking, name, dataset, steps)
        words = f"champion's errors: {_words(found)}"
        said.append(words)
        if found.p_value <= triggers.error_drift:
            reasons.append(f"{words}: larger by {found.effect:.3f}")
    return Drifted(tuple(reasons), "; ".join(said))


def _words(found: Drift) -> str:
    return f"p {found.p_value:.4f}, {found.new_groups} new groups against {found.reference_groups}"


def _errors(tracking: Tracking, name: str, dataset: Dataset, steps: range) -> Drift:
    champions = aliases.champions(registry.aliases(tracking, name))
    if not champions:
        raise DataError("error_drift needs a champion", where=f"registered model {name!r}")
    model = locate(tracking, f"models:/{name}/{next(iter(champions.values()))}")
    split = dataset.test(reason=f"error drift of {name}")
    as_it_is = ProtocolSpec(mask_visible=model.spec.protocol.mask_visible, rates=(0.0,))
    answers = outputs(model, split, as_it_is, 1).values[0, 0]
    is_new_N = np.isin(split.steps, list(steps))
    older, newer = (
        errors(answers[rows], split.labels[rows], [split.groups[row] for row in rows])
        for rows in (np.flatnonzero(~is_new_N), np.flatnonzero(is_new_N))
    )
    return error_drift(older, newer, seed=_SEED)
