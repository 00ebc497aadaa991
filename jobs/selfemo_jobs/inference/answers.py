"""How the recognizer answers, and the labels of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfemo_api.spec import Role
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.prompts import PromptSet, nearest_label, parse_labels


@dataclass(frozen=True)
class Answer:
    """The labels of an answer."""

    named: tuple[str, ...]
    """The labels that the answer names, in its order. Empty if it names none."""
    predicted: tuple[str, ...]
    """The same. If the answer names none, the label that is nearest to it."""
    well_formed: bool
    """Whether the answer has label names, each once, and nothing else."""


def read_answer(text: str, labels: Sequence[str]) -> Answer:
    """Return the labels of an answer.

    Parameters
    ----------
    text
        The text of the answer.
    labels
        The label set.

    Examples
    --------
    >>> read_answer(" joyful", ["fear", "joy"])
    Answer(named=(), predicted=('joy',), well_formed=False)
    """
    parsed = parse_labels(text, labels)
    predicted = parsed.named or (nearest_label(text, labels),)
    return Answer(parsed.named, predicted, parsed.well_formed)


def answer_sampling(prompts: PromptSet, max_tokens: int) -> Sampling:
    """Return the sampling parameters with which the recognizer answers greedily.

    Parameters
    ----------
    prompts
        The prompt set, which has the text at which an answer ends.
    max_tokens
        The largest number of tokens of an answer.
    """
    return Sampling(temperature=0.0, max_tokens=max_tokens, stop=prompts.stop(Role.RECOGNIZER))
