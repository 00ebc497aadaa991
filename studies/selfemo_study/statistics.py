"""The study's figures and their intervals: pure, from confusion matrices by dialogue.

The interval is the percentile bootstrap with two levels. Each draw takes as many seeds as there
are, with replacement, and as many dialogues as there are, with replacement. The dialogues of a draw
are the same for all of its seeds, and for both of two models that are compared: every seed is
measured on one and the same test set, so a draw of its own for each seed would let the test set's
chance average out, which it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfemo_jobs.stages.evaluate.metrics import weighted_f1

DRAWS = 2000
#: Percentiles of a 95 % interval.
_LOW, _HIGH = 0.025, 0.975
#: Below this F1 a ratio says nothing.
_LEAST_F1 = 1e-9

Confusion = NDArray[np.int64]
"""Counts by dialogue, shape (D, K, K); rows are gold."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return it with six digits."""
        return {k: round(v, 6) for k, v in vars(self).items()}


@dataclass(frozen=True)
class Draws:
    """The draws of one bootstrap."""

    dialogues: NDArray[np.float64]
    """How often each dialogue is drawn; shape (B, D)."""
    seeds: NDArray[np.int64]
    """Which seeds are drawn; shape (B, S)."""


def draw(dialogues: int, seeds: int, *, count: int = DRAWS, random_seed: int = 0) -> Draws:
    """Return the draws, the same for the same numbers."""
    random = np.random.default_rng(random_seed)
    even = np.full(dialogues, 1 / dialogues)
    return Draws(
        dialogues=random.multinomial(dialogues, even, size=count).astype(np.float64),
        seeds=random.integers(seeds, size=(count, seeds)),
    )


def drawn_f1(confusion: Confusion, draws: Draws) -> NDArray[np.float64]:
    """Return the weighted F1 of each draw's dialogues; shape (B,)."""
    dialogues, labels, _ = confusion.shape
    flat = confusion.reshape(dialogues, -1).astype(np.float64)
    return weighted_f1((draws.dialogues @ flat).reshape(-1, labels, labels))


def f1(confusion: Confusion) -> float:
    """Return the weighted F1 over all dialogues."""
    return float(weighted_f1(confusion.sum(axis=0)))


def mean_f1(by_seed: Sequence[Confusion], *, random_seed: int = 0) -> Interval:
    """Return the mean over seeds of weighted F1."""
    draws = _draws(by_seed, random_seed)
    drawn = np.stack([drawn_f1(c, draws) for c in by_seed])
    return _interval(float(np.mean([f1(c) for c in by_seed])), drawn, draws)


def relative_gain(
    pairs: Sequence[tuple[Confusion, Confusion]], *, random_seed: int = 0
) -> Interval:
    """Return the mean over seeds of ``F1(after) / F1(before) - 1``.

    Parameters
    ----------
    pairs
        Before and after, one pair for each seed; all over the same dialogues.

    Raises
    ------
    ValueError
        If an F1 before is 0: nothing can be said relative to it.
    """
    if any(f1(before) < _LEAST_F1 for before, _ in pairs):
        raise ValueError("F1 before is 0: there is no relative gain")
    draws = _draws([c for pair in pairs for c in pair], random_seed, seeds=len(pairs))
    ratios = [
        drawn_f1(after, draws) / np.maximum(drawn_f1(before, draws), _LEAST_F1) - 1
        for before, after in pairs
    ]
    value = float(np.mean([f1(after) / f1(before) - 1 for before, after in pairs]))
    return _interval(value, np.stack(ratios), draws)


def difference(pairs: Sequence[tuple[Confusion, Confusion]], *, random_seed: int = 0) -> Interval:
    """Return the mean over seeds of ``F1(after) - F1(before)``, paired by seed and dialogue."""
    draws = _draws([c for pair in pairs for c in pair], random_seed, seeds=len(pairs))
    drawn = np.stack([drawn_f1(after, draws) - drawn_f1(before, draws) for before, after in pairs])
    return _interval(float(np.mean([f1(b) - f1(a) for a, b in pairs])), drawn, draws)


@dataclass(frozen=True)
class Step:
    """One promotion: a kept generation after the kept one before it."""

    before: int
    after: int
    change: Interval

    @property
    def worse(self) -> bool:
        """Whether it is worse by more than the interval allows."""
        return self.change.high < 0


def promotions(kept: Mapping[int, Confusion], *, random_seed: int = 0) -> list[Step]:
    """Return each promotion of one seed with its paired change of F1.

    Parameters
    ----------
    kept
        Confusion matrices by generation: generation 0 and the promoted ones.
    """
    order = sorted(kept)
    return [
        Step(before, after, difference([(kept[before], kept[after])], random_seed=random_seed))
        for before, after in pairwise(order)
    ]


def _draws(confusions: Sequence[Confusion], random_seed: int, seeds: int | None = None) -> Draws:
    """Return draws for matrices that must all be of the same dialogues. Raises ValueError."""
    if not confusions:
        raise ValueError("there is no seed to draw from")
    gold = confusions[0].sum(axis=2)
    for other in confusions[1:]:
        if other.shape != confusions[0].shape or not np.array_equal(other.sum(axis=2), gold):
            raise ValueError("the seeds were not measured on the same dialogues")
    return draw(len(gold), seeds or len(confusions), random_seed=random_seed)


def _interval(value: float, drawn: NDArray[Any], draws: Draws) -> Interval:
    """Return the interval of the mean over each draw's seeds.

    Parameters
    ----------
    drawn
        The figure by seed and draw; shape (S, B).
    """
    rows = np.arange(drawn.shape[1])[:, np.newaxis]
    means = drawn.T[rows, draws.seeds].mean(axis=1)
    low, high = np.quantile(means, [_LOW, _HIGH])
    return Interval(value, float(low), float(high))
