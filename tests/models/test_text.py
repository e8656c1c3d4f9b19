"""Every model with a text encoder in front of one modality: what a mask hides, what trains, what is refused.

Faked: the pretrained encoder, a BERT of width 16 with random weights, loaded and saved like a real one. The last tests
use the MiniLM that `make setup` installs, without network.
"""

import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from gapwise.data.batch import ModalityBatch, hide, join
from gapwise.data.shape import DataShape, TokenShape
from gapwise.data.store import Dataset, statistics
from gapwise.data.tokens import token_statistics
from gapwise.errors import CheckpointError, DataError, SpecError
from gapwise.models import pretrained
from gapwise.models.ablations import ABLATIONS, ablate
from gapwise.models.blocks import text
from gapwise.models.blocks.text import CallersDropout, Finetuned, encode
from gapwise.models.catalogue import build_model
from gapwise.models.interface import Alone, Loss, MultimodalModel, Quiet, SeededNoise
from gapwise.models.reading import own_weights, read_shape
from gapwise.spec.loader import validate
from gapwise.spec.model import LateFusionSpec, ModelSpec, PrlfSpec, PromiseSpec
from gapwise.spec.text import TextSpec
from gapwise.spec.train import TrainSpec
from gapwise.testing.model_contract import differentiate
from gapwise.testing.texts import UNKNOWN, WORDS, spoken, spoken_splits, tiny_encoder, write_spoken
from gapwise.training.precision import autocast

MODELS = (LateFusionSpec, PromiseSpec, PrlfSpec)
MODES = ("frozen", "prompted", "finetuned")
EACH = pytest.mark.parametrize(("kind", "mode"), list(product(MODELS, MODES)))
SMALL = {"width": 16, "heads": 2, "depth": 1, "summary_tokens": 2, "dropout": 0.0}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return spoken(tmp_path_factory.mktemp("spoken") / "d")


def spec_of(kind: type[ModelSpec], mode: str, encoder: Path, **changes: object) -> ModelSpec:
    text = {"mode": mode, "path": str(encoder)}
    return kind.model_validate({**SMALL, "text": text, **changes})


def build(spec: ModelSpec, dataset: Dataset, seed: int = 0) -> tuple[MultimodalModel, DataShape]:
    shape = read_shape(spec, dataset)
    return build_model(spec, shape, token_statistics(statistics(dataset.train), shape), seed), shape


def complete_batch(dataset: Dataset, shape: DataShape, rows: np.ndarray | None = None) -> ModalityBatch:
    return dataset.train.reading(shape).batch(np.arange(9) if rows is None else rows)


def incomplete(batch: ModalityBatch, *, mask_visible: bool = True) -> ModalityBatch:
    """Half of everything is missing; of sample 1 all, of sample 2 all text."""
    generator = torch.Generator().manual_seed(1)
    observed = {name: torch.rand(mask.shape, generator=generator) > 0.5 for name, mask in batch.attend.items()}
    for mask in observed.values():
        mask[1] = False
    observed["text"][2] = False
    return hide(batch, observed, mask_visible=mask_visible)


def loss_of(model: MultimodalModel, complete: ModalityBatch, *, mask_visible: bool = True) -> Loss:
    seen = incomplete(complete, mask_visible=mask_visible)
    loss: Loss = model(seen, complete, model.initial_state(), Quiet(), Alone())
    return loss


