"""Supervised training in rounds until dev F1 stops rising: the converged baseline of a study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Rounds in a row without a higher dev F1, after which the training ends. With two, one unlucky
#: round does not end it.
PATIENCE = 2


@dataclass(frozen=True)
class TrainingRound:
    """A model after a round of training."""

    number: int
    """The number of the round, from 1."""
    model: Path
    """The folder of the model."""
    dev: float
    """Its weighted F1 on dev."""


def train_in_rounds(
    start: Path,
    train: Callable[[Path, int], Path],
    measure: Callable[[Path], float],
    most: int,
) -> list[TrainingRound]:
    """Train a model again and again, until dev F1 has not risen in :data:`PATIENCE` rounds.

    Parameters
    ----------
    start
        The model before the first round.
    train
        Trains the model that it is given in a round of that number, and returns the trained model.
    measure
        Returns the dev F1 of a model.
    most
        The largest number of rounds, at least 1.

    Returns
    -------
    list of TrainingRound
        All rounds in order; see :func:`best_round`.
    """
    rounds: list[TrainingRound] = []
    model = start
    for number in range(1, most + 1):
        model = train(model, number)
        rounds.append(TrainingRound(number, model, measure(model)))
        if number - best_round(rounds).number >= PATIENCE:
            break
    return rounds


def best_round(rounds: list[TrainingRound]) -> TrainingRound:
    """Return the first round with the highest dev F1.

    Parameters
    ----------
    rounds
        The rounds, at least one.
    """
    return max(rounds, key=lambda one: one.dev)
