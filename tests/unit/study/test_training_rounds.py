"""Training in rounds: when it ends, and which round counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from selfemo_study.training_rounds import best_round, train_in_rounds


def rounds_with(dev: Sequence[float], most: int) -> tuple[list[int], int, list[str]]:
    """Return the numbers of the rounds, the best one, and the model that each started from."""
    starts: list[str] = []

    def train(model: Path, number: int) -> Path:
        starts.append(model.name)
        return Path(f"round-{number}")

    rounds = train_in_rounds(
        Path("base"), train, lambda model: dev[int(model.name.split("-")[1]) - 1], most
    )
    return [one.number for one in rounds], best_round(rounds).number, starts


@pytest.mark.parametrize(
    ("dev", "most", "last", "best"),
    [
        ([0.1, 0.2, 0.3, 0.4], 3, 3, 3),
        ([0.1, 0.3, 0.2, 0.3, 0.9], 5, 4, 2),
        ([0.1, 0.3, 0.2, 0.4, 0.2, 0.1, 0.9], 7, 6, 4),  # one unlucky round does not end it
        ([0.5, 0.4, 0.3], 9, 3, 1),
        ([0.5], 1, 1, 1),
    ],
)
def test_rounds_end_when_dev_stops_rising(
    dev: list[float], most: int, last: int, best: int
) -> None:
    numbers, best_number, starts = rounds_with(dev, most)
    assert numbers == list(range(1, last + 1))
    assert best_number == best
    # each round goes on with the model of the one before, also after an unlucky one
    assert starts == ["base", *(f"round-{number}" for number in numbers[:-1])]
