"""Training steps a second of each model against late_fusion, at equal width and depth, interleaved in one run.

    python tests/benchmarks/steps.py --out tests/benchmarks/results/steps.json

One step is forward, backward and optimiser on a batch of 64 with text 50x300 and audio 1x73 (the shapes of MOSI), one
thread, dropout on, some of the frames missing. Models take turns every few steps; figures are medians over all steps.
"""

import torch
from measuring import SIZE, Stepper, arguments, publish, taking_turns

from gapwise.spec.model import LateFusionSpec, PrlfSpec, PromiseSpec


def main() -> None:
    chosen = arguments(__doc__, rounds=20, steps=5).parse_args()
    torch.set_num_threads(1)
    models = {spec.name: Stepper(spec) for spec in (LateFusionSpec(**SIZE), PromiseSpec(**SIZE), PrlfSpec(**SIZE))}
    medians = taking_turns(models, chosen.rounds, chosen.steps)
    found = {
        "steps": chosen.rounds * chosen.steps,
        "milliseconds_a_step": {name: 1000 * value for name, value in medians.items()},
        "rate_against_late_fusion": {name: medians["late_fusion"] / value for name, value in medians.items()},
    }
    publish(found, chosen.out)


if __name__ == "__main__":
    main()
