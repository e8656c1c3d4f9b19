"""Identity: the same run has the same digest however it was written, and nothing ambiguous has one.

Nothing is faked.
"""

import pytest

from gapwise.spec.fingerprint import canonical, fingerprint
from gapwise.spec.loader import validate
from gapwise.spec.model import PromiseSpec
from gapwise.spec.train import OptimiserSpec, TrainSpec


def test_the_order_of_keys_does_not_matter():
    first = {"seed": 1, "optimiser": {"lr": 0.1, "clip": 2.0}}
    second = {"optimiser": {"clip": 2.0, "lr": 0.1}, "seed": 1}

    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(validate(TrainSpec, first, where="")) == fingerprint(validate(TrainSpec, second, where=""))


def test_writing_a_default_down_does_not_matter():
    assert fingerprint(validate(TrainSpec, {"epochs": 20}, where="")) == fingerprint(TrainSpec())


def test_a_whole_number_for_a_real_one_does_not_matter():
    whole = validate(TrainSpec, {"optimiser": {"clip": 1}}, where="")

    assert fingerprint(whole) == fingerprint(TrainSpec())


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"model": PromiseSpec()},
        {"model": PromiseSpec(tau_cross=0.11)},
        {"optimiser": OptimiserSpec(lr=1.0000001e-3)},
    ],
)
def test_every_value_matters(changed):
    assert fingerprint(TrainSpec().model_copy(update=changed)) != fingerprint(TrainSpec())


def test_it_is_64_hexadecimal_digits():
    assert len(fingerprint(TrainSpec())) == 64
    assert set(fingerprint(TrainSpec())) <= set("0123456789abcdef")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_without_a_canonical_form_are_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"x": value})
    with pytest.raises(ValueError, match="JSON"):
        fingerprint(TrainSpec().model_copy(update={"optimiser": OptimiserSpec().model_copy(update={"lr": value})}))


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}])
def test_what_is_not_json_is_refused(value):
    with pytest.raises(TypeError):
        fingerprint({"x": value})


def test_the_canonical_form_is_pinned():
    assert canonical({"b": [1, 2.5, True, None], "a": "é"}) == rb'{"a":"\u00e9","b":[1,2.5,true,null]}'
