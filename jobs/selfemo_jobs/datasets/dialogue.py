"""Dialogues, independent of the format of their file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Utterance:
    """A turn of a dialogue."""

    speaker: str
    text: str
    """The words, on one line."""
    labels: tuple[str, ...] = ()
    """Emotions of the label set. Empty if the file has none, or if they may not be read."""


@dataclass(frozen=True)
class Dialogue:
    """A dialogue."""

    id: str
    """The dialogue's name, unique in its file."""
    turns: tuple[Utterance, ...]
    """The turns in order."""
