"""Rows of a table into dialogues."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.text_files import Place


@dataclass(frozen=True)
class Line:
    """One utterance of a table, with its place in its dialogue."""

    place: Place
    dialogue: str
    number: int
    """The utterance's id: its order within the dialogue."""
    turn: Utterance


def dialogues_of(lines: Iterable[Line], field: str) -> list[Dialogue]:
    """Return the dialogues in file order, each with its turns in order of their ids.

    Parameters
    ----------
    lines
        The table.
    field
        The column of the utterance's id, for messages.

    Raises
    ------
    BadInput
        If a dialogue has an utterance id twice.
    """
    found: dict[str, dict[int, Line]] = {}
    for line in lines:
        turns = found.setdefault(line.dialogue, {})
        first = turns.setdefault(line.number, line)
        if first is not line:
            raise line.place.bad(
                f"`{field}` {line.number} is in dialogue {line.dialogue} twice "
                f"(first in line {first.place.line})"
            )
    return [
        Dialogue(name, tuple(turns[number].turn for number in sorted(turns)))
        for name, turns in found.items()
    ]
