"""The gain of one model over another on the same utterances, with a paired interval. Pure.

Both models answered the same utterances. Each resample draws whole dialogues, and takes the same
dialogues for both models (Efron and Tibshirani 1993, chapter 13). What makes a dialogue easy or
hard for both models does not widen the interval then, as it does with two separate intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfemo_jobs.evaluation.metrics import (
    confusion_matrices,
    label_weights,
    resampled_f1,
    rounded,
    weighted_f1,
)
from selfemo_jobs.evaluation.prediction_table import read_predictions, read_set_predictions
from selfemo_jobs.evaluation.set_metrics import (
    counts_by_dialogue,
    utterance_weights,
    weighted_f1_of_counts,
)

#: The columns that two tables of the same utterances have in common.
_SHARED = ["dialogue_id", "utterance", "gold"]
#: Quantiles of the interval.
_LOW, _HIGH = 0.025, 0.975


class DifferentUtterances(ValueError):
    """Two models cannot be compared: they answered different utterances, or their labels differ."""


@dataclass(frozen=True)
class Gain:
    """The difference between the weighted F1 of two models on the same utterances."""

    gain: float
    """The F1 of the second model minus that of the first, from -1 to 1."""
    low: float
    """The lower end of the 95% interval of the gain."""
    high: float
    """The upper end of the 95% interval of the gain."""


def gain_between(
    first: pa.Table,
    second: pa.Table,
    labels: Sequence[str],
    *,
    sets: bool,
    label_prior: Mapping[str, float] | None = None,
    resamples: int,
    seed: int,
) -> Gain:
    """Return the gain of the second model over the first.

    Parameters
    ----------
    first, second
        The answers of both models, with the columns of
        :data:`selfemo_jobs.evaluation.prediction_table.PREDICTIONS` and at least one row.
    labels
        The label set.
    sets
        Whether the labels of an utterance are compared as a set.
    label_prior
        Share of each label where the model is used, or None, as for the scores.
    resamples
        Number of bootstrap resamples, 1 or more.
    seed
        The seed of the resamples.

    Returns
    -------
    Gain
        The gain with its interval.

    Raises
    ------
    DifferentUtterances
        If the tables do not have the same utterances with the same gold labels.
    ValueError
        If the label prior gives no utterance a weight above 0.
    """
    if not first.select(_SHARED).equals(second.select(_SHARED)):
        raise DifferentUtterances("the models answered different utterances")
    counts = [_counts(table, labels, label_prior, sets=sets) for table in (first, second)]
    f1 = weighted_f1_of_counts if sets else weighted_f1
    return paired_gain(counts[0], counts[1], resamples, seed, f1=f1)


def paired_gain(
    first: NDArray[Any],
    second: NDArray[Any],
    resamples: int,
    seed: int,
    *,
    f1: Callable[[NDArray[Any]], NDArray[np.float64]] = weighted_f1,
) -> Gain:
    """Return the gain with its 95% paired bootstrap interval.

    Parameters
    ----------
    first, second
        Counts of each dialogue, weighted or not, for both models; shape (D, …). Dialogue i is the
        same one in both.
    resamples
        Number of resamples, 1 or more. Each draws D dialogues with replacement.
    seed
        The seed of the draws. They are the same for both models.
    f1
        A function that returns the weighted F1 of counts of shape (n, …). By default the counts
        are confusion matrices.

    Returns
    -------
    Gain
        The gain with its interval. A single dialogue says nothing about others: the interval is
        then the whole range.

    Examples
    --------
    >>> wrong, right = np.array([[[0, 2], [0, 2]]] * 2), np.array([[[2, 0], [0, 2]]] * 2)
    >>> paired_gain(wrong, right, resamples=10, seed=0)
    Gain(gain=0.666667, low=0.666667, high=0.666667)
    >>> paired_gain(wrong[:1], right[:1], resamples=10, seed=0)
    Gain(gain=0.666667, low=-1.0, high=1.0)
    """
    totals = [f1(counts.sum(axis=0)[np.newaxis])[0] for counts in (first, second)]
    if len(first) < 2:
        return Gain(rounded(totals[1] - totals[0]), -1.0, 1.0)
    scores = [resampled_f1(counts, resamples, seed, f1=f1) for counts in (first, second)]
    low, high = np.quantile(scores[1] - scores[0], [_LOW, _HIGH])
    return Gain(rounded(totals[1] - totals[0]), rounded(low), rounded(high))


def _counts(
    table: pa.Table, labels: Sequence[str], prior: Mapping[str, float] | None, *, sets: bool
) -> NDArray[np.float64]:
    """Return the weighted counts of each dialogue, from which F1 is computed."""
    if sets:
        by_set = read_set_predictions(table, labels)
        return counts_by_dialogue(by_set, utterance_weights(by_set.gold, labels, prior))
    predictions = read_predictions(table, labels)
    support = np.bincount(predictions.gold, minlength=len(labels))
    weights = label_weights(support, labels, prior)
    return confusion_matrices(predictions, len(labels)) * weights[:, np.newaxis]
