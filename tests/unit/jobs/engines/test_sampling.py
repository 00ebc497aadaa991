"""Drawing tokens."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from selfemo_jobs.engines.sampling import BLOCK, draw, processed_logprobs, uniforms


def test_temperature_and_top_p_as_defined() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    plain = processed_logprobs(logits, 1.0, 1.0).exp()
    torch.testing.assert_close(plain, torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    cut = processed_logprobs(logits, 1.0, 0.7).exp()
    torch.testing.assert_close(cut, torch.tensor([[0.625, 0.375, 0.0, 0.0]]))
    sharp = processed_logprobs(logits, 0.5, 1.0).exp()
    squared = torch.tensor([[0.25, 0.09, 0.0225, 0.0025]])
    torch.testing.assert_close(sharp, squared / squared.sum())


@given(st.floats(0.01, 1.0), st.integers(0, 2**31), st.floats(0.0, 1.0, exclude_max=True))
def test_a_token_of_probability_zero_is_never_drawn(top_p: float, seed: int, u: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logprobs = processed_logprobs(torch.randn(3, 11, generator=generator) * 3, 1.0, top_p)
    tokens = draw(logprobs, torch.full((3, 2), u, dtype=torch.float64))
    assert torch.isfinite(logprobs.gather(-1, tokens)).all()


def test_shares_drawn_follow_the_distribution() -> None:
    expected = torch.tensor([0.0, 0.6, 0.1, 0.0, 0.3])
    noise = uniforms(3, 0, 5_000, 4)
    tokens = draw(expected.log().expand(5_000, -1), noise)
    shares = torch.bincount(tokens.flatten(), minlength=5) / 20_000
    torch.testing.assert_close(shares, expected, atol=0.015, rtol=0)
    assert shares[0] == shares[3] == 0


def test_the_largest_uniform_stays_in_the_vocabulary() -> None:
    logprobs = torch.log_softmax(torch.randn(50, 1000), dim=-1)
    top = torch.full((50, 1), 1 - 2**-53, dtype=torch.float64)
    assert draw(logprobs, top).max() < 1000


def test_a_point_at_the_start_of_a_block_is_never_before_it() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2_000, 3 * BLOCK, generator=generator) * 8  # sums are then rounded
    logits[:, BLOCK] = logits[:, 2 * BLOCK] = -torch.inf  # the blocks' first tokens
    logprobs = torch.log_softmax(logits, dim=-1)
    ends = logprobs.exp().view(2_000, 3, BLOCK).sum(-1, dtype=torch.float64).cumsum(-1)
    starts = ends[:, :2] / ends[:, 2:]
    assert torch.isfinite(logprobs.gather(-1, draw(logprobs, starts))).all()


def test_draws_of_prompts_and_seeds_share_nothing() -> None:
    one = uniforms(1, 0, 4, 8)
    assert not torch.isin(one, uniforms(1, 1, 4, 8)).any()
    assert not torch.isin(one, uniforms(2, 0, 4, 8)).any()
    assert torch.equal(one, uniforms(1, 0, 4, 8))
