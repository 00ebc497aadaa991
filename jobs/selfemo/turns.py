"""Turns and dialogues, as a caller writes them, and those of files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from selfemo.errors import require
from selfemo_api.text.control_characters import is_text
from selfemo_jobs.errors import BadInput

if TYPE_CHECKING:
    from selfemo_jobs.datasets.dialogue import Utterance


@dataclass(frozen=True)
class Turn:
    """What one speaker says."""

    speaker: str
    """The speaker's name."""
    text: str
    """The words."""


#: The turns of one dialogue: texts, which may begin with `Speaker: `, or pairs of speaker and text.
Turns: TypeAlias = "list[str] | Sequence[Turn] | Sequence[tuple[str, str]]"


@dataclass(frozen=True)
class Dialogue:
    """A dialogue.

    Examples
    --------
    >>> Dialogue(["Ann: We won!", "Bo: At last."]).id
    ''
    """

    turns: Turns
    """The turns in order."""
    id: str = ""
    """The name of the dialogue, which its predictions have."""


def read_dialogues(source: str | Path) -> list[Dialogue]:
    """Return the dialogues of a file, in any format of ``selfemo data``, or of plain text.

    Parameters
    ----------
    source
        A file, a folder, a pattern, or a URI with ``file://``, ``s3://`` or ``hf://``.

    Raises
    ------
    BadInput
        If there is no such file, or it cannot be read. The message has the file and the row.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    require("selfemo.read_dialogues", "jobs")
    from selfemo_jobs.datasets.reading import ReadOptions
    from selfemo_jobs.use_commands.prediction_inputs import open_sources

    with tempfile.TemporaryDirectory() as work:
        sources = open_sources([str(source)], Path(work), ReadOptions(None, read_labels=False))
        dialogues = sources.dialogues()
        return [Dialogue([Turn(t.speaker, t.text) for t in d.turns], d.id) for d in dialogues]


def utterances(turns: Turns) -> list[Utterance]:
    """Return the turns of a dialogue as the models read them.

    Parameters
    ----------
    turns
        The turns. Texts without a speaker are of two speakers, A and B.

    Raises
    ------
    BadInput
        If a text is empty, or some texts have a speaker and others have none.
    TypeError
        If a turn is neither a text, nor a pair of two texts, nor a :class:`Turn`.
    """
    from selfemo_jobs.datasets.dialogue import Utterance

    source: object = turns  # a caller without a type checker may pass one text
    if isinstance(source, str):
        raise TypeError("the turns of a dialogue must be a list, not a string")
    given = list(turns)  # an iterator can be read only once
    texts = [turn for turn in given if isinstance(turn, str)]
    if texts:
        if len(texts) < len(given):
            raise TypeError("the turns of a dialogue must all be strings, or all have a speaker")
        return list(_of_texts(texts))
    return [Utterance(*_speaker_and_text(turn)) for turn in given]


def _of_texts(texts: Sequence[str]) -> Iterator[Utterance]:
    """Yield the turns of texts, as ``selfemo predict --text`` reads them."""
    from selfemo_jobs.datasets.plain_text import read_plain_text
    from selfemo_jobs.datasets.reading import Notes
    from selfemo_jobs.datasets.text_files import Place

    lines = [(Place("turns", number), text) for number, text in enumerate(texts, start=1)]
    for place, text in lines:
        if not text.strip():
            raise BadInput(f"{place}: is empty")
        if not is_text(text):
            raise BadInput(f"{place}: contains an unpaired surrogate")
    for dialogue in read_plain_text(lines, Notes()):
        yield from dialogue


def _speaker_and_text(turn: object) -> tuple[str, str]:
    """Return the speaker and the text of a turn. Raises TypeError, BadInput."""
    pair = (turn.speaker, turn.text) if isinstance(turn, Turn) else turn
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(p, str) for p in pair):
        raise TypeError(f"a turn must be a string, a (speaker, text) pair or a Turn, not {turn!r}")
    speaker, text = pair
    if not text.strip():
        raise BadInput(f"the turn of {speaker!r} has no text")
    if not is_text(speaker + text):
        raise BadInput(
            f"the turn of {speaker!r} contains an unpaired surrogate, which is not a character"
        )
    return speaker, text
