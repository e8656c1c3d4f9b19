"""What a person may choose about a model. One class a model, told apart by `name`.

PROMISE and PRLF are reconstructions (the papers' bodies were not available): each field that is a disputed choice is
an option here, so that a team with the papers corrects it in one place. `prompt_length: 0`, `queue: 0` and a weight of
0 are the ablations.
"""

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from gapwise.spec.base import Spec
from gapwise.spec.text import TextSpec

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
Temperature = Annotated[float, Field(gt=0.0)]
MOST_COMPONENTS = 32
"""Principal directions of a modality that a model may ask for."""
Fisher = Literal["precision", "trace", "ema"]


class EncoderSpec(Spec):
    """Shared by every model: the encoder that turns a modality's frames into S summary tokens, and the task head."""

    width: Annotated[int, Field(ge=8, le=1024)] = 128
    """Model width d."""
    heads: Annotated[int, Field(ge=1, le=32)] = 8
    """Attention heads; divides `width`."""
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    """Transformer layers in each encoder and in a fusion Transformer."""
    summary_tokens: Annotated[int, Field(ge=1, le=32)] = 8
    """S: learnable query tokens that summarise a modality."""
    max_tokens: Annotated[int, Field(ge=8, le=512)] = 64
    """Longer sequences are brought down to this many tokens by a masked strided convolution."""
    encoder: Literal["transformer", "statistics"] = "transformer"
    """`transformer`: queries summarise a modality's frames by attention. `statistics`: two layers on the mean, spread
    and number of its frames, at a fraction of the price and blind to their order."""
    components: Annotated[int, Field(ge=0, le=MOST_COMPONENTS)] = 0
    """Frames are first brought down to this many principal directions of the training samples' means (never trained;
    for wide features and few samples); 0 keeps every feature. A modality read as token ids ignores it."""
    readout: Literal["pooled", "experts"] = "pooled"
    """`pooled`: one MLP on the fused representation. `experts`: each modality votes on the label's distribution, a
    product of experts, trained by cross-entropy and answered by its median (ours)."""
    hypotheses: Annotated[int, Field(ge=1, le=16)] = 8
    """`experts` only: joint explanations that the votes are mixed over."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Probability of dropping an activation, in encoders, fusion and heads."""
    task_loss: Literal["l1", "mse", "huber"] = "l1"
    """Regression only; classes use cross-entropy. l1 is the reported metric itself. With `experts`, mse answers with
    the distribution's mean, the others with its median."""
    text: TextSpec | None = None
    """Reads one modality as token ids through a pretrained encoder; without it, frames are read everywhere."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "EncoderSpec":
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got heads {self.heads} and width {self.width}")
        return self


class LateFusionSpec(EncoderSpec):
    """The baseline that every comparison carries: masked mean of encoder summaries, then an MLP."""

    name: Literal["late_fusion"] = "late_fusion"
    """Which model this is."""


class PromiseSpec(EncoderSpec):
    """PROMISE as reconstructed here (methods.md section 1)."""

    name: Literal["promise"] = "promise"
    """Which model this is."""
    prompt_length: Annotated[int, Field(ge=0, le=64)] = 8
    """L_p: learnable prompt tokens a modality. 0 is the ablation without modality prompts."""
    scenario_length: Annotated[int, Field(ge=1, le=32)] = 4
    """L_s: tokens of the scenario prompt, a sum over modalities of one of two vectors (available, missing)."""
    projection: Annotated[int, Field(ge=8, le=512)] = 64
    """Size of the unit-sphere projections that the contrastive terms compare."""
    tau_cross: Temperature = 0.1
    """FNCL temperature (cross-modal level)."""
    tau_intra: Temperature = 0.2
    """CCCL temperature (intra-modal level)."""
    w_cross: Weight = 0.1
    """Weight of FNCL; 0 is its ablation."""
    w_intra: Weight = 0.1
    """Weight of CCCL; 0 is its ablation."""
    w_rec: Weight = 0.1
    """Weight of the reconstruction of a known modality's tokens; 0 is the paper-like ablation."""
    label_bandwidth: Annotated[float, Field(gt=0.0)] = 1.0
    """h of the CCCL weights exp(-|y_i - y_j| / h), in label units (regression only)."""
    queue: Annotated[int, Field(ge=0, le=65536)] = 512
    """Samples of earlier steps whose complete-view vectors FNCL and CCCL are also compared with, because small batches
    starve InfoNCE. 0 is the ablation: nothing is kept."""


class PrlfSpec(EncoderSpec):
    """PRLF as reconstructed here (methods.md section 2)."""

    name: Literal["prlf"] = "prlf"
    """Which model this is."""
    steps: Annotated[int, Field(ge=0, le=6)] = 3
    """K: ProgInteract steps with shared weights; 0 is the ablation without interaction."""
    fisher: Fisher = "precision"
    """Definition of the Fisher information that AMRE uses."""
    likelihood: Literal["gaussian", "contaminated"] = "contaminated"
    """What the unimodal mean and variance are trained by (regression): Gaussian NLL, or a Gaussian with a learned share
    of samples in which the modality misleads (irony, a wrong face), so that they do not pass for imprecision."""
    fisher_lambda: Share = 0.2
    """lambda in r = lambda * C~ + (1 - lambda) * F~: 1 trusts recognition confidence alone, 0 Fisher information."""
    tau_rel: Temperature = 0.5
    """Temperature of the softmax over modality reliabilities."""
    w_uni: Weight = 0.3
    """Weight of the unimodal terms (NLL and class CE, averaged over available modalities)."""
    w_nll: Weight = 1.0
    """Weight of the Gaussian NLL inside the unimodal term."""
    w_conf: Weight = 0.1
    """Weight of the confidence head's squared error."""
    w_align: Weight = 0.1
    """Weight of the progressive alignment to the dominant modality; 0 is its ablation."""
    w_cons: Weight = 0.1
    """Weight of the consistency of the dominant representation between incomplete and complete input."""
    confidence_scale: Annotated[float, Field(gt=0.0)] = 0.5
    """Regression confidence is exp(-|mu - y| / confidence_scale), in label units."""
    statistics_momentum: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Step of the running statistics that standardise C and F."""
    fisher_every: Annotated[int, Field(ge=1)] = 8
    """`ema` only: training steps between two updates of the empirical Fisher information."""


ModelSpec = Annotated[PromiseSpec | PrlfSpec | LateFusionSpec, Field(discriminator="name")]
"""One more model is one more class here; everything else asks this union."""


def model_specs() -> tuple[type[EncoderSpec], ...]:
    """The classes of the union."""
    kinds: tuple[type[EncoderSpec], ...] = get_args(get_args(ModelSpec)[0])
    return kinds


def model_names() -> list[str]:
    """The names that `model.name` and a search space's arms may have."""
    return [str(kind.model_fields["name"].default) for kind in model_specs()]
