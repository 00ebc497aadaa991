"""Which column of a table, or key of an object, has which part of a turn."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from selfemo_jobs.datasets.text_files import shorten
from selfemo_jobs.errors import BadInput

DIALOGUE, TURN, SPEAKER, TEXT, LABEL = PARTS = ("dialogue", "turn", "speaker", "text", "label")

#: Common names of each part, without case, blanks and underscores. They count where
#: ``dataset.columns`` does not name the column.
_COMMON_NAMES: Mapping[str, frozenset[str]] = {
    DIALOGUE: frozenset(
        (
            *("dialogue", "dialogueid", "dialog", "dialogid"),
            *("conversation", "conversationid", "conv", "convid"),
        )
    ),
    TURN: frozenset(
        (
            *("turn", "turnid", "turnidx", "turnindex"),
            *("utteranceid", "utteranceidx", "utteranceindex"),
        )
    ),
    SPEAKER: frozenset(
        ("speaker", "speakerid", "speakeridx", "speakername", "role", "from", "author")
    ),
    TEXT: frozenset(("text", "utterance", "sentence", "content", "message", "value")),
    LABEL: frozenset(("label", "labels", "emotion", "emotions")),
}


def choose_columns(
    names: Sequence[str], columns: Mapping[str, str], file: str, parts: Sequence[str] = PARTS
) -> dict[str, str]:
    """Return the column of each part of a turn that a table has.

    Parameters
    ----------
    names
        The names of all columns.
    columns
        The columns that ``dataset.columns`` names, by part.
    file
        The file's URI, for messages.
    parts
        The parts that are read.

    Raises
    ------
    BadInput
        If a named column is missing, or several columns could have a part.

    Examples
    --------
    >>> choose_columns(["conv_id", "who", "Utterance"], {"speaker": "who"}, "a.csv")
    {'dialogue': 'conv_id', 'speaker': 'who', 'text': 'Utterance'}
    """
    chosen = {}
    for part in parts:
        column = _named_column(part, names, columns, file)
        if column is None:
            column = _common_column(part, [n for n in names if n not in columns.values()], file)
        if column is not None:
            chosen[part] = column
    return chosen


def choose_key(part: str, keys: Collection[str], columns: Mapping[str, str]) -> str | None:
    """Return the key of an object that has a part of a turn; None if no key has it.

    The named column of a table may be of another source. An object without it is read by the
    common names.

    Parameters
    ----------
    part
        The part, one of :data:`PARTS`.
    keys
        The keys of the object.
    columns
        The keys that ``dataset.columns`` names, by part.
    """
    for key in (columns.get(part), part):
        if key in keys:
            return key
    return next((key for key in keys if is_common_name(part, key)), None)


def is_common_name(part: str, name: str) -> bool:
    """Return whether a column's name is common for a part of a turn.

    Examples
    --------
    >>> is_common_name("dialogue", "Dialogue_ID")
    True
    """
    return re.sub(r"[\s_-]", "", name).casefold() in _COMMON_NAMES[part]


def is_part(name: str) -> bool:
    """Return whether a column's name is common for any part of a turn."""
    return any(is_common_name(part, name) for part in PARTS)


def _named_column(
    part: str, names: Sequence[str], columns: Mapping[str, str], file: str
) -> str | None:
    """Return the column that ``dataset.columns`` names for a part, or None."""
    column = columns.get(part)
    if column is not None and names.count(column) != 1:
        what = "is missing" if column not in names else "appears twice"
        raise BadInput(
            f"{file}: column `{column}` of `dataset.columns.{part}` {what} (columns in the file: "
            f"{shorten(', '.join(names), 200)})"
        )
    return column


def _common_column(part: str, names: Sequence[str], file: str) -> str | None:
    """Return the only column with a common name of a part, or None."""
    if names.count(part) == 1:
        return part
    matches = [name for name in names if is_common_name(part, name)]
    if len(matches) > 1:
        raise BadInput(
            f"{file}: columns {', '.join(f'`{name}`' for name in matches)} could all be the "
            f"{part}: specify one in `dataset.columns.{part}`"
        )
    return matches[0] if matches else None