@EACH
class TestEveryModel:
    def test_values_under_a_visible_mask_reach_no_output(self, kind, mode, encoder, dataset):
        model, shape = build(spec_of(kind, mode, encoder), dataset)
        seen = incomplete(complete_batch(dataset, shape))
        other = seen.tokens["text"]
        junk = other._replace(ids=torch.where(seen.attend["text"], other.ids, 7))

        answers = [
            model.predict(one, model.initial_state()).output for one in (seen, seen._replace(tokens={"text": junk}))
        ]

        assert answers[0].isfinite().all()
        assert torch.equal(*answers)

    def test_an_answer_does_not_depend_on_how_far_a_batch_is_trimmed(self, kind, mode, encoder, dataset):
        model, shape = build(spec_of(kind, mode, encoder, max_tokens=8), dataset)  # shortened two by two
        lengths = dataset.train.reading(shape).lengths["text"]
        short, every = np.argsort(lengths, kind="stable")[:5], np.argsort(lengths, kind="stable")

        alone, together = (complete_batch(dataset, shape, rows) for rows in (short, every))

        assert alone.steps()["text"] < together.steps()["text"]
        first, whole = (model.predict(one, model.initial_state()).output for one in (alone, together))
        torch.testing.assert_close(first, whole[:5], rtol=1e-4, atol=1e-5)

    def test_in_evaluation_equal_texts_are_encoded_once_and_answered_alike(
        self, kind, mode, encoder, dataset, monkeypatch
    ):
        model, shape = build(spec_of(kind, mode, encoder), dataset)
        whole = complete_batch(dataset, shape)
        seen = join([whole, incomplete(whole), whole])
        encoded = []
        original = text.encode
        monkeypatch.setattr(text, "encode", lambda m, ids, *rest: encoded.append(len(ids)) or original(m, ids, *rest))

        with torch.no_grad():
            apart = model.predict(seen, model.initial_state()).output
        with torch.inference_mode():
            shared = model.predict(seen, model.initial_state()).output

        torch.testing.assert_close(shared, apart, rtol=1e-4, atol=1e-5)
        assert encoded[0] == seen.size and encoded[1] <= seen.size - whole.size

    @pytest.mark.parametrize("mask_visible", [True, False])
    def test_everything_missing_is_finite_in_value_and_gradient(self, kind, mode, encoder, dataset, mask_visible):
        model, shape = build(spec_of(kind, mode, encoder), dataset)
        complete = complete_batch(dataset, shape)
        nothing = {name: torch.zeros_like(mask) for name, mask in complete.attend.items()}
        empty = hide(complete, nothing, mask_visible=mask_visible)
        bare = empty._replace(attend={name: torch.zeros_like(mask) for name, mask in complete.attend.items()})

        for view in (empty, bare):
            loss = model(view, complete, model.initial_state(), Quiet(), Alone())
            model.zero_grad()
            differentiate(loss)
            assert loss.total.isfinite()
            assert all(part.grad is None or part.grad.isfinite().all() for part in model.parameters())

    def test_every_parameter_gets_a_gradient_and_a_frozen_encoder_has_none(self, kind, mode, encoder, dataset):
        model, shape = build(spec_of(kind, mode, encoder), dataset)
        differentiate(loss_of(model, complete_batch(dataset, shape)))

        idle = [name for name, part in model.named_parameters() if part.grad is None or not part.grad.any()]
        # Of a finetuned encoder's positions and segments only some are ever used, but the table has a gradient.
        assert not idle
        held = [name for name, _ in model.named_parameters() if ".pretrained." in name]
        assert bool(held) == (mode == "finetuned")
        if mode != "finetuned":
            frozen = model.encoders.encoders["of_text"].pretrained._held[0]
            assert all(part.grad is None and not part.requires_grad for part in frozen.parameters())

    def test_prompts_move_the_answer_only_in_prompted_mode(self, kind, mode, encoder, dataset):
        model, shape = build(spec_of(kind, mode, encoder), dataset)
        seen = complete_batch(dataset, shape)
        text = model.encoders.encoders["of_text"]

        assert (text.lift is not None) == (mode == "prompted")
        if text.lift is not None:
            prompts = model.prompting.prompts if kind is PromiseSpec else text.prompts
            before = model.encoders(seen, lambda value: value, _own(model)).summary
            with torch.no_grad():
                prompts.add_(1.0)
            after = model.encoders(seen, lambda value: value, _own(model)).summary
            text_place = model.encoders.names.index("text")
            assert not torch.allclose(before[:, text_place], after[:, text_place])
            assert torch.equal(before[:, 1 - text_place], after[:, 1 - text_place])

    def test_double_precision_and_state_follow_the_model(self, kind, mode, encoder, dataset):
        model, shape = build(spec_of(kind, mode, encoder), dataset)
        batch = complete_batch(dataset, shape)
        wide = batch._replace(values={name: value.double() for name, value in batch.values.items()})

        assert model.double().predict(wide, model.initial_state()).output.dtype == torch.float64
        assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def _own(model: MultimodalModel) -> torch.Tensor | None:
    return model.prompting.prompts if hasattr(model, "prompting") else None


