"""What a generated modality may depend on. Faked: encoder summaries, as random numbers."""

import torch

from gapwise.models.blocks.attention import keep_all
from gapwise.models.blocks.bank import Encoded
from gapwise.models.blocks.prompting import PromptAttention
from gapwise.spec.model import PromiseSpec

AVAILABLE = torch.tensor([[True, True, True], [True, False, True], [False, False, True]])


def prompting(length: int = 3) -> PromptAttention:
    spec = PromiseSpec(width=16, heads=2, summary_tokens=2, prompt_length=length, scenario_length=2)
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(0)
        return PromptAttention(spec, 3)


def test_a_modality_is_generated_as_if_it_were_missing() -> None:
    block, summary = prompting(), torch.randn(3, 3, 2, 16)
    told = block(Encoded(summary, AVAILABLE, AVAILABLE.float()), keep_all).generated
    hidden = AVAILABLE & torch.tensor([True, False, True])
    other = summary.clone()
    other[:, 1] = torch.randn(3, 2, 16)
    torch.testing.assert_close(block(Encoded(other, hidden, hidden.float()), keep_all).generated[:, 1], told[:, 1])


def test_real_tokens_are_used_where_available_and_generated_ones_elsewhere() -> None:
    for length in (0, 3):
        prompted = prompting(length)(Encoded(torch.randn(3, 3, 2, 16), AVAILABLE, AVAILABLE.float()), keep_all)
        same = (prompted.tokens == prompted.generated).flatten(2).all(-1)
        assert torch.equal(same, ~AVAILABLE)


def test_scenarios_tell_every_subset_apart() -> None:
    block = prompting()
    scenarios = block(Encoded(torch.randn(3, 3, 2, 16), AVAILABLE, AVAILABLE.float()), keep_all).scenario
    expected = block.scenarios[0, 1] + block.scenarios[1, 0] + block.scenarios[2, 1]
    torch.testing.assert_close(scenarios[1], expected)
