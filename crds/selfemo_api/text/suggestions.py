"""Finds the name that was meant by a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

#: How alike two names must be, from 0 to 1: one wrong letter in four, or two that are swapped.
_CUTOFF = 0.7
#: The same for names of up to four letters: one wrong letter in three.
_SHORT_CUTOFF = 0.6


def closest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is most like a mistyped one; None if no name is like it.

    Parameters
    ----------
    name
        The mistyped name. Upper and lower case are not distinguished.
    names
        The names that exist.

    Examples
    --------
    >>> closest("seflPlay", ["selfPlay", "training"])
    'selfPlay'
    >>> closest("storage", ["selfPlay", "training"]) is None
    True
    """
    by_lower_case = {candidate.lower(): candidate for candidate in names}
    cutoff = _SHORT_CUTOFF if len(name) <= 4 else _CUTOFF
    matches = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=cutoff)
    return by_lower_case[matches[0]] if matches else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question about a mistyped name, to be appended to a message; empty if none fits.

    Parameters
    ----------
    name
        The mistyped name.
    names
        The names that exist.

    Examples
    --------
    >>> "there is no recipe `smal-v1`" + did_you_mean("smal-v1", ["small-v1", "paper-v1"])
    'there is no recipe `smal-v1`: did you mean `small-v1`?'
    """
    match = closest(name, names)
    return f": did you mean `{match}`?" if match is not None else ""
