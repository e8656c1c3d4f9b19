"""`ModelContract`: what every model of the catalogue, and every model somebody adds, must do.

Inherit it in a test file and set `spec`; override `build` for a model that is not in the catalogue. The batches are
synthetic and tiny: three modalities of different length and size, one of them long enough to be shortened, with
samples that miss frames, whole modalities, or everything.

Shape legend: B samples, T steps, D features.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from gapwise.data.batch import ModalityBatch, hide
from gapwise.data.shape import DataShape, ModalityShape, Moments, Statistics, Task
from gapwise.models.ablations import ABLATIONS, ablate
from gapwise.models.catalogue import build_model
from gapwise.models.interface import Alone, Loss, MultimodalModel, Noise, Prediction, Quiet, SeededNoise, State
from gapwise.spec.model import MOST_COMPONENTS, ModelSpec

SIZES = {"text": (7, 6), "audio": (5, 1), "vision": (4, 30), "pulse": (2, 9), "depth": (3, 4)}
"""(features, longest sample) by modality; `vision` is longer than the small specs' `max_tokens`."""

SAMPLES = 9
"""Odd, so that the signs which make up an l1 gradient cannot cancel."""

Named = dict[str, Tensor]


def small(spec: ModelSpec) -> ModelSpec:
    """The spec at a size that runs in milliseconds, without dropout."""
    sizes = {"width": 16, "heads": 2, "summary_tokens": 2, "max_tokens": 8, "dropout": 0.0}
    return type(spec).model_validate({**spec.model_dump(), **sizes})


def synthetic_shape(modalities: int, task: Task) -> DataShape:
    names = list(SIZES)[:modalities]
    shapes = {name: ModalityShape(dim=SIZES[name][0], max_length=SIZES[name][1]) for name in names}
    if task == "classification":
        return DataShape(task=task, modalities=shapes, label_range=(0.0, 2.0), classes=3)
    return DataShape(task=task, modalities=shapes, label_range=(-3.0, 3.0))


def synthetic_statistics(shape: DataShape) -> Statistics:
    moments = {
        name: Moments(np.full(part.dim, 0.1, np.float32), np.full(part.dim, 1.1, np.float32))
        for name, part in shape.modalities.items()
    }
    principal = {name: np.eye(part.dim, dtype=np.float32)[:MOST_COMPONENTS] for name, part in shape.modalities.items()}
    return Statistics(moments, label_mean=0.2, label_deviation=1.3, principal=principal)


def complete_batch(shape: DataShape, size: int, seed: int = 0) -> ModalityBatch:
    """Samples of uneven length whose label is the mean of every modality's first feature: learnable, and float64."""
    generator = torch.Generator().manual_seed(seed)
    values, attend = {}, {}
    signal_B = torch.randn(size, generator=generator, dtype=torch.float64)
    for name in sorted(shape.modalities):
        part = shape.modalities[name]
        value_BTD = torch.randn(size, part.max_length, part.dim, generator=generator, dtype=torch.float64)
        value_BTD[:, :, 0] = signal_B.unsqueeze(1) + 0.1 * value_BTD[:, :, 0]
        length_B = torch.randint(1, part.max_length + 1, (size,), generator=generator)
        attend[name] = torch.arange(part.max_length) < length_B.unsqueeze(1)
        values[name] = torch.where(attend[name].unsqueeze(-1), value_BTD, 0.0)
    labels_B = (signal_B > -0.5).long() + (signal_B > 0.5).long() if shape.task == "classification" else signal_B
    return ModalityBatch(values, attend, labels_B, torch.arange(size))


def incomplete_batch(complete: ModalityBatch, seed: int = 1) -> ModalityBatch:
    """Frames missing at random; sample 0 keeps everything, 1 loses everything, 2 keeps only its first modality."""
    generator = torch.Generator().manual_seed(seed)
    observed = {}
    for position, name in enumerate(sorted(complete.values)):
        kept_BT = torch.rand(complete.attend[name].shape, generator=generator) > 0.4
        kept_BT[:1] = True
        kept_BT[1:2] = False
        kept_BT[2:3] = position == 0
        observed[name] = kept_BT
    return hide(complete, observed, mask_visible=True)


def fill_hidden(batch: ModalityBatch, fill: float) -> ModalityBatch:
    """The same batch with `fill` wherever the model may not look."""
    values = {name: torch.where(batch.attend[name].unsqueeze(-1), value, fill) for name, value in batch.values.items()}
    return batch._replace(values=values)


def differentiate(loss: Loss) -> None:
    """Leave the gradient of `total` in the parameters."""
    loss.total.backward()  # type: ignore[no-untyped-call]


