"""What reliability estimation costs, as a share of a training step of PRLF, for each definition of Fisher information.

    python tests/benchmarks/reliability.py --out tests/benchmarks/results/reliability.json

A step without AMRE is another model, and the difference of two noisy steps is noisier than either. So the calls
themselves are timed, from the encoders' summaries on, in turns with whole steps (batch 64, text 50x300, audio 1x73, one
thread, as in steps.py). Counted generously, for the incomplete view with gradient and for the complete one without:

  estimate  log Fisher information, running statistics, standardising, mixing, softmax and the choice of the dominant,
            forward and backward down to the summaries; unimodal heads included, since they are what it reads
  losses    the heads' own losses (Gaussian NLL, classes, confidence), forward and backward
  refresh   `ema` only: the gradient behind the empirical Fisher information, divided by `fisher_every`

`share` is estimate with losses and refresh over a step with refresh; `share_without_losses` leaves the losses out.
"""

from collections.abc import Callable
from typing import get_args

import torch
from measuring import SIZE, Stepper, arguments, publish, taking_turns

from gapwise.models.blocks.attention import keep_all
from gapwise.models.interface import Alone
from gapwise.models.prlf import Prlf
from gapwise.spec.model import Fisher, PrlfSpec


def estimation(stepper: Stepper, *, losses: bool) -> Callable[[], None]:
    """AMRE of one training step on ready-made summaries, with what flows back from whoever reads its answer."""
    model, workers = stepper.model, Alone()
    assert isinstance(model, Prlf)
    with torch.no_grad():
        student, teacher = (model.encoders(view, keep_all) for view in (stepper.incomplete, stepper.complete))

    def estimate() -> None:
        with torch.no_grad():
            complete = model.assess(teacher, stepper.state)
        judged = model.assess(student._replace(summary=student.summary.detach().requires_grad_()), stepper.state)
        after = model.observe(judged, stepper.state, workers)
        with torch.no_grad():
            model.choose(complete, after)
        score_BM, choice = model.choose(judged, after)
        read = [score_BM.sum(), choice.weight.sum(), choice.dominant.sum()]
        if losses:
            read += model.unimodal(judged, stepper.incomplete.labels, workers).values()
        torch.stack(read).sum().backward()

    return estimate


def refresh(stepper: Stepper) -> Callable[[], object]:
    return lambda: stepper.model.refresh(stepper.incomplete, stepper.state, 0, Alone())


def measure(definition: Fisher, rounds: int, steps: int) -> dict[str, float]:
    spec = PrlfSpec(fisher=definition, **SIZE)
    step = Stepper(spec)
    works = {"step": step, "with": estimation(step, losses=True), "estimate": estimation(step, losses=False)}
    if definition == "ema":
        works["refresh"] = refresh(step)
    seconds = taking_turns(works, rounds, steps)
    spread = seconds.get("refresh", 0.0) / spec.fisher_every
    whole = seconds["step"] + spread
    return {
        "milliseconds_a_step": 1000 * whole,
        "milliseconds_estimate": 1000 * seconds["estimate"],
        "milliseconds_estimate_and_losses": 1000 * seconds["with"],
        "milliseconds_refresh_a_step": 1000 * spread,
        "share": (seconds["with"] + spread) / whole,
        "share_without_losses": (seconds["estimate"] + spread) / whole,
    }


def main() -> None:
    chosen = arguments(__doc__, rounds=20, steps=5).parse_args()
    torch.set_num_threads(1)
    found = {name: measure(name, chosen.rounds, chosen.steps) for name in get_args(Fisher)}
    publish({"steps": chosen.rounds * chosen.steps, **found}, chosen.out)


if __name__ == "__main__":
    main()
