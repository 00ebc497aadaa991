"""The study's figures with their intervals. Pure: everything follows from confusion matrices.

The interval is a percentile bootstrap with two levels. Each draw takes as many seeds as there are,
with replacement, and as many dialogues as there are, with replacement. All seeds of a draw use the
same dialogues, and so do two models that are compared. The reason: every seed is measured on the
same test set. Separate dialogues for each seed would average out the chance in the test set, which
more seeds cannot reduce.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfemo_jobs.evaluation.metrics import weighted_f1

DRAWS = 2000
#: Quantiles of a 95% interval.
_LOW, _HIGH = 0.025, 0.975
#: Below this F1 a ratio has no meaning.
_MIN_F1 = 1e-9

Confusion = NDArray[np.int64]
"""Counts by dialogue, shape (dialogues, labels, labels). Rows are gold labels, columns answers."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return the figure and its interval, rounded to six digits."""
        return {k: round(v, 6) for k, v in vars(self).items()}


@dataclass(frozen=True)
class BootstrapDraws:
    """The draws of one bootstrap."""

    dialogues: NDArray[np.float64]
    """How often each draw contains each dialogue; shape (draws, dialogues)."""
    seeds: NDArray[np.int64]
    """Indices of the seeds in each draw; shape (draws, seeds)."""


def bootstrap_draws(
    dialogues: int, seeds: int, *, count: int = DRAWS, random_seed: int = 0
) -> BootstrapDraws:
    """Return the draws of a bootstrap, the same for the same arguments.

    Parameters
    ----------
    dialogues
        The number of dialogues to draw from, which is also the number in each draw.
    seeds
        The number of seeds to draw from, which is also the number in each draw.
    count
        The number of draws.
    random_seed
        The seed of the random generator.

    Examples
    --------
    >>> draws = bootstrap_draws(dialogues=5, seeds=3, count=4)
    >>> draws.dialogues.shape, draws.seeds.shape
    ((4, 5), (4, 3))
    >>> draws.dialogues.sum(axis=1)
    array([5., 5., 5., 5.])
    """
    random = np.random.default_rng(random_seed)
    even = np.full(dialogues, 1 / dialogues)
    return BootstrapDraws(
        dialogues=random.multinomial(dialogues, even, size=count).astype(np.float64),
        seeds=random.integers(seeds, size=(count, seeds)),
    )


def f1_of_draws(confusion: Confusion, draws: BootstrapDraws) -> NDArray[np.float64]:
    """Return the weighted F1 over the dialogues of each draw; shape (draws,).

    Parameters
    ----------
    confusion
        The confusion matrices of one model, shape (dialogues, labels, labels).
    draws
        The draws, of as many dialogues.
    """
    dialogues, labels, _ = confusion.shape
    flat = confusion.reshape(dialogues, -1).astype(np.float64)
    return weighted_f1((draws.dialogues @ flat).reshape(-1, labels, labels))


def f1(confusion: Confusion) -> float:
    """Return the weighted F1 over all dialogues.

    Parameters
    ----------
    confusion
        The confusion matrices, shape (dialogues, labels, labels).

    Examples
    --------
    >>> f1(np.array([[[2, 0], [0, 1]], [[1, 0], [0, 4]]]))
    1.0
    """
    return float(weighted_f1(confusion.sum(axis=0)))


def mean_f1(by_seed: Sequence[Confusion], *, random_seed: int = 0) -> Interval:
    """Return the mean of the seeds' weighted F1 with its interval.

    Parameters
    ----------
    by_seed
        One array of confusion matrices for each seed, shape (dialogues, labels, labels). All seeds
        must have been measured on the same dialogues.
    random_seed
        The seed of the bootstrap.

    Raises
    ------
    ValueError
        If there are no seeds, or they were measured on different dialogues.
    """
    draws = _draws_for(by_seed, random_seed)
    drawn = np.stack([f1_of_draws(c, draws) for c in by_seed])
    return interval_of(float(np.mean([f1(c) for c in by_seed])), drawn, draws)


