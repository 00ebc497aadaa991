"""How many tokens a model reads at once, and prompts in parts of that size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Tokens that a CPU reads at once. With more it is slower: the intermediate results no longer fit
#: the processor's cache, and the kernel has to map that much memory again for each product. Six
#: layers of SmolLM2 read 424 tokens at once at 53 GFLOP/s, 3,400 at 39 and 13,600 at 15 (one core,
#: float32).
CPU_TOKENS = 512
#: The number of tokens that a GPU reads at once.
_GPU_TOKENS = 1 << 14


def tokens_at_once(model: PreTrainedModel) -> int:
    """Return the number of tokens that a model reads at once, by its device."""
    return CPU_TOKENS if model.device.type == "cpu" else _GPU_TOKENS


def split_prompts(
    prompts: Sequence[Sequence[int]], max_tokens: int
) -> Iterator[Sequence[Sequence[int]]]:
    """Yield neighboring prompts that together have at most so many tokens, with padding.

    Parameters
    ----------
    prompts
        The token ids of each prompt.
    max_tokens
        The most tokens of a part. A prompt that is longer is a part of its own.

    Examples
    --------
    >>> [len(part) for part in split_prompts([[1], [1, 2], [1, 2, 3]], max_tokens=4)]
    [2, 1]
    """
    start = longest = 0
    for end, prompt in enumerate(prompts):
        longest = max(longest, len(prompt))
        if end > start and longest * (end + 1 - start) > max_tokens:
            yield prompts[start:end]
            start, longest = end, len(prompt)
    yield prompts[start:]
