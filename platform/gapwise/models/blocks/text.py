"""A pretrained text encoder in front of a modality encoder: token ids to summary tokens (methods.md section 1, ours).

Ids go through a Hugging Face encoder; its states, layer-normalised, take the place of frames, and from there on text is
encoded like any other modality. Frozen weights belong to the file they came from: they are no parameters of the model
and in none of its checkpoints. Finetuned ones are ordinary parameters with a learning rate of their own. Prompts stand
before the input embeddings, at the encoder's own first positions. Dropout is the caller's, inside the encoder too, but
not under gradient checkpointing, where the second computation would draw other noise.

Not for `torch.func.vmap`: Hugging Face encoders have no promise of batching rules, so trials with one are never fused.

Shape legend: B samples, T tokens, H width of the pretrained encoder, L prompt tokens, W model width, S summary tokens.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gapwise.data.batch import Tokens
from gapwise.data.shape import ModalityShape, Moments
from gapwise.models import pretrained
from gapwise.models.blocks.attention import Drop, keep_all
from gapwise.models.blocks.encoder import learnable_tokens
from gapwise.models.blocks.frames import frame_encoder
from gapwise.models.interface import OwnRate
from gapwise.spec.model import EncoderSpec
from gapwise.spec.text import TextSpec


class TextEncoder(nn.Module):
    """Summary tokens of a modality of token ids. `prompts` is the length of those that the model hands in with each
    call, None where it has none and the encoder keeps its own."""

    def __init__(self, spec: EncoderSpec, text: TextSpec, shape: ModalityShape, prompts: int | None) -> None:
        super().__init__()
        assert shape.tokens is not None, "built for token ids"
        self.unknown = shape.tokens.unknown
        model: Any = pretrained.load_encoder(text.path, shape.tokens)
        states = int(model.config.hidden_size)
        if text.gradient_checkpointing:
            pretrained.checkpoint_activations(model)
        self.pretrained: Frozen | Finetuned
        if text.mode == "finetuned":
            self.pretrained = Finetuned(model, text.lr, noisy=not text.gradient_checkpointing)
        else:
            self.pretrained = Frozen(model, checkpointing=text.gradient_checkpointing)
        length = (text.prompts if prompts is None else prompts) if text.mode == "prompted" else 0
        self.prompts = learnable_tokens(length, spec.width) if length and prompts is None else None
        self.lift = nn.Linear(spec.width, states) if length else None
        plain = Moments(np.zeros(states, np.float32), np.ones(states, np.float32))
        whole = spec.model_copy(update={"components": 0})
        self.summarise = frame_encoder(whole, ModalityShape(dim=states, max_length=shape.max_length), plain)

    def forward(self, tokens: Tokens, attend_BT: Tensor, drop: Drop, prompts_LW: Tensor | None = None) -> Tensor:
        """(B, S, W) summary tokens; finite for any `attend_BT`."""
        ids_BT = torch.where(attend_BT, tokens.ids, self.unknown)
        # Attention over nothing is left undefined by the pretrained encoder; what it answers there is not looked at.
        alive_BT = torch.cat([attend_BT[:, :1] | ~attend_BT.any(1, keepdim=True), attend_BT[:, 1:]], dim=1)
        states_BTH = self._states(ids_BT, alive_BT, self._prefix(prompts_LW), drop)
        states_BTH = drop(functional.layer_norm(states_BTH, states_BTH.shape[-1:]))
        summary_BSW: Tensor = self.summarise(states_BTH, attend_BT, drop)
        return summary_BSW

    def _states(self, ids_BT: Tensor, alive_BT: Tensor, prefix_LH: Tensor | None, drop: Drop) -> Tensor:
        """(B, T, H). In evaluation, texts that look the same under different masks are encoded once."""
        if not torch.is_inference_mode_enabled():
            states_BTH: Tensor = self.pretrained(ids_BT, alive_BT, prefix_LH, drop)
            return states_BTH
        seen_BX = torch.cat([ids_BT, alive_BT.to(ids_BT.dtype)], dim=1)
        once_UX, place_B = torch.unique(seen_BX, dim=0, return_inverse=True)
        ids_UT, alive_UT = once_UX.chunk(2, dim=1)
        states_UTH: Tensor = self.pretrained(ids_UT, alive_UT.to(alive_BT.dtype), prefix_LH, drop)
        return states_UTH[place_B]

    def _prefix(self, prompts_LW: Tensor | None) -> Tensor | None:
        if self.lift is None:
            return None
        lifted_LH: Tensor = self.lift(prompts_LW if self.prompts is None else self.prompts)
        return lifted_LH


class Frozen(nn.Module):
    """The encoder outside of parameters, buffers and checkpoints; it still follows the model's device and precision."""

    def __init__(self, model: nn.Module, *, checkpointing: bool) -> None:
        super().__init__()
        # Checkpointing is only done in training mode, which without any dropout computes the same.
        model.requires_grad_(False).train(checkpointing)
        self._held: tuple[Any] = (model,)

    def forward(self, ids_BT: Tensor, attend_BT: Tensor, prefix_LH: Tensor | None, drop: Drop) -> Tensor:
        """(B, T, H). Without a prefix there is nothing to differentiate."""
        del drop
        if prefix_LH is not None:
            return encode(self._held[0], ids_BT, attend_BT, prefix_LH)
        with torch.no_grad():
            return encode(self._held[0], ids_BT, attend_BT, None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        self._held[0]._apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class Finetuned(OwnRate):
    """The encoder as part of the model."""

    def __init__(self, model: nn.Module, learning_rate: float, *, noisy: bool) -> None:
        super().__init__(learning_rate)
        self.model = model
        self.noisy = noisy
        self.noise = replace_dropout(model)

    def forward(self, ids_BT: Tensor, attend_BT: Tensor, prefix_LH: Tensor | None, drop: Drop) -> Tensor:
        """(B, T, H)."""
        for place in self.noise:
            place.drop = drop if self.noisy else keep_all
        return encode(self.model, ids_BT, attend_BT, prefix_LH)


class CallersDropout(nn.Module):
    """Stands where a pretrained encoder had its own dropout. `p` is 0 for code that passes it on to a kernel."""

    p = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.drop: Drop = keep_all

    def forward(self, value: Tensor) -> Tensor:
        return self.drop(value)


def replace_dropout(model: nn.Module) -> tuple[CallersDropout, ...]:
    """Put the caller's dropout in the place of the encoder's own, in place."""
    found = [name for name, module in model.named_modules() if isinstance(module, nn.Dropout)]
    made = tuple(CallersDropout() for _ in found)
    for name, module in zip(found, made, strict=True):
        model.set_submodule(name, module)
    return made


def encode(model: Any, ids_BT: Tensor, attend_BT: Tensor, prefix_LH: Tensor | None) -> Tensor:
    """(B, T, H) last states of the tokens; a prefix is attended by all of them and not returned."""
    if prefix_LH is None:
        states_BTH: Tensor = model(input_ids=ids_BT, attention_mask=attend_BT.long()).last_hidden_state
        return states_BTH
    batch, length = ids_BT.shape[0], prefix_LH.shape[0]
    embedded_BTH = model.get_input_embeddings()(ids_BT)
    prefix_BLH = prefix_LH.to(embedded_BTH.dtype).expand(batch, -1, -1)
    mask_BX = torch.cat([attend_BT.new_ones(batch, length), attend_BT], dim=1)
    whole_BXH = torch.cat([prefix_BLH, embedded_BTH], dim=1)
    states_BXH: Tensor = model(inputs_embeds=whole_BXH, attention_mask=mask_BX.long()).last_hidden_state
    return states_BXH[:, length:]
