"""Drawing tokens: the distribution that is sampled from, and draws that depend on the seed alone.

A token is found by inverting the cumulative distribution at a uniform number that belongs to
(seed, prompt, member, position). So what is drawn for one prompt does not depend on how prompts
are batched, nor on anything generated before.
"""

from __future__ import annotations

import torch

from selfemo_api.seeds import derive_seed

#: Tokens whose probabilities are summed first, to search among sums: a third of the time.
BLOCK = 256


def prompt_seed(seed: int, index: int) -> int:
    """Return the seed (63 bits) of one prompt of a call: neighboring prompts share nothing."""
    return derive_seed(seed, index, bits=63)


def uniforms(seed: int, index: int, n: int, tokens: int) -> torch.Tensor:
    """Return uniform numbers in [0, 1) for a prompt's draws.

    Returns
    -------
    torch.Tensor
        float64 of shape (n, tokens), always made on the CPU: equal on every device.
    """
    generator = torch.Generator().manual_seed(prompt_seed(seed, index))
    return torch.rand(n, tokens, generator=generator, dtype=torch.float64)


def processed_logprobs(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Return the log-probabilities of the distribution that is sampled from.

    Temperature first, then top-p (Holtzman et al. 2020): the smallest set of tokens whose
    probability reaches ``top_p``, renormalised. The order is vLLM's.

    Parameters
    ----------
    logits
        Shape (rows, vocabulary).
    temperature
        Above 0.
    top_p
        In (0, 1].

    Returns
    -------
    torch.Tensor
        float32 of the same shape; minus infinity for tokens that cannot be drawn.
    """
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
    if top_p >= 1.0:
        return logprobs
    ordered, places = logprobs.sort(dim=-1, descending=True)
    before = ordered.exp().cumsum(dim=-1) - ordered.exp()
    ordered = ordered.masked_fill(before >= top_p, -torch.inf)  # the likeliest always stays
    return torch.log_softmax(torch.empty_like(ordered).scatter_(-1, places, ordered), dim=-1)


def draw(logprobs: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Return tokens of each row, by inverting the cumulative distribution.

    Parameters
    ----------
    logprobs
        Shape (rows, vocabulary).
    uniform
        float64 in [0, 1), shape (rows, draws).

    Returns
    -------
    torch.Tensor
        int64 of shape (rows, draws); never a token of probability 0.
    """
    rows, size = logprobs.shape
    probs = torch.nn.functional.pad(logprobs.exp(), (0, -size % BLOCK)).view(rows, -1, BLOCK)
    # float64: over 100,000 tokens a float32 sum would lose the rare ones
    sums = probs.sum(dim=-1, dtype=torch.float64)
    ends = sums.cumsum(dim=-1)
    point = _below(uniform * ends[:, -1:], ends[:, -1:])
    block = torch.searchsorted(ends, point, right=True)
    # never below 0, by rounding again: the first token of the block may have no probability
    rest = (point - (ends - sums).gather(-1, block)).clamp(min=0.0)
    chosen = probs[torch.arange(rows, device=probs.device).unsqueeze(-1), block]
    inside = chosen.double().cumsum(dim=-1)
    rest = _below(rest, inside[..., -1]).unsqueeze(-1)
    return block * BLOCK + torch.searchsorted(inside, rest, right=True).squeeze(-1)


def _below(point: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return the points, each below its end: rounding may carry one past the last token."""
    return torch.minimum(point, torch.nextafter(end, torch.zeros_like(end)))
