"""Where completions end, and how long prompts may be. It is the same for all engines."""

from __future__ import annotations

from collections.abc import Sequence

from selfemo_jobs.engines.interface import Sampling


def sampling_of_each(
    prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling], max_model_len: int
) -> list[Sampling]:
    """Return the sampling of each prompt.

    Parameters
    ----------
    prompts
        The token ids of each prompt.
    sampling
        One for all prompts, or one for each.
    max_model_len
        The most tokens of a prompt and its completion together.

    Raises
    ------
    ValueError
        If their number differs from that of the prompts, or a prompt is empty or too long.
    """
    each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    for index, (prompt, one) in enumerate(zip(prompts, each, strict=True)):
        if not prompt:
            raise ValueError(f"prompt {index} is empty")
        if len(prompt) + one.max_tokens > max_model_len:
            raise ValueError(
                f"prompt {index} has {len(prompt)} tokens: with {one.max_tokens} more, it exceeds "
                f"max_model_len {max_model_len}"
            )
    return each


def check_continuations(
    prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], max_model_len: int
) -> None:
    """Check that continuations can be scored after prompts.

    Parameters
    ----------
    prompts
        The token ids of each prompt.
    continuations
        The token ids of each continuation.
    max_model_len
        The most tokens of a prompt and a continuation together.

    Raises
    ------
    ValueError
        If there is no continuation, one is empty, or one is too long after a prompt.
    """
    if not continuations or not all(continuations):
        raise ValueError("there must be continuations of at least one token")
    longest = max(map(len, continuations))
    for index, prompt in enumerate(prompts):
        if len(prompt) + longest > max_model_len:
            raise ValueError(
                f"prompt {index} has {len(prompt)} tokens: with a continuation of {longest}, it "
                f"exceeds max_model_len {max_model_len}"
            )


def check_greedy(sampling: Sampling) -> None:
    """Raise ValueError if a sampling is not greedy, with one plain completion of each prompt."""
    if sampling.temperature != 0 or sampling.n != 1:
        raise ValueError("completions with scores are greedy: the temperature is 0, and n is 1")
    if sampling.greedy_logprobs:
        raise ValueError("completions with scores have no log-probabilities of their own")
