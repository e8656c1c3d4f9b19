"""Named ablations: for each model, which fields to change to take one idea out of it.

An ablation is an update of spec fields and nothing else, so that it is stored, hashed and reported like any other run.
"""

from typing import Any

from gapwise.errors import SpecError, nearest
from gapwise.spec.model import ModelSpec

ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "promise": {
        "no_prompts": {"prompt_length": 0},
        "no_fncl": {"w_cross": 0.0},
        "no_cccl": {"w_intra": 0.0},
        "no_contrast": {"w_cross": 0.0, "w_intra": 0.0},
        "no_reconstruction": {"w_rec": 0.0},
        "no_queue": {"queue": 0},
    },
    "prlf": {
        "no_interaction": {"steps": 0},
        "no_alignment": {"w_align": 0.0},
        "no_consistency": {"w_cons": 0.0},
        "no_unimodal": {"w_uni": 0.0, "w_conf": 0.0},
        "confidence_only": {"fisher_lambda": 1.0},
        "fisher_only": {"fisher_lambda": 0.0},
        "gaussian_likelihood": {"likelihood": "gaussian"},
        "fisher_trace": {"fisher": "trace"},
        "fisher_ema": {"fisher": "ema"},
    },
}


def ablate(spec: ModelSpec, ablation: str) -> ModelSpec:
    """The spec with one idea taken out. Raises SpecError for an ablation that the model does not have."""
    known = ABLATIONS.get(spec.name, {})
    if ablation not in known:
        raise SpecError(
            f"unknown ablation {ablation!r} of {spec.name}{nearest(ablation, known)}", allowed=sorted(known) or "none"
        )
    return type(spec).model_validate({**spec.model_dump(), **known[ablation]})