def relative_gain(
    pairs: Sequence[tuple[Confusion, Confusion]], *, random_seed: int = 0
) -> Interval:
    """Return the mean over seeds of ``F1(after) / F1(before) - 1`` with its interval.

    Parameters
    ----------
    pairs
        The confusion matrices before and after, one pair for each seed, each of shape
        (dialogues, labels, labels). All must have been measured on the same dialogues.
    random_seed
        The seed of the bootstrap.

    Raises
    ------
    ValueError
        If an F1 before is 0, so that there is no gain relative to it; if there are no pairs; or if
        they were measured on different dialogues.
    """
    if any(f1(before) < _MIN_F1 for before, _ in pairs):
        raise ValueError("F1 before is 0: there is no relative gain")
    draws = _draws_for([c for pair in pairs for c in pair], random_seed, seeds=len(pairs))
    ratios = [
        f1_of_draws(after, draws) / np.maximum(f1_of_draws(before, draws), _MIN_F1) - 1
        for before, after in pairs
    ]
    value = float(np.mean([f1(after) / f1(before) - 1 for before, after in pairs]))
    return interval_of(value, np.stack(ratios), draws)


def difference(pairs: Sequence[tuple[Confusion, Confusion]], *, random_seed: int = 0) -> Interval:
    """Return the mean over seeds of ``F1(after) - F1(before)`` with its interval.

    Parameters
    ----------
    pairs
        The confusion matrices before and after, one pair for each seed, each of shape
        (dialogues, labels, labels). All must have been measured on the same dialogues.
    random_seed
        The seed of the bootstrap.

    Raises
    ------
    ValueError
        If there are no pairs, or they were measured on different dialogues.
    """
    draws = _draws_for([c for pair in pairs for c in pair], random_seed, seeds=len(pairs))
    drawn = [f1_of_draws(after, draws) - f1_of_draws(before, draws) for before, after in pairs]
    value = float(np.mean([f1(after) - f1(before) for before, after in pairs]))
    return interval_of(value, np.stack(drawn), draws)


@dataclass(frozen=True)
class Promotion:
    """A promoted generation beside the one that was the best before it."""

    before: int
    """The number of the generation that was the best before."""
    after: int
    """The number of the promoted generation."""
    change: Interval
    """Weighted F1 of the promoted generation minus that of the one before."""

    @property
    def worse(self) -> bool:
        """Whether the promoted generation is worse by more than chance: the interval is below 0."""
        return self.change.high < 0


def compare_promotions(
    promoted: Mapping[int, Confusion], *, random_seed: int = 0
) -> list[Promotion]:
    """Return each promotion of one seed with its paired change of F1.

    Parameters
    ----------
    promoted
        The confusion matrices of generation 0 and of each promoted generation, by its number; each
        of shape (dialogues, labels, labels).
    random_seed
        The seed of the bootstrap.
    """
    return [
        Promotion(
            before,
            after,
            difference([(promoted[before], promoted[after])], random_seed=random_seed),
        )
        for before, after in pairwise(sorted(promoted))
    ]


def _draws_for(
    confusions: Sequence[Confusion], random_seed: int, seeds: int | None = None
) -> BootstrapDraws:
    """Return draws for matrices that must all be of the same dialogues. Raises ValueError."""
    if not confusions:
        raise ValueError("there is no seed to draw from")
    gold = confusions[0].sum(axis=2)
    for other in confusions[1:]:
        if other.shape != confusions[0].shape or not np.array_equal(other.sum(axis=2), gold):
            raise ValueError("the seeds were not measured on the same dialogues")
    return bootstrap_draws(len(gold), seeds or len(confusions), random_seed=random_seed)


def interval_of(value: float, drawn: NDArray[Any], draws: BootstrapDraws) -> Interval:
    """Return a figure with the interval of its mean over the seeds of each draw.

    Parameters
    ----------
    value
        The figure over all seeds and dialogues.
    drawn
        The figure by seed and draw; shape (seeds, draws).
    draws
        The draws.
    """
    rows = np.arange(drawn.shape[1])[:, np.newaxis]
    means = drawn.T[rows, draws.seeds].mean(axis=1)
    low, high = np.quantile(means, [_LOW, _HIGH])
    return Interval(value, float(low), float(high))
