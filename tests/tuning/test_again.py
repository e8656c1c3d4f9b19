"""Refits of what won before, without Ray: the space and the winners that a refit is made of."""

import pytest

from gapwise.errors import SpecError
from gapwise.spec.train import TrainSpec
from gapwise.tuning.again import refit_space, refit_winners
from gapwise.tuning.space import trial_spec


def trained(name, **changes):
    fields = {"model": {"name": name, "width": 16, "heads": 2}, "epochs": 7, "seed": 1003, "optimiser": {"lr": 0.003}}
    return TrainSpec.model_validate(fields | changes)


def test_every_version_is_trained_as_it_was_but_for_its_seed():
    specs = {"4": trained("prlf", micro_batch=8), "2": trained("prlf", epochs=3), "1": trained("late_fusion")}
    space = refit_space(specs, "why?", seeds=2, mask_seeds=5, seed=11)

    winners = refit_winners(specs)

    assert [(one.key, one.epochs, one.micro_batch) for one in winners] == [
        ("prlf-4", 7, 8),
        ("prlf-2", 3, None),
        ("late_fusion-1", 7, None),
    ]
    for one, spec in zip(winners, specs.values(), strict=True):
        again = trial_spec(space, one.arm, one.values, seed=1).model_copy(update={"epochs": one.epochs})
        assert again == spec.model_copy(update={"seed": 1})


def test_champions_that_answer_different_questions_cannot_be_refitted_together():
    other = trained("late_fusion", protocol={"name": "block"})

    with pytest.raises(SpecError, match="version 2: champions of another protocol cannot be refitted in one study"):
        refit_space({"4": trained("prlf"), "2": other}, "why?", seeds=2, mask_seeds=5, seed=0)
