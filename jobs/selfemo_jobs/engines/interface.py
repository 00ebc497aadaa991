"""The interface of an engine. Prompts and completions are token ids; text is never re-tokenized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from transformers import PreTrainedTokenizerBase

if TYPE_CHECKING:
    from selfemo_jobs.acceleration.prompt_states import PromptStates


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn."""

    n: int = 1
    """The number of completions of each prompt."""
    temperature: float = 1.0
    """The temperature of the softmax. 0 is greedy."""
    top_p: float = 1.0
    """The probability of the smallest set of tokens that is sampled from."""
    max_tokens: int = 16
    """The most tokens of a completion."""
    stop: tuple[str, ...] = ()
    """Strings at which a completion ends. They are not part of its text."""
    seed: int = 0
    """The seed of the draws."""
    greedy_logprobs: bool = False
    """Whether a greedy completion has log-probabilities, too. A sampled one always has them."""


#: The natural logarithm of the probability of each continuation after one prompt.
Logprobs = tuple[float, ...]


@dataclass(frozen=True)
class Completion:
    """A completion of a prompt."""

    token_ids: tuple[int, ...]
    """The tokens, with the end token if one was drawn."""
    logprobs: tuple[float, ...]
    """The natural logarithm of each token's probability in the distribution that it was sampled
    from, after temperature and top-p. For greedy sampling, it is the model's own distribution, at
    temperature 1. Empty if greedy sampling was not to compute them."""
    text: str
    """The text, without special tokens and stop strings."""
    finished: bool
    """Whether it ended before the limit of its length."""


class TextEngine(Protocol):
    """A loaded model that completes prompts."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling]
    ) -> list[list[Completion]]:
        """Return ``sampling.n`` completions of each prompt, in order.

        The same prompts, sampling and seed give the same completions on the same machine, whatever
        was generated before.

        Parameters
        ----------
        prompts
            The token ids of each prompt.
        sampling
            One for all prompts, or one for each. Prompts with different ones may share batches.
        """
        ...

    def score(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Logprobs]:
        """Return the log-probability of each continuation after each prompt.

        It is the natural logarithm of the probability that the model, at temperature 1, completes
        the prompt with exactly these tokens.

        Parameters
        ----------
        prompts
            The token ids of each prompt.
        continuations
            The token ids of each continuation, with its end. They are the same for all prompts.

        Raises
        ------
        ValueError
            If a prompt or a continuation is empty, or they are too long together.
        """
        ...

    def generate_and_score(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        continuations: Sequence[Sequence[int]],
    ) -> list[tuple[Completion, Logprobs]]:
        """Return a greedy completion of each prompt, and the scores of some continuations.

        The completions are those of :meth:`generate`, and the scores are those of :meth:`score`.
        Each prompt is read once for both.

        Parameters
        ----------
        prompts
            The token ids of each prompt.
        sampling
            The parameters of greedy sampling, with one completion of each prompt.
        continuations
            The token ids of each continuation, with its end.

        Raises
        ------
        ValueError
            If the sampling is not greedy, or as :meth:`score` does.
        """
        ...

    def close(self) -> None:
        """Free the model."""
        ...


@runtime_checkable
class KeepsStates(Protocol):
    """An engine that can keep what the layers below the trained ones make of a prompt."""

    def keep_states(self, trained: int) -> PromptStates | None:
        """Return the kept states of prompts, or None if the model cannot use them.

        Parameters
        ----------
        trained
            The number of last layers that the run trains.
        """
        ...
