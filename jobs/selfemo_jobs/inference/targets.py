"""Utterances whose emotions are recognized, and the recognizer's prompts about them.

The evaluate stage and :class:`~selfemo_jobs.inference.recognizer.Recognizer` build their prompts
here, so that both get the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from selfemo_api.spec import Context
from selfemo_jobs.errors import PromptTooLong
from selfemo_jobs.prompts import PromptSet
from selfemo_jobs.prompts.sets import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The number of prompts that an engine gets together. It sorts them by length, so fewer would need
#: more padding. Where the batches are equal, the answers are equal to the last digit.
PART_PROMPTS = 1024


class DialogueLike(Protocol):
    """A dialogue, as of :class:`selfemo_jobs.datasets.dialogue.Dialogue`."""

    @property
    def id(self) -> str:
        """The dialogue's name."""
        ...

    @property
    def turns(self) -> Sequence[Turn]:
        """The turns in order."""
        ...


@dataclass(frozen=True)
class Target:
    """An utterance, with the turns around it that its prompt may show."""

    dialogue_id: str
    """The id of the dialogue."""
    utterance: int
    """The index of the utterance in its dialogue, from 0."""
    turn: Turn
    """The utterance."""
    past: Sequence[Turn] = ()
    """The turns before it, oldest first."""
    future: Sequence[Turn] = ()
    """The turns after it, in order."""


def dialogue_targets(dialogue: DialogueLike, context: Context) -> Iterator[Target]:
    """Yield each turn of a dialogue as a target.

    Parameters
    ----------
    dialogue
        The dialogue.
    context
        The number of turns around a target.

    Examples
    --------
    >>> from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
    >>> dialogue = Dialogue("d1", (Utterance("Ann", "Hi."), Utterance("Ben", "Hello.")))
    >>> [[turn.text for turn in target.past] for target in dialogue_targets(dialogue, Context())]
    [[], ['Hi.']]
    """
    turns = dialogue.turns
    for i, turn in enumerate(turns):
        past = turns[max(0, i - context.past) : i]
        yield Target(dialogue.id, i, turn, past, turns[i + 1 : i + 1 + context.future])


def _in_a_stage(target: Target, error: PromptTooLong) -> str:
    """Return the message of a stage, whose user can set the number of tokens."""
    return f"dialogue {target.dialogue_id} utterance {target.utterance}: {error}"


def target_prompts(
    targets: Sequence[Target],
    labels: Sequence[str],
    prompts: PromptSet,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    *,
    message: Callable[[Target, PromptTooLong], str] = _in_a_stage,
) -> list[tuple[int, ...]]:
    """Return the token ids of the recognizer's prompt about each of several targets.

    Parameters
    ----------
    targets
        The targets.
    labels
        The label set.
    prompts
        The prompt set.
    tokenizer
        The tokenizer of the model.
    max_tokens
        The largest number of tokens of a prompt.
    message
        Returns what an error says of a target that is too long. By default it is the message of a
        stage, which names the field of the spec.

    Raises
    ------
    BadInput
        If a prompt is too long even without context. The message names the utterance.
    """
    if not targets:
        return []
    rendered = [
        prompts.recognizer_prompt(t.past, t.turn.speaker, t.turn.text, labels, t.future)
        for t in targets
    ]
    return [
        tuple(ids)
        if len(ids) <= max_tokens
        else _shortened(target, labels, prompts, tokenizer, max_tokens, message)
        for target, ids in zip(targets, prompts.encode_all(tokenizer, rendered), strict=True)
    ]


def _shortened(
    target: Target,
    labels: Sequence[str],
    prompts: PromptSet,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    message: Callable[[Target, PromptTooLong], str],
) -> tuple[int, ...]:
    """Return a prompt with as much context as fits. Raises PromptTooLong with the message."""
    try:
        ids = prompts.recognizer_ids(
            tokenizer,
            target.past,
            target.turn.speaker,
            target.turn.text,
            labels,
            target.future,
            max_tokens=max_tokens,
        )
    except PromptTooLong as error:
        raise PromptTooLong(message(target, error)) from None
    return tuple(ids)


def too_long(target: Target, max_tokens: int) -> str:
    """Return the message about a turn that fits no prompt of a model.

    Parameters
    ----------
    target
        The turn. Its dialogue may have no name. Without words, the rest of the prompt is too long.
    max_tokens
        The most tokens of a prompt.

    Examples
    --------
    >>> from selfemo_jobs.datasets.dialogue import Utterance
    >>> too_long(Target("", 2, Utterance("Ann", "Well, well, well")), 1024)
    'turn 2 is longer than a prompt of this model (1024 tokens): shorten or divide it'
    """
    place = f"dialogue {target.dialogue_id} " if target.dialogue_id else ""
    turn, prompt = (
        f"{place}turn {target.utterance}",
        f"a prompt of this model ({max_tokens} tokens)",
    )
    if not target.turn.text:
        advice = "use a shorter name, or another model"
        return f"{turn} does not fit {prompt} even without its words: {advice}"
    return f"{turn} is longer than {prompt}: shorten or divide it"


def longest_beginning(text: str, fits: Callable[[str], bool]) -> str:
    """Return the longest beginning of a text that fits; an empty one if none does.

    Parameters
    ----------
    text
        The text.
    fits
        Whether a beginning fits. A longer one fits only if a shorter one does: more characters give
        more tokens.

    Examples
    --------
    >>> longest_beginning("Well, well.", lambda text: len(text) < 9)
    'Well, we'
    """
    low, high = 0, len(text) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(text[:middle].rstrip()) else (low, middle)
    return text[:low].rstrip()
