"""The models of the page: the chosen one, and the one that it is compared with."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfemo_api.model_description import ModelDescription
from selfemo_api.spec import Engine
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.datasets.plain_text import read_plain_text
from selfemo_jobs.datasets.reading import Notes
from selfemo_jobs.datasets.text_files import Place
from selfemo_jobs.playground.turn_html import ShownTurn

if TYPE_CHECKING:
    from selfemo_jobs.inference import Prediction, Reply, Responder

#: The most turns that are read at once: a page is for trying, `selfemo predict` for files.
MOST_TURNS = 200


@dataclass
class PlaygroundModel:
    """A model that is loaded when it is first used. One request uses it at a time."""

    name: str
    """Its name on the page."""
    folder: Path
    """The folder of the model."""
    description: ModelDescription
    """The description of the model."""
    engine: Engine = Engine.TRANSFORMERS
    """The engine that runs it."""
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of the engine."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _responder: Responder | None = field(default=None, repr=False)

    def read(self, turns: Sequence[Utterance]) -> list[ShownTurn]:
        """Return the turns of a dialogue with their emotions.

        Parameters
        ----------
        turns
            The turns, in order.
        """
        with self._lock:
            return [_shown(p) for p in self._loaded().recognizer.predict_turns(turns)]

    def reply(
        self, turns: Sequence[Utterance], emotion: str, *, count: int, seed: int
    ) -> tuple[str, list[ShownTurn]]:
        """Return the speaker of the replies, and the replies with the emotions read in them.

        Parameters
        ----------
        turns
            The turns before the reply.
        emotion
            The emotion that the replies are to express.
        count
            The number of replies.
        seed
            The seed of the draws.
        """
        from selfemo_jobs.inference.responses import reply_speaker

        speaker = reply_speaker(turns)
        with self._lock:
            replies = self._loaded().reply(turns, speaker, emotion, n=count, seed=seed)
        shown = [ShownTurn(speaker, r.text, _top(r), r.reading) for r in replies]
        return speaker, shown

    def close(self) -> None:
        """Free the model."""
        if self._responder is not None:
            self._responder.close()

    def _loaded(self) -> Responder:
        """Return the responder, whose recognizer is the same loaded model."""
        if self._responder is None:
            from selfemo_jobs.inference import Responder

            self._responder = Responder(
                self.folder, self.description, engine=self.engine, engine_args=self.engine_args
            )
        return self._responder


def parse_turns(text: str) -> list[Utterance]:
    r"""Return the turns of a pasted dialogue.

    Parameters
    ----------
    text
        One turn in each line, with or without its speaker.

    Raises
    ------
    BadInput
        If a line has no text, or some lines have a speaker and others have none.
    ValueError
        If there are no turns, more than one dialogue, or too many turns.

    Examples
    --------
    >>> [turn.speaker for turn in parse_turns("Ann: We won!\nBo: At last.")]
    ['Ann', 'Bo']
    """
    lines = [(Place("dialogue", n), line) for n, line in enumerate(text.splitlines(), 1)]
    dialogues = [list(turns) for turns in read_plain_text(lines, Notes())]
    if not dialogues:
        raise ValueError("there are no turns: enter one turn per line, for example `Ann: We won!`")
    if len(dialogues) > 1:
        raise ValueError("a blank line ends a dialogue: paste one dialogue at a time")
    if len(dialogues[0]) > MOST_TURNS:
        raise ValueError(
            f"the dialogue has {len(dialogues[0])} turns, more than {MOST_TURNS}: use "
            "`selfemo predict`"
        )
    return dialogues[0]


def _shown(prediction: Prediction) -> ShownTurn:
    return ShownTurn(
        prediction.speaker, prediction.text, prediction.labels, prediction.probabilities
    )


def _top(reply: Reply) -> tuple[str, ...]:
    """Return the label that a reply is read as; none for an empty reply."""
    return (max(reply.reading, key=lambda label: reply.reading[label]),) if reply.text else ()
