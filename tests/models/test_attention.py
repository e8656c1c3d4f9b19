"""Attention and the encoder against written-out references. Faked: nothing; all inputs are random numbers."""

import torch

from gapwise.data.shape import ModalityShape, Moments
from gapwise.models.blocks.attention import Attention, AttentionPool, keep_all, masked_softmax, softmax
from gapwise.models.blocks.encoder import MaskedShortening, ModalityEncoder
from gapwise.spec.model import LateFusionSpec

torch.manual_seed(0)


def test_masked_softmax_of_nothing_is_zero_in_value_and_gradient() -> None:
    scores = torch.randn(2, 3, 4, requires_grad=True)
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    mask[0, 0] = False
    weights = masked_softmax(scores, mask)
    weights.square().sum().backward()
    assert not weights[0, 0].any() and not scores.grad[0, 0].any()
    torch.testing.assert_close(weights[0, 1:].sum(-1), torch.ones(2))
    assert scores.grad.isfinite().all()


def test_softmax_over_few_elements_is_softmax() -> None:
    for number in (1, 4, 7, 8, 9):
        scores = torch.randn(2, 3, number)
        torch.testing.assert_close(softmax(scores), scores.softmax(-1))


def test_a_query_without_keys_gets_zero_and_finite_gradients() -> None:
    attention = Attention(8, 2)
    query, context = (torch.randn(3, 4, 8, requires_grad=True) for _ in range(2))
    mask = torch.tensor([[True, True, False, True], [False] * 4, [True] * 4])
    for form in (mask, mask.unsqueeze(1).expand(-1, 4, -1)):
        out = attention(query, context, form)
        out.sum().backward()
        assert not out[1].any() and out[0].any()
        assert query.grad.isfinite().all() and context.grad.isfinite().all()
        assert not context.grad[1].any() and not context.grad[0, 2].any()


def test_attention_equals_a_loop_over_heads_and_queries() -> None:
    attention, query, context = Attention(6, 2), torch.randn(1, 3, 6), torch.randn(1, 4, 6)
    mask = torch.tensor([[True, False, True, True]])
    q, (k, v) = attention.query(query)[0], attention.key_value(context)[0].chunk(2, -1)
    rows = []
    for row in q:
        parts = []
        for head in (slice(0, 3), slice(3, 6)):
            weight = torch.softmax(k[mask[0]][:, head] @ row[head] / 3**0.5, 0)
            parts.append(weight @ v[mask[0]][:, head])
        rows.append(attention.out(torch.cat(parts)))
    torch.testing.assert_close(attention(query, context, mask)[0], torch.stack(rows))


def test_looking_part_by_part_sums_separate_attentions() -> None:
    attention, query, context = Attention(6, 2), torch.randn(2, 3, 6), torch.randn(2, 2, 4, 6)
    share = torch.rand(2, 2)
    joined = attention.look_by_part(attention.ask(query), attention.remember(context.flatten(1, 2)), share)
    separate = sum(share[:, part, None, None] * attention(query, context[:, part]) for part in range(2))
    torch.testing.assert_close(joined, separate)


def test_a_padded_token_does_not_reach_the_pool() -> None:
    pool, tokens = AttentionPool(2, 3, 4), torch.randn(5, 2, 6, 4)
    mask = torch.ones(5, 2, 6, dtype=torch.bool)
    mask[..., 4:] = False
    torch.testing.assert_close(pool(tokens, mask), pool(tokens[:, :, :4]))


def test_shortening_makes_up_for_unobserved_frames() -> None:
    shorten = MaskedShortening(2, 3)
    frames = torch.ones(1, 4, 2)
    attend = torch.tensor([[True, False, False, True]])
    tokens, observed = shorten(torch.where(attend.unsqueeze(-1), frames, 0.0), attend)
    expected = shorten.mix(torch.tensor([3.0, 3.0, 0, 0, 0, 0]))
    torch.testing.assert_close(tokens, expected.expand(1, 2, 2))
    assert observed.tolist() == [[True, True]]


def test_an_encoder_standardises_observed_frames_only() -> None:
    spec = LateFusionSpec(width=8, heads=2, summary_tokens=2)
    moments = Moments(torch.full((3,), 5.0).numpy(), torch.full((3,), 2.0).numpy())
    plain = Moments(torch.zeros(3).numpy(), torch.ones(3).numpy())
    encoders = [ModalityEncoder(spec, ModalityShape(dim=3, max_length=6), one) for one in (moments, plain)]
    encoders[1].load_state_dict(encoders[0].state_dict())
    value, attend = torch.randn(4, 6, 3), torch.rand(4, 6) > 0.5
    torch.testing.assert_close(
        encoders[0](value * 2 + 5, attend, keep_all), encoders[1](value, attend, keep_all), rtol=1e-4, atol=1e-5
    )
