"""Which trials can be fused: a pure function of their specs.

Only what changes shapes, the flow of control or the data that is judged keeps trials apart. Seeds, learning rates and
their schedules, decay, clipping, temperatures, weights of losses, dropout, prompt lengths, the objective, patience,
epochs and checkpoints are each trial's own.
"""

import json

from gapwise.models.fusing import apart, refusal
from gapwise.spec.train import TrainSpec


def why_alone(spec: TrainSpec) -> str | None:
    """Why a trial cannot be fused with any other, in a line; None if it can."""
    if spec.micro_batch is not None:
        return f"a batch in parts (micro_batch {spec.micro_batch}) has no room for others"
    return refusal(spec.model)


def fusion_key(spec: TrainSpec) -> str:
    """Trials on the same data may be fused if and only if this is equal, and `why_alone` is None."""
    common = {
        "model": apart(spec.model),
        "protocol": spec.protocol.model_dump(mode="json"),
        "batch_size": spec.batch_size,
        "precision": spec.precision,
    }
    return json.dumps(common, sort_keys=True)
