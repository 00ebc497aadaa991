"""Formats human-readable values."""

from __future__ import annotations


def shortened(text: str, most: int) -> str:
    """Return a text; if it is too long, it is truncated and ends with an ellipsis.

    Parameters
    ----------
    text
        The text.
    most
        The maximum number of characters of the text that are kept.

    Examples
    --------
    >>> shortened("joy", 3), shortened("sadness", 3)
    ('joy', 'sad…')
    """
    return text if len(text) <= most else f"{text[:most]}…"


def duration(seconds: float) -> str:
    """Return a duration as human-readable text.

    Parameters
    ----------
    seconds
        The duration in seconds.

    Examples
    --------
    >>> duration(4.25), duration(42), duration(200), duration(7500)
    ('4.2 s', '42 s', '3 min 20 s', '2 h 05 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def share(part: float, whole: float) -> float:
    """Return a part of a whole in percent; 0 if the whole is 0.

    Parameters
    ----------
    part, whole
        The part and the whole, in the same unit.

    Examples
    --------
    >>> share(1, 4)
    25.0
    """
    return 100.0 * part / whole if whole else 0.0