class TestAvailability:
    def test_text_of_which_only_its_frame_remains_is_missing_if_the_model_may_know(self, encoder, dataset):
        model, shape = build(spec_of(LateFusionSpec, "frozen", encoder), dataset)
        complete = complete_batch(dataset, shape)
        place = model.encoders.names.index("text")

        for mask_visible in (True, False):
            seen = incomplete(complete, mask_visible=mask_visible)
            available = model.encoders(seen, lambda value: value).available[:, place]
            assert available[[1, 2]].tolist() == [not mask_visible] * 2
            assert available[0]

    def test_a_model_that_is_not_told_sees_unknown_tokens(self, encoder, dataset):
        model, shape = build(spec_of(LateFusionSpec, "frozen", encoder), dataset)
        seen = incomplete(complete_batch(dataset, shape), mask_visible=False)
        other = seen.tokens["text"]
        told = other._replace(ids=torch.where(other.ids == UNKNOWN, 6, other.ids))

        answers = [
            model.predict(one, model.initial_state()).output for one in (seen, seen._replace(tokens={"text": told}))
        ]

        assert not torch.allclose(*answers)


@pytest.mark.parametrize("kind", MODELS)
def test_each_ablation_leaves_no_parameter_without_gradient(kind, encoder, dataset):
    spec = spec_of(kind, "prompted", encoder)
    for name in ABLATIONS.get(spec.name, {}):
        model, shape = build(ablate(spec, name), dataset)
        loss = loss_of(model, complete_batch(dataset, shape))
        differentiate(loss)
        model.refresh(complete_batch(dataset, shape), loss.state, 8, Alone())
        assert not [key for key, part in model.named_parameters() if part.grad is None], name


@pytest.mark.parametrize("mode", MODES)
def test_the_empirical_fisher_information_goes_through_the_encoder(mode, encoder, dataset):
    model, shape = build(spec_of(PrlfSpec, mode, encoder, fisher="ema", fisher_every=1), dataset)
    batch = complete_batch(dataset, shape)

    state = model.refresh(batch, loss_of(model, batch).state, 1, Alone())

    assert state["fisher_ema"].isfinite().all() and (state["fisher_ema"] > 0).all()


class TestDropout:
    def test_noise_inside_a_finetuned_encoder_comes_from_the_caller(self, encoder, dataset):
        model, shape = build(spec_of(LateFusionSpec, "finetuned", encoder, dropout=0.3), dataset)
        batch = complete_batch(dataset, shape)
        model.train()
        places = [module for module in model.modules() if isinstance(module, CallersDropout)]
        assert len(places) >= 5
        before = torch.random.get_rng_state()

        def total(seed: int) -> torch.Tensor:
            noise = SeededNoise(torch.Generator().manual_seed(seed))
            return model(batch, batch, model.initial_state(), noise, Alone()).total

        assert torch.equal(total(1), total(1)) and not torch.equal(total(1), total(2))
        assert torch.equal(torch.random.get_rng_state(), before)

    @pytest.mark.parametrize("mode", ["prompted", "finetuned"])
    def test_gradient_checkpointing_changes_no_gradient(self, mode, encoder, dataset):
        gradients = []
        for checkpointing in (False, True):
            text = {"mode": mode, "path": str(encoder), "gradient_checkpointing": checkpointing}
            model, shape = build(LateFusionSpec.model_validate({**SMALL, "text": text}), dataset)
            model.train()
            differentiate(loss_of(model, complete_batch(dataset, shape)))
            gradients.append({name: part.grad for name, part in model.named_parameters()})
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("mode", MODES)
def test_bf16_autocast_gives_finite_gradients(mode, encoder, dataset):
    model, shape = build(spec_of(PromiseSpec, mode, encoder), dataset)
    with autocast("bf16", torch.device("cpu")):
        loss = loss_of(model, complete_batch(dataset, shape))
    differentiate(loss)
    assert loss.total.isfinite()
    assert all(part.grad.isfinite().all() for part in model.parameters())


