"""How often judges read responses as intended, by dialogue; and what follows from that. Pure.

The baseline judge is the one that the product uses. The others are independent: the evolution never
sees them. They are TF-IDF with a logistic regression, and the supervised ceiling model; both are
trained on all labels of the training dialogues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfemo_api.api_model import ApiModel
from selfemo_study.statistics import Interval, bootstrap_draws, interval_of
from selfemo_study.study_config import StudyError

BASELINE_JUDGE, TFIDF_JUDGE, CEILING_JUDGE = "baseline", "tfidf-all", "ceiling"
#: The judges that the evolution never sees.
INDEPENDENT = (TFIDF_JUDGE, CEILING_JUDGE)

#: How many responses of each dialogue are read as intended, and how many there are; shape
#: (dialogues, 2).
Counts = NDArray[np.int64]


class JudgedGeneration(ApiModel):
    """What one judge reads in the responses of one generation."""

    generation: int
    dialogues: list[tuple[int, int]]
    """For each dialogue, how many responses are read as intended, and how many there are."""
    by_emotion: list[float]
    """The share read as intended of each emotion, in the order of the label set."""


class JudgePredictions(ApiModel):
    """What one judge reads in the responses of a row and seed."""

    judge: str
    human: float | None = None
    """The share of human turns of the same dataset that the judge reads as their own label, as the
    mean over the emotions; None without such turns."""
    generations: list[JudgedGeneration]

    def counts(self, generation: int) -> Counts:
        """Return the counts of a generation. Raises KeyError."""
        for judged in self.generations:
            if judged.generation == generation:
                return np.array(judged.dialogues, np.int64).reshape(-1, 2)
        raise KeyError(generation)


class ResponseFigures(ApiModel):
    """What the responses of a generation are like, whoever reads them."""

    generation: int
    diversity: float
    """Distinct-2."""
    equal_diversity: float | None = None
    """Distinct-2 of as many word pairs as the generation with the fewest has; None if one has
    none. Longer responses repeat more pairs, so that plain distinct-2 is lower."""
    words: float
    """The mean number of words."""
    named: float
    """The share of responses that name the intended emotion outright."""
    well_formed: float


class RowExpression(ApiModel):
    """The expression of one finished row and seed."""

    row: str
    seed: int
    settings: str
    """The hash of the settings that the row was run with."""
    best: int
    """The number of the generation that the row uses."""
    judges: list[JudgePredictions]
    responses: list[ResponseFigures]

    def judge(self, name: str) -> JudgePredictions | None:
        """Return the readings of a judge, or None if it did not read this row."""
        return next((readings for readings in self.judges if readings.judge == name), None)


class StudyExpression(ApiModel):
    """The expression of all rows of a study: the file ``<study>-expression.json``."""

    rows: list[RowExpression]


def share_gain(pairs: Sequence[tuple[Counts, Counts]], *, random_seed: int = 0) -> Interval:
    """Return the mean over seeds of the later share minus the earlier one, with its interval.

    The bootstrap has two levels, as for F1: seeds and whole dialogues (see
    :mod:`selfemo_study.statistics`).

    Parameters
    ----------
    pairs
        The counts before and after, one pair for each seed, each of shape (dialogues, 2). All must
        be about the same contexts.
    random_seed
        The seed of the bootstrap.

    Raises
    ------
    ValueError
        If there are no pairs.
    StudyError
        If they are about different contexts.

    Examples
    --------
    >>> before, after = np.array([[1, 4], [1, 4]]), np.array([[2, 4], [2, 4]])
    >>> share_gain([(before, after)])
    Interval(value=0.25, low=0.25, high=0.25)
    """
    if not pairs:
        raise ValueError("there is no seed to draw from")
    totals = pairs[0][0][:, 1]
    if any(not np.array_equal(counts[:, 1], totals) for pair in pairs for counts in pair):
        raise StudyError(
            "the seeds did not answer the same contexts: run `expression` for all of them with the "
            "same `--contexts`"
        )
    draws = bootstrap_draws(len(totals), len(pairs), random_seed=random_seed)
    drawn = np.stack(
        [_shares(draws.dialogues @ after) - _shares(draws.dialogues @ before)
         for before, after in pairs]
    )  # fmt: skip
    value = float(np.mean([share_of(after) - share_of(before) for before, after in pairs]))
    return interval_of(value, drawn, draws)


def share_of(counts: Counts) -> float:
    """Return the share of responses that are read as intended.

    Parameters
    ----------
    counts
        Shape (dialogues, 2).

    Examples
    --------
    >>> share_of(np.array([[1, 4], [2, 4]]))
    0.375
    """
    return float(_shares(counts.sum(axis=0, dtype=np.float64)))


def _shares(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = sums[..., 0] / np.maximum(sums[..., 1], 1.0)
    return shares


def gain_of_row(seeds: Sequence[RowExpression], judges: Sequence[str]) -> Interval | None:
    """Return how much more often the best generation is read as intended than generation 0.

    Several judges count as one: the mean of their shares.

    Parameters
    ----------
    seeds
        The expression of the row's seeds.
    judges
        The names of the judges.

    Returns
    -------
    Interval or None
        None if a judge has not read a seed, or there are no seeds.
    """
    pairs = []
    for seed in seeds:
        readings = [one for name in judges if (one := seed.judge(name))]
        if len(readings) != len(judges):
            return None
        before = np.sum([one.counts(0) for one in readings], axis=0)
        after = np.sum([one.counts(seed.best) for one in readings], axis=0)
        pairs.append((before, after))
    return share_gain(pairs) if pairs else None


def row_expression(seeds: Sequence[RowExpression]) -> dict[str, Any] | None:
    """Return the figures of a row as JSON, as means over its seeds.

    Parameters
    ----------
    seeds
        The expression of the row's seeds. None of them: None.
    """
    if not seeds:
        return None
    names = [name for name in (BASELINE_JUDGE, *INDEPENDENT) if all(s.judge(name) for s in seeds)]
    return {
        "seeds": [seed.seed for seed in seeds],
        "judges": {name: _judge(seeds, name) for name in names},
        "independentGain": _json(gain_of_row(seeds, INDEPENDENT)),
        "generationZero": _responses(seeds, {seed.seed: 0 for seed in seeds}),
        "best": _responses(seeds, {seed.seed: seed.best for seed in seeds}),
    }


def _judge(seeds: Sequence[RowExpression], name: str) -> dict[str, Any]:
    readings = {seed.seed: one for seed in seeds if (one := seed.judge(name))}
    humans = [one.human for one in readings.values() if one.human is not None]
    best = {seed.seed: seed.best for seed in seeds}
    return {
        "generationZero": _mean([share_of(one.counts(0)) for one in readings.values()]),
        "best": _mean([share_of(one.counts(best[seed])) for seed, one in readings.items()]),
        "gain": _json(gain_of_row(seeds, [name])),
        "humanTurns": _mean(humans) if humans else None,
    }


def _responses(
    seeds: Sequence[RowExpression], numbers: Mapping[int, int]
) -> dict[str, float | None]:
    """Return the means of what the responses of a generation of each seed are like."""
    chosen = [
        figures
        for seed in seeds
        for figures in seed.responses
        if figures.generation == numbers[seed.seed]
    ]
    equal = [one.equal_diversity for one in chosen if one.equal_diversity is not None]
    return {
        "diversity": _mean([figures.diversity for figures in chosen]),
        "equalDiversity": _mean(equal) if len(equal) == len(chosen) else None,
        "words": _mean([figures.words for figures in chosen]),
        "named": _mean([figures.named for figures in chosen]),
        "wellFormed": _mean([figures.well_formed for figures in chosen]),
    }


def _json(interval: Interval | None) -> dict[str, float] | None:
    return interval.to_json() if interval else None


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 6)
