"""What the responder sees, who replies, and which of its completions are responses.

Self-play and :class:`~selfemo_jobs.inference.responder.Responder` share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from selfemo_api.spec import Context
from selfemo_jobs.engines.interface import Completion
from selfemo_jobs.prompts.sets import Turn

AnyTurn = TypeVar("AnyTurn", bound=Turn)


def last_turns(turns: Sequence[AnyTurn], count: int) -> tuple[AnyTurn, ...]:
    """Return the last turns of a dialogue.

    Parameters
    ----------
    turns
        The turns, oldest first.
    count
        Largest number of turns to return, 0 or more.

    Returns
    -------
    tuple of Turn
        The turns, oldest first.
    """
    return tuple(turns[max(0, len(turns) - count) :])


def responder_context(turns: Sequence[AnyTurn], context: Context) -> tuple[AnyTurn, ...]:
    """Return the turns that the responder's prompt shows: at least the one that it answers.

    Parameters
    ----------
    turns
        All turns so far, oldest first. The last one is answered.
    context
        The field ``spec.dataset.context``, of which ``past`` is used.

    Returns
    -------
    tuple of Turn
        The turns, oldest first.
    """
    return last_turns(turns, max(1, context.past))


def is_valid_response(completion: Completion) -> bool:
    """Return whether a response is one complete line of text that contains a word.

    Parameters
    ----------
    completion
        The responder's completion.

    Returns
    -------
    bool
        False if it was cut off at the token limit, has several lines, or has no letter or digit.
    """
    text = completion.text.strip()
    return completion.finished and "\n" not in text and any(c.isalnum() for c in text)


def reply_speaker(turns: Sequence[Turn]) -> str:
    """Return who speaks after some turns: the last speaker before the one who spoke last.

    Parameters
    ----------
    turns
        The turns, oldest first.

    Examples
    --------
    >>> from selfemo_jobs.datasets.dialogue import Utterance
    >>> reply_speaker([Utterance("Ann", "Hi"), Utterance("Bo", "Hello"), Utterance("Bo", "Well?")])
    'Ann'
    >>> reply_speaker([Utterance("A", "Hi")])
    'B'
    """
    if not turns:
        return "A"
    last = turns[-1].speaker
    others = (turn.speaker for turn in reversed(turns) if turn.speaker != last)
    return next(others, "A" if last == "B" else "B")
