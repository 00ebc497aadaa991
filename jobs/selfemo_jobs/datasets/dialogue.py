"""Dialogues, whatever file they came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Utterance:
    """One turn."""

    speaker: str
    text: str
    labels: tuple[str, ...] = ()
    """Emotions from the label set; empty where the file gives none or they may not be read."""


@dataclass(frozen=True)
class Dialogue:
    """Turns in order."""

    id: str
    turns: tuple[Utterance, ...]