class TestBuilding:
    def test_a_missing_folder_is_one_clear_error(self, dataset, tmp_path):
        spec = spec_of(LateFusionSpec, "frozen", tmp_path / "nowhere")

        with pytest.raises(SpecError, match=r"^model\.text\.path: no model at '.*nowhere' \(allowed: .*hub name"):
            build(spec, dataset)

    def test_a_name_that_no_hub_has_is_one_clear_error(self, dataset, monkeypatch):
        import huggingface_hub
        from huggingface_hub.errors import LocalEntryNotFoundError

        def fail(*_: object, **__: object) -> None:
            raise LocalEntryNotFoundError("not cached\nand no network")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        with pytest.raises(SpecError, match=r"no model 'some/model' here or on the hub .*not cached"):
            build(spec_of(LateFusionSpec, "frozen", Path("some/model")), dataset)

    @pytest.mark.parametrize("path", ["", "./here"])
    def test_a_path_that_differs_between_processes_is_refused(self, path):
        with pytest.raises(SpecError, match=r"model\.text\.path: path must be an absolute folder"):
            validate(TrainSpec, {"model": {"name": "late_fusion", "text": {"path": path}}}, where="spec")

    @pytest.mark.parametrize(
        ("gone", "message"),
        [("model.safetensors", r"no \*\.safetensors here"), ("vocab.txt", "no readable tokenizer here")],
    )
    def test_an_incomplete_folder_is_one_clear_error(self, dataset, encoder, tmp_path, gone, message):
        broken = tmp_path / "broken"
        shutil.copytree(encoder, broken)
        for name in (gone, "tokenizer_config.json")[: 2 if gone == "vocab.txt" else 1]:
            (broken / name).unlink()

        with pytest.raises(SpecError, match=message):
            build(spec_of(LateFusionSpec, "frozen", broken), dataset)

    def test_an_unknown_modality_is_refused_with_the_known_ones(self, dataset, encoder):
        text = TextSpec(path=str(encoder), modality="speech")

        with pytest.raises(SpecError, match=r"unknown modality 'speech' \(allowed: audio, text\)"):
            build(LateFusionSpec(text=text), dataset)

    def test_ids_outside_the_vocabulary_are_refused(self, dataset, tmp_path):
        narrow = tiny_encoder(tmp_path / "narrow", words=WORDS[:5])

        with pytest.raises(DataError, match=r"token id \d+: the ids were made by another tokenizer"):
            build(spec_of(LateFusionSpec, "frozen", narrow), dataset)

    def test_another_tokenizer_of_the_same_size_and_frame_is_found_out_by_the_raw_text(self, dataset, tmp_path):
        turned = tiny_encoder(tmp_path / "turned", words=tuple(reversed(WORDS)))

        with pytest.raises(DataError, match=r"gives \d+ of \d+ stored token ids for the raw text"):
            build(spec_of(LateFusionSpec, "frozen", turned), dataset)

    def test_samples_longer_than_the_encoder_are_refused(self, dataset, encoder):
        text = {"mode": "prompted", "path": str(encoder), "prompts": 30}

        with pytest.raises(SpecError, match=r"samples of 42 tokens, prompts included \(allowed: at most 32\)"):
            build(LateFusionSpec.model_validate({**SMALL, "text": text}), dataset)

    def test_frames_where_ids_are_read_are_refused(self, dataset, encoder):
        model, _ = build(spec_of(LateFusionSpec, "frozen", encoder), dataset)

        with pytest.raises(DataError, match=r"text: batch has frames \(allowed: token ids\)"):
            model.predict(dataset.train.batch(np.arange(2)), {})

    def test_other_weights_than_those_trained_on_are_refused(self, dataset, encoder, tmp_path):
        spec = spec_of(LateFusionSpec, "frozen", encoder)
        shape = read_shape(spec, dataset)
        other = spec_of(LateFusionSpec, "frozen", tiny_encoder(tmp_path / "other", seed=1))

        with pytest.raises(CheckpointError, match="not the encoder's weights that the model was trained with"):
            build_model(other, shape, token_statistics(statistics(dataset.train), shape), 0)

    def test_a_model_that_brings_its_weights_needs_no_folder(self, dataset, encoder, tmp_path):
        spec = spec_of(LateFusionSpec, "finetuned", encoder)
        model, shape = build(spec, dataset)
        moved = spec_of(LateFusionSpec, "finetuned", tmp_path / "gone")

        bare = own_weights(DataShape.model_validate_json(shape.model_dump_json()), moved.text)
        again = build_model(moved, bare, token_statistics(statistics(dataset.train), shape), 0)
        again.load_state_dict(model.state_dict())

        batch = complete_batch(dataset, shape)
        assert torch.equal(again.predict(batch, {}).output, model.predict(batch, {}).output)

    def test_building_leaves_the_global_random_state_alone(self, dataset, encoder):
        before = torch.random.get_rng_state()
        first, second = (build(spec_of(PromiseSpec, "prompted", encoder), dataset)[0] for _ in range(2))

        assert torch.equal(torch.random.get_rng_state(), before)
        assert all(torch.equal(*pair) for pair in zip(first.parameters(), second.parameters(), strict=True))


SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES = {
    "RobertaConfig": {**SIZES, "intermediate_size": 32, "max_position_embeddings": 40},
    "DistilBertConfig": {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "DebertaV2Config": {**SIZES, "intermediate_size": 32, "max_position_embeddings": 40},
    "T5Config": {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
    "Qwen3Config": {**SIZES, "intermediate_size": 32, "num_key_value_heads": 2, "head_dim": 8},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_of_encoders_do_as_well(family):
    import transformers

    written = getattr(transformers, family)(**FAMILIES[family]).to_json_string(use_diff=False)
    shape = TokenShape(vocabulary=50, unknown=3, opening=1, closing=2, config=json.loads(written), digest="")
    model = pretrained.load_encoder("not read", shape)
    ids_BT, attend_BT = torch.randint(5, 50, (3, 9)), torch.arange(9) < torch.tensor([[5], [4], [5]])

    for prefix in (None, torch.randn(2, model.config.hidden_size)):
        short, long = (encode(model, ids_BT[:, :steps], attend_BT[:, :steps], prefix) for steps in (5, 9))
        torch.testing.assert_close(short[attend_BT[:, :5]], long[attend_BT], rtol=1e-4, atol=1e-5)

    finetuned = Finetuned(model, 1e-4, noisy=True)
    finetuned(ids_BT, attend_BT, None, torch.nn.functional.silu).square().sum().backward()
    assert all(part.grad is not None for part in finetuned.parameters())


class TestMiniLM:
    def test_the_offline_alias_is_a_real_encoder_of_uncased_ids(self):
        shape = pretrained.describe(pretrained.locate("minilm"))

        assert (shape.vocabulary, shape.unknown, shape.opening, shape.closing) == (30522, 100, 101, 102)
        assert shape.config["hidden_size"] == 384
        json.dumps(shape.config, allow_nan=False)

    def test_it_loads_in_a_process_without_network_and_prints_nothing(self):
        script = (
            "import socket\n"
            "def refuse(*_): raise SystemExit('network')\n"
            "socket.socket.connect = refuse\n"
            "from gapwise.models import pretrained\n"
            "shape = pretrained.describe(pretrained.locate('minilm'))\n"
            "model = pretrained.load_encoder('minilm', shape)\n"
            "assert sum(part.numel() for part in model.parameters()) > 22e6 and model.pooler is None\n"
        )
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_ids_of_another_tokenizer_are_refused_for_it_too(self, tmp_path):
        dataset = write_spoken(spoken_splits({"train": 4, "valid": 4, "test": 4}), tmp_path / "d")

        with pytest.raises(DataError, match=r"begins with token 2: .*another tokenizer \(allowed: 101\)"):
            read_shape(LateFusionSpec(text=TextSpec()), dataset)