def stir(model: MultimodalModel, factor: float) -> None:
    """Scale every hyperparameter buffer, so that stacked configurations differ whatever their fields are."""
    for buffer in model.buffers():
        if buffer.dim() == 0:
            buffer.mul_(factor)


def stacked(models: list[MultimodalModel], states: list[State] | None = None) -> tuple[Named, Named, State]:
    """Parameters, buffers and (initial) states of several configurations, each along a new first axis."""
    parameters, buffers = torch.func.stack_module_state(list(models))
    states = [model.initial_state() for model in models] if states is None else states
    return parameters, buffers, {name: torch.stack([one[name] for one in states]) for name in states[0]}


class After(nn.Module):
    """`refresh`, then `predict`, as a forward pass, which is what `functional_call` can reach."""

    def __init__(self, model: MultimodalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: ModalityBatch, state: State) -> tuple[State, Prediction]:
        state = self.model.refresh(batch, state, 8, Alone())
        return state, self.model.predict(batch, state)


class ModelContract:
    """Set `spec` in a subclass whose name starts with Test."""

    spec: ClassVar[ModelSpec]

    def build(self, spec: ModelSpec, shape: DataShape, seed: int = 0) -> MultimodalModel:
        return build_model(spec, shape, synthetic_statistics(shape), seed).double()

    def ready(self, modalities: int = 3, task: Task = "regression") -> tuple[MultimodalModel, ModalityBatch]:
        shape = synthetic_shape(modalities, task)
        return self.build(small(self.spec), shape), complete_batch(shape, SAMPLES)

    def loss(
        self, model: MultimodalModel, complete: ModalityBatch, noise: Noise | None = None, state: State | None = None
    ) -> Loss:
        state = model.initial_state() if state is None else state
        answer: Loss = model(incomplete_batch(complete), complete, state, noise or Quiet(), Alone())
        return answer

    def test_everything_missing_gives_a_finite_answer_loss_and_gradient(self) -> None:
        model, complete = self.ready()
        nothing = {name: torch.zeros_like(mask) for name, mask in complete.attend.items()}
        empty = hide(complete, nothing, mask_visible=True)
        for view in (complete, empty):
            loss = model(empty, view, model.initial_state(), Quiet(), Alone())
            differentiate(loss)
            assert loss.total.isfinite()
        assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())
        assert model.predict(empty, model.initial_state()).output.isfinite().all()

    def test_one_sample_is_a_batch(self) -> None:
        shape = synthetic_shape(2, "regression")
        model, complete = self.build(small(self.spec), shape), complete_batch(shape, 1)
        loss = self.loss(model, complete)
        differentiate(loss)
        assert loss.total.isfinite()
        assert model.predict(complete, loss.state).output.shape == (1,)

    def test_an_answer_does_not_depend_on_the_other_samples(self) -> None:
        model, complete = self.ready()
        whole = model.predict(complete, model.initial_state()).output
        torch.testing.assert_close(model.predict(complete.part(slice(3)), model.initial_state()).output, whole[:3])

    def test_values_under_a_mask_change_nothing(self) -> None:
        model, complete = self.ready()
        incomplete = incomplete_batch(complete)
        expected = self.loss(model, complete)
        for fill in (float("nan"), 1e6):
            views = fill_hidden(incomplete, fill), fill_hidden(complete, fill)
            loss = model(*views, model.initial_state(), Quiet(), Alone())
            assert torch.equal(loss.total, expected.total)
            answers = (model.predict(view, loss.state).output for view in (views[0], incomplete))
            assert torch.equal(*answers)
            model.zero_grad()
            differentiate(loss)
            assert all(part.grad is None or part.grad.isfinite().all() for part in model.parameters())

    def test_the_order_of_modalities_does_not_matter(self) -> None:
        shape = synthetic_shape(3, "regression")
        turned = shape.model_copy(update={"modalities": dict(reversed(shape.modalities.items()))})
        complete = complete_batch(shape, SAMPLES)
        other = complete._replace(
            values=dict(reversed(complete.values.items())), attend=dict(reversed(complete.attend.items()))
        )
        losses = [
            self.loss(self.build(small(self.spec), one), batch).total
            for one, batch in ((shape, complete), (turned, other))
        ]
        assert torch.equal(*losses)

    def test_every_parameter_gets_a_gradient(self) -> None:
        for task in ("regression", "classification"):
            model, complete = self.ready(task=task)
            differentiate(self.loss(model, complete))
            idle = [name for name, part in model.named_parameters() if part.grad is None or not part.grad.any()]
            assert not idle, f"{task}: no gradient for {idle}"

    def test_fused_configurations_equal_separate_ones(self) -> None:
        shape = synthetic_shape(3, "regression")
        complete = complete_batch(shape, SAMPLES)
        models = [self.build(small(self.spec), shape, seed) for seed in range(3)]
        for position, model in enumerate(models):
            stir(model, 1.0 + 0.2 * position)
        states = [model.initial_state() for model in models]
        for _ in ("from the initial states", "from those that one step leaves"):
            separate = [self._gradients(*both, complete) for both in zip(models, states, strict=True)]
            fused_gradients, fused_loss = self._fused_gradients(models, states, complete)
            for position, (gradients, loss) in enumerate(separate):
                torch.testing.assert_close(fused_loss.total[position], loss.total)
                for name, value in loss.state.items():
                    torch.testing.assert_close(fused_loss.state[name][position], value)
                for name, gradient in gradients.items():
                    torch.testing.assert_close(fused_gradients[name][position], gradient, rtol=1e-7, atol=1e-10)
            states = [loss.state for _, loss in separate]

    def _gradients(self, model: MultimodalModel, state: State, complete: ModalityBatch) -> tuple[Named, Loss]:
        model.zero_grad(set_to_none=True)
        loss = self.loss(model, complete, state=state)
        differentiate(loss)
        return {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}, loss

    def test_parts_of_a_batch_add_up_to_its_gradient_just_where_the_model_says_so(self) -> None:
        for task in ("regression", "classification"):
            model, complete = self.ready(task=task)
            incomplete, state = incomplete_batch(complete), model.initial_state()
            whole, loss = self._gradients(model, state, complete)
            model.zero_grad()
            after = state
            for rows in (slice(0, 2), slice(2, SAMPLES)):
                part: Loss = model(incomplete.part(rows), complete.part(rows), after, Quiet(), Alone())
                ((rows.stop - rows.start) / SAMPLES * part.total).backward()  # type: ignore[no-untyped-call]
                after = part.state
            parts = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
            found = {**whole, **{f"state {name}": value for name, value in loss.state.items()}}
            again = {**parts, **{f"state {name}": value for name, value in after.items()}}
            equal = all(torch.allclose(found[name], again[name], rtol=1e-7, atol=1e-12) for name in found)
            assert equal == model.separable, f"{task}: separable is {model.separable}, and parts add up: {equal}"

    def _fused_gradients(
        self, models: list[MultimodalModel], states: list[State], complete: ModalityBatch
    ) -> tuple[Named, Loss]:
        parameters, buffers, state = stacked(models, states)
        incomplete = incomplete_batch(complete)

        def objective(part: Named, fixed: Named, now: State) -> tuple[Tensor, Loss]:
            loss: Loss = functional_call(models[0], (part, fixed), (incomplete, complete, now, Quiet(), Alone()))
            return loss.total, loss

        gradients, (_, loss) = vmap(grad_and_value(objective, has_aux=True))(parameters, buffers, state)
        return gradients, loss

    def test_fused_refresh_and_answer_equal_separate_ones(self) -> None:
        shape = synthetic_shape(3, "regression")
        complete = complete_batch(shape, SAMPLES)
        models = [self.build(small(self.spec), shape, seed) for seed in range(3)]
        after = After(models[0])

        def answer(part: Named, fixed: Named, now: State) -> tuple[State, Prediction]:
            named = [{f"model.{name}": value for name, value in some.items()} for some in (part, fixed)]
            found: tuple[State, Prediction] = functional_call(after, named, (complete, now))
            return found

        fused_state, fused = vmap(answer)(*stacked(models))
        for position, model in enumerate(models):
            state, prediction = After(model)(complete, model.initial_state())
            torch.testing.assert_close(fused.output[position], prediction.output)
            torch.testing.assert_close({name: value[position] for name, value in fused_state.items()}, state)

    def test_fused_dropout_differs_between_configurations(self) -> None:
        shape = synthetic_shape(2, "regression")
        spec = type(self.spec).model_validate({**small(self.spec).model_dump(), "dropout": 0.3})
        models = [self.build(spec, shape, 0) for _ in range(2)]
        complete, noise = complete_batch(shape, SAMPLES), SeededNoise(torch.Generator().manual_seed(0))

        def total(part: Named, fixed: Named, now: State) -> Tensor:
            loss: Loss = functional_call(models[0], (part, fixed), (complete, complete, now, noise, Alone()))
            return loss.total

        first, second = vmap(total, randomness="different")(*stacked(models))
        assert first != second

    def test_training_lowers_the_task_loss(self) -> None:
        for task in ("regression", "classification"):
            shape = synthetic_shape(2, task)
            model, complete = self.build(small(self.spec), shape), complete_batch(shape, 16)
            losses = self._train(model, complete, steps=60)
            assert losses[-1] < 0.75 * losses[0], f"{task}: {losses[0]:.3f} became {losses[-1]:.3f}"

    def _train(self, model: MultimodalModel, complete: ModalityBatch, steps: int) -> list[float]:
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        state, losses = model.initial_state(), []
        for step in range(1, steps + 1):
            loss = model(incomplete_batch(complete), complete, state, Quiet(), Alone())
            optimiser.zero_grad()
            differentiate(loss)
            optimiser.step()
            state = model.refresh(complete, loss.state, step, Alone())
            losses.append(float(loss.terms["task"]))
        return losses

    def test_mixed_precision_trains_and_answers(self) -> None:
        """bf16 autocast, which `precision: auto` turns on where a GPU has it; here on the CPU."""
        shape = synthetic_shape(3, "regression")
        model = self.build(small(self.spec), shape).float()
        complete = complete_batch(shape, SAMPLES)
        complete = complete._replace(
            values={name: value.float() for name, value in complete.values.items()}, labels=complete.labels.float()
        )
        incomplete, state = incomplete_batch(complete), model.initial_state()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(incomplete, complete, state, SeededNoise(torch.Generator().manual_seed(0)), Alone())
        loss.total.backward()
        state = model.refresh(incomplete, loss.state, 0, Alone())
        with torch.autocast("cpu", torch.bfloat16):
            answer = model.predict(incomplete, state).output
        assert loss.total.isfinite() and answer.isfinite().all()
        before = model.initial_state()
        assert {name: one.dtype for name, one in state.items()} == {name: one.dtype for name, one in before.items()}

    def test_each_ablation_builds_and_trains_a_step(self) -> None:
        shape = synthetic_shape(3, "regression")
        for name in ABLATIONS.get(self.spec.name, {}):
            model = self.build(ablate(small(self.spec), name), shape)
            assert np.isfinite(self._train(model, complete_batch(shape, SAMPLES), steps=1)).all(), name
            unused = [key for key, part in model.named_parameters() if part.grad is None]
            assert not unused, f"{name}: DDP would refuse parameters without a gradient: {unused}"

    def test_a_checkpoint_holds_parameters_and_no_hyperparameter(self) -> None:
        model, _ = self.ready()
        parameters = {name for name, _ in model.named_parameters()}
        kept = model.state_dict()
        assert parameters <= set(kept)
        # What else is kept was found in the training data (a stem's directions); hyperparameters have no dimension.
        assert all(kept[name].dim() > 0 for name in set(kept) - parameters)

    def test_state_keeps_its_keys_and_shapes(self) -> None:
        model, complete = self.ready()
        before = model.initial_state()
        after = model.refresh(complete, self.loss(model, complete).state, 8, Alone())
        assert {name: value.shape for name, value in before.items()} == {name: one.shape for name, one in after.items()}

    def test_the_state_kept_with_a_trained_model_is_enough_to_answer(self) -> None:
        model, complete = self.ready()
        state = self.loss(model, complete).state
        whole, kept = (model.predict(complete, one).output for one in (state, model.serving_state(state)))
        assert torch.equal(whole, kept)

    def test_any_number_of_modalities_and_either_task(self) -> None:
        for modalities in (1, 2, 3, 5):
            for task in ("regression", "classification"):
                model, complete = self.ready(modalities, task)
                loss = self.loss(model, complete)
                differentiate(loss)
                output = model.predict(incomplete_batch(complete), loss.state).output
                assert output.shape == ((SAMPLES,) if task == "regression" else (SAMPLES, 3))
                assert loss.total.isfinite() and output.isfinite().all()

    def test_shorter_sequences_than_built_for_are_welcome(self) -> None:
        model, complete = self.ready()
        for steps in (1, 5):
            short = complete._replace(
                values={name: value[:, :steps] for name, value in complete.values.items()},
                attend={name: mask[:, :steps] for name, mask in complete.attend.items()},
            )
            assert self.loss(model, short).total.isfinite()

    def test_dropout_noise_comes_from_the_caller(self) -> None:
        shape = synthetic_shape(2, "regression")
        spec = type(self.spec).model_validate({**small(self.spec).model_dump(), "dropout": 0.3})
        model, complete = self.build(spec, shape), complete_batch(shape, SAMPLES)
        first, again, other = (
            self.loss(model, complete, SeededNoise(torch.Generator().manual_seed(seed))).total for seed in (1, 1, 2)
        )
        assert torch.equal(first, again) and not torch.equal(first, other)
