"""Groups the rows of a table into dialogues."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.text_files import Place


@dataclass(frozen=True)
class TableRow:
    """An utterance in a row of a table, with its place in its dialogue."""

    place: Place
    """The row's place in the file."""
    dialogue: str
    """The dialogue's id."""
    number: int | None
    """The utterance's id. It orders the utterances of a dialogue. None: they are in file order."""
    turn: Utterance


def group_dialogues(rows: Iterable[TableRow], field: str) -> list[Dialogue]:
    """Return the dialogues in file order, each with its turns in the order of their ids.

    Parameters
    ----------
    rows
        The rows of the table.
    field
        The column of the utterance's id, for messages.

    Raises
    ------
    BadInput
        If an utterance id is twice in a dialogue.
    """
    dialogues: dict[str, dict[int, TableRow]] = {}
    for row in rows:
        turns = dialogues.setdefault(row.dialogue, {})
        number = len(turns) if row.number is None else row.number
        first = turns.setdefault(number, row)
        if first is not row:
            raise row.place.error(
                f"`{field}` {number} appears twice in dialogue {row.dialogue} (first in "
                f"{first.place.within})"
            )
    return [
        Dialogue(name, tuple(turns[number].turn for number in sorted(turns)))
        for name, turns in dialogues.items()
    ]
