"""Rotary positions that depend on the longest text that is read. Pure, and without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: Kinds of scaling (`rope_type`) that change every position's angles once a text is longer than
#: those of the first training. A row of a batch would then depend on the others. Older files call
#: `longrope` `su`.
LENGTH_DEPENDENT = frozenset({"dynamic", "longrope", "su"})


def rotary_scalings(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the settings of a model's rotary positions; none if it has none.

    Parameters
    ----------
    config
        The configuration of the decoder. Its layers may have settings of their own, by their kind.
    """
    settings = config.get("rope_scaling") or config.get("rope_parameters")
    if isinstance(settings, Mapping):
        yield settings
        yield from (value for value in settings.values() if isinstance(value, Mapping))


def depends_on_length(scaling: Mapping[str, Any]) -> bool:
    """Return whether the positions of a text depend on how long the longest one is.

    Parameters
    ----------
    scaling
        The settings of the rotary positions.

    Examples
    --------
    >>> depends_on_length({"rope_type": "longrope"}), depends_on_length({"type": "linear"})
    (True, False)
    """
    return scaling.get("rope_type", scaling.get("type")) in LENGTH_DEPENDENT
