"""Sampling of tokens: the distribution that is sampled from, and draws that follow from the seed.

A token is drawn by inverting the cumulative distribution at a uniform number. That number belongs
to the seed, the prompt, the member and the position. So the draws for a prompt do not depend on the
batches, or on what was generated before.
"""

from __future__ import annotations

import torch

from selfemo_api.seeds import derive_seed

#: The number of tokens in a block. The block is searched first, by its sum: this takes a third of
#: the time of a search over all tokens.
BLOCK = 256


def prompt_seed(seed: int, index: int) -> int:
    """Return the seed (63 bits) of a prompt in a call. The seeds of prompts are independent."""
    return derive_seed(seed, index, bits=63)


def uniforms(seed: int, index: int, n: int, tokens: int) -> torch.Tensor:
    """Return the uniform numbers in [0, 1) for the draws of a prompt.

    Parameters
    ----------
    seed
        The seed of the call.
    index
        The index of the prompt in the call.
    n
        The number of completions.
    tokens
        The number of tokens of a completion.

    Returns
    -------
    torch.Tensor
        float64 of shape (n, tokens). It is made on the CPU, and so equal for every device.
    """
    generator = torch.Generator().manual_seed(prompt_seed(seed, index))
    return torch.rand(n, tokens, generator=generator, dtype=torch.float64)


def processed_logprobs(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Return the log-probabilities of the distribution that is sampled from.

    The temperature is applied first, and then top-p (Holtzman et al. 2020): the smallest set of
    tokens whose probability reaches ``top_p``, normalized. vLLM has the same order.

    Parameters
    ----------
    logits
        Logits of shape (rows, vocabulary).
    temperature
        The temperature, above 0.
    top_p
        The probability to reach, in (0, 1].

    Returns
    -------
    torch.Tensor
        float32 of the same shape. Tokens that cannot be drawn have minus infinity.

    Examples
    --------
    >>> logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    >>> processed_logprobs(logits, temperature=1.0, top_p=0.7).exp()
    tensor([[0.6250, 0.3750, 0.0000]])
    """
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
    if top_p >= 1.0:
        return logprobs
    ordered, places = logprobs.sort(dim=-1, descending=True)
    before = ordered.exp().cumsum(dim=-1) - ordered.exp()
    ordered = ordered.masked_fill(before >= top_p, -torch.inf)  # the most likely token always stays
    return torch.log_softmax(torch.empty_like(ordered).scatter_(-1, places, ordered), dim=-1)


def draw(logprobs: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Return tokens of each row, by inverting the cumulative distribution.

    Parameters
    ----------
    logprobs
        Log-probabilities of shape (rows, vocabulary).
    uniform
        Uniform numbers, float64 in [0, 1), of shape (rows, draws).

    Returns
    -------
    torch.Tensor
        Token ids, int64 of shape (rows, draws). Tokens of probability 0 are never drawn.

    Examples
    --------
    >>> logprobs = torch.tensor([[0.25, 0.75]]).log()
    >>> draw(logprobs, torch.tensor([[0.2, 0.3]], dtype=torch.float64))
    tensor([[0, 1]])
    """
    rows, size = logprobs.shape
    probs = torch.nn.functional.pad(logprobs.exp(), (0, -size % BLOCK)).view(rows, -1, BLOCK)
    # float64: over 100,000 tokens, a sum in float32 would lose the rare ones
    sums = probs.sum(dim=-1, dtype=torch.float64)
    ends = sums.cumsum(dim=-1)
    point = _below(uniform * ends[:, -1:], ends[:, -1:])
    block = torch.searchsorted(ends, point, right=True)
    # rounding may give less than 0, and the first token of the block may have no probability
    rest = (point - (ends - sums).gather(-1, block)).clamp(min=0.0)
    chosen = probs[torch.arange(rows, device=probs.device).unsqueeze(-1), block]
    inside = chosen.double().cumsum(dim=-1)
    rest = _below(rest, inside[..., -1]).unsqueeze(-1)
    return block * BLOCK + torch.searchsorted(inside, rest, right=True).squeeze(-1)


def _below(point: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return the points, each below its end: rounding may move one past the last token."""
    return torch.minimum(point, torch.nextafter(end, torch.zeros_like(end)))
