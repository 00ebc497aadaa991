"""The rows that ``selfemo predict`` writes: one for each turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: The significant digits of a probability. The sum over the labels is then 1 to within 1e-8.
_DIGITS = 9


@dataclass(frozen=True)
class PredictedTurn:
    """A turn with the labels that the model gives it."""

    dialogue: str
    """The id of the dialogue."""
    turn: int
    """The index of the turn in its dialogue, from 0."""
    speaker: str
    """The speaker's name."""
    text: str
    """The words."""
    labels: Sequence[str]
    """The labels, the first one of the answer first."""
    probabilities: Mapping[str, float] | None = None
    """The probability of each label of the label set, in its order. None: it was not computed."""

    def to_json(self) -> dict[str, Any]:
        """Return the turn as an object of JSON.

        Examples
        --------
        >>> PredictedTurn("d1", 0, "Ann", "Hi", ["joy"], {"joy": 0.75, "fear": 0.25}).to_json()
        {'dialogue': 'd1', 'turn': 0, 'speaker': 'Ann', 'text': 'Hi', 'labels': ['joy'], \
'probabilities': {'joy': 0.75, 'fear': 0.25}}
        """
        row: dict[str, Any] = {
            "dialogue": self.dialogue,
            "turn": self.turn,
            "speaker": self.speaker,
            "text": self.text,
            "labels": list(self.labels),
        }
        if self.probabilities is not None:
            row["probabilities"] = {k: rounded(p) for k, p in self.probabilities.items()}
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> PredictedTurn:
        """Return the turn of an object that :meth:`to_json` returned."""
        return cls(**row)


def rounded(probability: float) -> float:
    """Return a probability with nine significant digits.

    Parameters
    ----------
    probability
        The probability, from 0 to 1.

    Examples
    --------
    >>> rounded(1 / 3)
    0.333333333
    """
    return float(f"{probability:.{_DIGITS}g}")
