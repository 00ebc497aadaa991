"""What generates text. Prompts go in and completions come out as token ids, never re-tokenized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn."""

    n: int = 1
    """Completions for each prompt."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 16
    stop: tuple[str, ...] = ()
    """Text at which a completion ends (left out of it)."""
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """One completion."""

    token_ids: tuple[int, ...]
    """With the end token where one was drawn."""
    logprobs: tuple[float, ...]
    """Natural logarithm of each token's probability under the distribution sampled from (after
    temperature and top-p); empty for greedy."""
    text: str
    """Decoded, special tokens left out."""
    finished: bool
    """Ended by itself, not by the length limit."""


class TextEngine(Protocol):
    """A loaded model that completes prompts."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling]
    ) -> list[list[Completion]]:
        """Return ``sampling.n`` completions for each prompt, in order.

        ``sampling`` is one for all prompts, or one for each: prompts of different kinds then share
        batches. The same prompts, sampling and seed give the same completions on the same machine,
        whatever was generated before.
        """
        ...

    def close(self) -> None:
        """Free the model."""
        ...
