"""Dialogues in plain text: a turn in each line, with or without its speaker.

::

    Ann: We won!
    Bo: I can't believe it.

A blank line ends a dialogue. If the first line begins with a speaker, each line does. Otherwise the
speakers alternate between A and B.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.datasets.reading import Notes
from selfemo_jobs.datasets.text_files import Place

#: A speaker: up to four words without the signs at the end of a sentence, and a colon. After the
#: usual colon comes a blank, so that `10:30` and `https://` have no speaker.
_SPEAKER = re.compile(
    r"\s*(?P<name>[^\s:：,;!?\"“”]+(?: [^\s:：,;!?\"“”]+){0,3}) ?(?::(?=\s|$)|：)"
)
#: The longest name of a speaker, in characters.
_LONGEST_NAME = 40


def read_plain_text(
    lines: Iterable[tuple[Place, str]], notes: Notes
) -> Iterator[Iterator[Utterance]]:
    """Yield the turns of each dialogue of a text.

    The turns of a dialogue must be taken before those of the next one.

    Parameters
    ----------
    lines
        The lines with their places. Blank ones end a dialogue.
    notes
        Counts what is odd in the texts.

    Raises
    ------
    BadInput
        If the first line has a speaker, and another one has none; or a line has no text after its
        speaker.

    Examples
    --------
    >>> lines = [(Place("talk.txt", 1), "Ann: We won!"), (Place("talk.txt", 2), "Bo: At last.")]
    >>> [[turn.speaker for turn in turns] for turns in read_plain_text(lines, Notes())]
    [['Ann', 'Bo']]
    """
    reader = _TurnReader(notes)
    for is_blank, group in groupby(lines, key=lambda line: not line[1].strip()):
        if not is_blank:
            yield (reader.turn(i, place, line) for i, (place, line) in enumerate(group))


class _TurnReader:
    """Reads the turns of a text. Its first line decides whether lines have speakers."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._has_speakers: bool | None = None

    def turn(self, index: int, place: Place, line: str) -> Utterance:
        """Return the turn of a line, which is not blank. Raises BadInput."""
        match = split_speaker(line)
        if self._has_speakers is None:
            self._has_speakers = match is not None
        if not self._has_speakers:
            return Utterance("AB"[index % 2], self._notes.clean(line, place))
        if match is None:
            raise place.error(
                "has no speaker, but the first line has one: use `Speaker: text` in every line "
                "or in none"
            )
        speaker, text = (self._notes.clean(part, place) for part in match)
        if not text:
            raise place.error(f"`{speaker}:` has no text after it")
        return Utterance(speaker, text)


def split_speaker(line: str) -> tuple[str, str] | None:
    """Return the speaker and the text of a line; None if it does not begin with a speaker.

    Parameters
    ----------
    line
        The line.

    Examples
    --------
    >>> split_speaker("Ann: We won!")
    ('Ann', 'We won!')
    >>> split_speaker("It is 10:30, and I said: go") is None
    True
    """
    match = _SPEAKER.match(line)
    if match is None or len(match["name"]) > _LONGEST_NAME:
        return None
    return match["name"], line[match.end() :].strip()
