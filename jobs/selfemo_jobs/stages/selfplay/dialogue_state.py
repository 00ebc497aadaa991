"""The state of an episode while it is played, and the requests that are made of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from selfemo_api.spec import Role
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.stages.selfplay.episodes import Episode, responding_speaker


@dataclass(frozen=True)
class DialogueState:
    """The state of an episode: the turns so far, the last of which is read and answered."""

    episode: Episode
    """The episode."""
    turns: tuple[Utterance, ...]
    """The source's turns up to the target, then the responses that were appended."""
    next_speaker: str
    """Name of the speaker of the next turn."""

    def with_response(self, text: str) -> DialogueState:
        """Return the state after the next speaker has responded.

        Parameters
        ----------
        text
            The text of the response.

        Returns
        -------
        DialogueState
            The next state. Its next speaker is the one who was answered.
        """
        answered = self.turns[-1].speaker
        response = Utterance(self.next_speaker, text)
        return DialogueState(self.episode, (*self.turns, response), answered)


@dataclass(frozen=True)
class PromptRequest:
    """One prompt of one role, for which the engine generates a group of completions."""

    state: DialogueState
    """The state of the episode that the prompt is about."""
    turn: int
    """Number of the turn within the episode, from 0."""
    role: Role
    """The role that the prompt is for."""
    prompt_ids: tuple[int, ...]
    """Token ids of the prompt."""
    context: tuple[Utterance, ...]
    """The turns before the target (recognizer), or all turns that the prompt shows (responder)."""
    judge_prompts: tuple[tuple[int, ...], ...] = ()
    """Token ids of the prompts with which the judge reads the target, one for each view. If it is
    empty, the judge reads ``prompt_ids``."""

    @property
    def gold_labels(self) -> list[str]:
        """The target's own labels if they may be read; a response has none."""
        readable = self.state.episode.use_labels and self.turn == 0
        return list(self.state.turns[-1].labels) if readable else []


def initial_state(episode: Episode) -> DialogueState:
    """Return the state that an episode starts with: the source's turns up to the target.

    Parameters
    ----------
    episode
        The episode.

    Returns
    -------
    DialogueState
        The state; its last turn is the target.
    """
    turns = episode.dialogue.turns[: episode.utterance + 1]
    next_speaker = responding_speaker(episode.dialogue, episode.utterance)
    return DialogueState(episode, turns, next_speaker)
