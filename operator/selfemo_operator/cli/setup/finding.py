"""One line of ``selfemo doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """What a finding means."""

    OK = "ok"
    """It is as it should be."""
    NOTE = "note"
    """It is missing, and only some commands need it."""
    PROBLEM = "problem"
    """A run on this machine needs it."""


@dataclass(frozen=True)
class Finding:
    """What was found about one thing."""

    mark: Mark
    """What it means."""
    name: str
    """The thing, e.g. ``memory``."""
    text: str
    """What was found."""
    advice: str = ""
    """What to do. Empty: nothing."""
